#!/bin/sh
# Fuzzes the file readers with libFuzzer (clang), under AddressSanitizer and UBSan.
# usage: scripts/fuzz.sh [SECONDS] [TARGET...]     default: 30 seconds for each tests/fuzz/fuzz_*.c
# Seeds: tests/fuzz/seeds/TARGET and tests/badfiles. What it finds on the way stays in build/fuzz/corpus, a crash in
# build/fuzz/crashes. Exit status 1 after a crash, a leak, a time-out, or more than 1 GB of memory.
cd "$(dirname "$0")/.." || exit 1
seconds=${1:-30}
[ $# -gt 0 ] && shift
case $seconds in
'' | *[!0-9]*)
    echo "fuzz: '$seconds' is not a number of seconds" >&2
    exit 2
    ;;
esac
clang=${CLANG:-clang}
dir=${BUILD:-build}/fuzz
[ $# -gt 0 ] || set -- $(ls tests/fuzz/fuzz_*.c | sed 's/.*fuzz_\(.*\)\.c/\1/')
status=0
total=0
mkdir -p "$dir/crashes"
lib=$dir/san-fuzzer-no-link-address-undefined/libsdlora.a
make -s BUILD="$dir" CC="$clang" SANITIZE=fuzzer-no-link,address,undefined ISAS=baseline KERNEL_OPT=-O1 CFLAGS='-g -O1' \
    "$lib" || exit 1
for target in "$@"; do
    source=tests/fuzz/fuzz_$target.c
    [ -f "$source" ] || { echo "fuzz: no target '$target'" >&2; exit 2; }
    # shellcheck disable=SC2046
    "$clang" -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -pthread -D_GNU_SOURCE \
        -Iinclude $(pkg-config --cflags zlib jansson libmd libzip) "$source" "$lib" \
        $(pkg-config --libs openblas zlib jansson libmd libpcre2-8 libzip) -lm -o "$dir/$target" || exit 1
    mkdir -p "$dir/corpus/$target"
    seeds=tests/fuzz/seeds/$target
    [ "$target" = safetensors ] && seeds="$seeds tests/badfiles"
    dict=
    [ -f "tests/fuzz/$target.dict" ] && dict=-dict=tests/fuzz/$target.dict
    "$dir/$target" -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=1024 -timeout=10 -print_final_stats=1 $dict \
        -artifact_prefix="$dir/crashes/$target-" "$dir/corpus/$target" $seeds >"$dir/$target.log" 2>&1
    result=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/$target.log")
    total=$((total + ${runs:-0}))
    if [ "$result" -eq 0 ]; then
        echo "fuzz $target: ${runs:-0} executions, no crash"
    else
        tail -n 40 "$dir/$target.log"
        echo "fuzz $target: FAILED after ${runs:-?} executions; the input lies in $dir/crashes/, the log is $dir/$target.log"
        status=1
    fi
done
echo "fuzz: $total executions"
exit $status
