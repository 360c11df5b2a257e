# shellcheck shell=bash
# For the tests of the command line: a scratch directory, small data, checks. Sourced by tests/cli_*.sh; the program is
# $SDLORA.
set -u
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SDLORA=${SDLORA:-$(dirname "$TESTS")/sdlora}
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
export XDG_CACHE_HOME=$WORK/.cache # not the home of whoever tests
passed=0
failed=0

fail() {
    echo "FAIL: $*" >&2
    failed=$((failed + 1))
}

# check WHAT COMMAND...: the command succeeds.
check() {
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else fail "$what"; fi
}

# expect STATUS TEXT ARGS...: the program ends with STATUS, and says TEXT (a fixed string) on either stream.
expect() {
    local status=$1 text=$2 got
    shift 2
    "$SDLORA" "$@" >out.txt 2>err.txt </dev/null
    got=$?
    if [ "$got" -ne "$status" ]; then
        fail "'$*' ended with $got, not $status: $(head -c 300 err.txt)"
    elif [ -n "$text" ] && ! grep -qF -- "$text" out.txt err.txt; then
        fail "'$*' does not say '$text' but: $(head -c 300 err.txt)"
    else
        passed=$((passed + 1))
    fi
}

# refuse STATUS TEXT ARGS...: expect, and the refusal is one sentence (and a line that says where help is), nothing on
# standard output.
refuse() {
    expect "$@"
    if [ "$(grep -c '^sdlora: ' err.txt)" -ne 1 ] || grep -qv -e '^sdlora: ' -e "^Try 'sdlora " err.txt ||
        [ -s out.txt ]; then
        fail "'${*:3}' does not refuse in one sentence: $(cat out.txt err.txt)"
    fi
}

# finite FILE: it is there, can be read, and no value in it is infinite or NaN.
finite() {
    local text
    text=$("$SDLORA" info --tensors "$1") && [[ $text == *'tensors:'* && $text != *'not finite'* ]]
}

# size FILE: of a PNG, as 28x28. kind FILE: bits a channel, and 0 for grey, 2 for RGB.
size() { od -An -tu1 -j16 -N8 "$1" | awk '{ print $3 * 256 + $4 "x" $7 * 256 + $8 }'; }
kind() { od -An -tu1 -j24 -N2 "$1" | awk '{ print $1, $2 }'; }
# pixels FILE: rows of a PNG, numbers with spaces between, three for a pixel in colour. The stream of the one IDAT chunk is
# gzip's but for its header; the filters are those of the PNG specification, 9.2.
pixels() {
    local at width
    at=$(grep -abo IDAT "$1" | head -n 1 | cut -d: -f1)
    width=$(size "$1")
    { printf '\037\213\010\0\0\0\0\0\0\0' && tail -c +$((at + 7)) "$1"; } | gzip -dc 2>/dev/null | od -An -v -tu1 -w1 |
        awk -v w="${width%x*}" -v h="${width#*x}" -v kind="$(kind "$1")" '
            function abs(v) { return v < 0 ? -v : v }
            BEGIN { step = kind == "8 2" ? 3 : 1; w *= step }
            NR > (w + 1) * h { exit }
            (NR - 1) % (w + 1) == 0 { filter = $1; x = 0; row = ""; next }
            {
                x++
                left = x > step ? now[x - step] : 0; corner = x > step ? before[x - step] + 0 : 0; up = now[x] + 0
                p = left + up - corner
                a = abs(p - left); b = abs(p - up); c = abs(p - corner)
                guess = filter == 1 ? left : filter == 2 ? up : filter == 3 ? int((left + up) / 2) : \
                        filter == 4 ? (a <= b && a <= c ? left : b <= c ? up : corner) : 0
                v = ($1 + guess) % 256
                before[x] = up; now[x] = v
                row = row (x > 1 ? " " : "") v
                if (x == w) print row
            }'
}

be32() { # a big-endian u32
    printf '%b' "$(printf '\\0%o' $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255)))"
}

# idx_data DIR SPLIT N: N images of 8x8 in three classes, which differ in where they are bright.
idx_data() {
    local dir=$1 split=$2 n=$3 i
    mkdir -p "$dir"
    {
        printf '\000\000\010\003'
        be32 "$n" && be32 8 && be32 8
        for ((i = 0; i < n; i++)); do
            case $((i % 3)) in
            0) printf '%32s%32s' '' '' | tr ' ' '\360' ;;
            1) printf '%32s' '' | tr ' ' '\020' && printf '%32s' '' | tr ' ' '\340' ;;
            2) printf '%8s%8s%8s%8s%8s%8s%8s%8s' aab aab aab aab aab aab aab aab | tr 'ab ' '\300\377\001' ;;
            esac
        done
    } >"$dir/$split-images-idx3-ubyte"
    {
        printf '\000\000\010\001'
        be32 "$n"
        for ((i = 0; i < n; i++)); do printf '%b' "\\0$((i % 3))"; done
    } >"$dir/$split-labels-idx1-ubyte"
}

# The smallest model that has every part of a real one.
# shellcheck disable=SC2034
SMALL="--preset tiny --image-size 8 --channels 4,8 --groups 2 --time-dim 16 --context-dim 8 --timesteps 20
       --batch-size 8 --warmup 2 --log-every 1 --milestone-steps 0 --threads 1 --progress none"

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
