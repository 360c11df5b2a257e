# For the tests of the command line: a scratch directory, small data, checks. Sourced by tests/cli_*.sh; the program is $SDLORA.
set -u
SDLORA=${SDLORA:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/sdlora}
export OMP_WAIT_POLICY=passive # tests share their processors with others
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
failures=0

fail() {
    echo "FAIL: $*" >&2
    failures=$((failures + 1))
}

# expect STATUS TEXT ARGS...: the program ends with STATUS, and TEXT (a fixed string) is in what it says on either stream.
expect() {
    local status=$1 text=$2 got
    shift 2
    "$SDLORA" "$@" >out.txt 2>err.txt </dev/null
    got=$?
    [ "$got" -eq "$status" ] || fail "'$*' ended with $got, not $status: $(head -c 300 err.txt)"
    if [ -n "$text" ] && ! grep -qF -- "$text" out.txt err.txt; then
        fail "'$*' does not say '$text' but: $(head -c 300 err.txt)"
    fi
}

# A sentence for people: errors are one line that begins with the program's name (and one more that says where help is).
one_sentence() {
    [ "$(grep -c '^sdlora: ' err.txt)" -eq 1 ] && [ "$(grep -cv -e '^sdlora: ' -e "^Try 'sdlora " err.txt)" -eq 0 ] ||
        fail "not one sentence: $(cat err.txt)"
}

be32() { # a big-endian u32
    # shellcheck disable=SC2059
    printf "$(printf '\\%03o\\%03o\\%03o\\%03o' $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255)))"
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
        for ((i = 0; i < n; i++)); do printf "\\00$((i % 3))"; done
    } >"$dir/$split-labels-idx1-ubyte"
}

# The smallest model that has every part of a real one.
SMALL="--preset tiny --image-size 8 --channels 4,8 --groups 2 --time-dim 16 --context-dim 8 --timesteps 20 --batch-size 8
       --warmup 2 --log-every 1 --threads 1 --progress none"

finish() {
    if [ "$failures" -gt 0 ]; then
        echo "$failures checks failed" >&2
        exit 1
    fi
}
