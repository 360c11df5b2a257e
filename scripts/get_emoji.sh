#!/usr/bin/env bash
# Fetch emoji as pictures into data/NAME/: 64x64 PNG files with transparency, a folder per category.
#
#   scripts/get_emoji.sh twemoji|noto [DIR]
#
# They come from the npm packages emoji-datasource-twitter and emoji-datasource-google (Cal Henderson, MIT), which carry
# Twemoji (Twitter, Inc and other contributors; graphics CC BY 4.0) and Noto Emoji (Google; Apache License 2.0), and in
# emoji.json each one's name and category. A picture has the same name in both sets: its short name, and its skin tones
# where it has some. The five skin tones by themselves are left out. DIR must not be there, or be empty, or be complete.
set -euo pipefail
cd "$(dirname "$0")/.."

version=16.0.0
usage() {
    echo "usage: scripts/get_emoji.sh twemoji|noto [DIR]"
}
say() {
    echo "get_emoji: $*" >&2
}

case ${1-} in
twemoji)
    vendor=twitter sum=f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877
    licence="Twemoji: graphics by Twitter, Inc and other contributors, CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)"
    ;;
noto)
    vendor=google sum=fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438
    licence="Noto Emoji: Google, Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0)"
    ;;
-h | --help)
    usage
    exit 0
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
[ $# -le 2 ] || {
    usage >&2
    exit 2
}
name=$1
dir=${2:-data/$name}
package=emoji-datasource-$vendor

# about.txt comes last into the directory: where it is, all is.
if [ -f "$dir/about.txt" ] && grep -q "$package $version" "$dir/about.txt"; then
    say "'$dir' is complete"
    exit 0
fi
if [ -e "$dir" ] && { [ ! -d "$dir" ] || [ -n "$(ls -A "$dir")" ]; }; then
    say "'$dir' is there and is not $name's: move it away, or name another directory"
    exit 1
fi
for tool in npm node tar sha256sum; do
    command -v $tool >/dev/null 2>&1 || {
        say "$tool is not installed (npm and node: apt-get install npm); or unpack the npm package $package $version" \
            "and sort its img/$vendor/64 into folders yourself"
        exit 1
    }
done

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$(dirname "$dir")/.fetch-XXXXXXXX") # beside its destination, so that the last step is a rename
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
say "fetching the npm package $package $version (60 to 75 MB)"
(cd "$work" && npm pack --silent "$package@$version" >/dev/null) || {
    say "cannot fetch $package"
    exit 1
}
archive=$work/$package-$version.tgz
[ "$(sha256sum <"$archive" | cut -d' ' -f1)" = "$sum" ] || {
    say "$package $version has another SHA-256 than expected, $sum"
    exit 1
}
tar -xzf "$archive" -C "$work" package/emoji.json "package/img/$vendor/64"
mkdir "$work/out"
node - "$work/package" "$vendor" "$work/out" <<'NODE'
const fs = require("fs"), path = require("path"), [root, vendor, out] = process.argv.slice(2);
const place = (e, name, category) => {
    const from = path.join(root, "img", vendor, "64", e.image);
    if (!fs.existsSync(from)) return;
    const folder = path.join(out, category.split(" ")[0].toLowerCase());
    fs.mkdirSync(folder, {recursive: true});
    fs.renameSync(from, path.join(folder, name + ".png"));
};
for (const e of JSON.parse(fs.readFileSync(path.join(root, "emoji.json"), "utf8"))) {
    if (e.category === "Component") continue;
    place(e, e.short_name, e.category);
    for (const [tone, v] of Object.entries(e.skin_variations || {})) place(v, e.short_name + "-" + tone.toLowerCase(), e.category);
}
NODE
printf '%s\nFrom the npm package %s %s.\n' "$licence" "$package" "$version" >"$work/out/about.txt"
chmod 755 "$work/out"
[ ! -d "$dir" ] || rmdir "$dir"
mv "$work/out" "$dir"
say "'$dir' has $(find "$dir" -name '*.png' | wc -l) pictures in $(find "$dir" -mindepth 1 -type d | wc -l) folders"
