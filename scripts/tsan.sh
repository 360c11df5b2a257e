#!/usr/bin/env bash
# Training, fine-tuning and sampling steps on two threads under ThreadSanitizer (make tsan), with clang.
#   scripts/tsan.sh [BUILD]
# Not seen: what happens inside of OpenBLAS, zlib and the C library, which are not compiled for it, and code that these
# steps do not reach. The kernels are those of the baseline; the other instruction sets share their source.
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
build=$(mkdir -p "${1:-$root/build}/tsan" && cd "${1:-$root/build}/tsan" && pwd) || exit 1
clang=${CLANG:-clang}
. "$root/tests/lib_cli.sh"
make -s -C "$root" CC="$clang" BUILD="$build" SANITIZE=thread ISAS=baseline KERNEL_OPT=-O1 CFLAGS='-O1 -g' \
    "$build/san-thread/sdlora" || exit 1
"$clang" -g -pthread -fsanitize=thread -D_GNU_SOURCE -I"$root/include" "$root/tests/fault/race.c" \
    "$root/src/base/threads.c" "$root/src/base/cores.c" -o race || exit 1
SDLORA=$build/san-thread/sdlora
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66"

check 'a race is found' test "$(./race >out.txt 2>err.txt; echo $?)" -eq 66
check 'what is synchronised passes' ./race well >out.txt 2>err.txt

clean() { # clean NAME ARGS...: status 0, no report
    local name=$1 status
    shift
    "$SDLORA" "$@" --threads 2 >out.txt 2>err.txt </dev/null
    status=$?
    [ $status -eq 0 ] || head -n 60 err.txt
    check "$name: status $status" test $status -eq 0
}
idx_data data train 24
idx_data data t10k 6
small='--data data --batch-size 8 --progress none --timesteps 20'
# shellcheck disable=SC2086
{
    clean 'train' train --preset tiny $small --micro-batch 3 --steps 2 --sample-every 0 --out run
    clean 'train, im2col' train --preset tiny $small --conv im2col --steps 1 --sample-every 0 --out im2col
    clean 'train --preset seed' train --preset seed $small --image-size 8 --channels 8,16 --steps 2 --sample-every 0 --out seed
}
clean 'finetune' finetune --model run/model.safetensors --data data --batch-size 8 --rank 2 --steps 2 --sample-every 0 \
    --progress none --out tuned
clean 'sample' sample --model run/model.safetensors --lora tuned --cfg-scale 2 -n 4 --steps 3 -o a.png
finish
