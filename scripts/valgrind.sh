#!/usr/bin/env bash
# Runs test programs and the program itself under valgrind's memcheck: reads of what was never written, accesses outside
# of blocks, memory that is lost. Exit status 1 when valgrind has something to say.
#   scripts/valgrind.sh SDLORA TEST...          (make valgrind)
# valgrind knows neither AVX-512 (so: SIMD avx2, OpenBLAS for Haswell) nor flush-to-zero, and computes in another
# precision here and there: whether a test passes does not count, only what valgrind finds in it.
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
sdlora=$(realpath "$1") tests=()
for test in "${@:2}"; do tests+=("$(realpath "$test")"); done
. "$root/tests/lib_cli.sh" # a scratch directory, where we are now; small data
SDLORA=$sdlora
export SDLORA_SIMD=avx2 OPENBLAS_CORETYPE=Haswell

memcheck() { # memcheck STATUS NAME COMMAND...: every error counts; and the exit status, unless that is -
    local wanted=$1 name=$2 begin=$SECONDS status
    shift 2
    valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,possible \
        --errors-for-leak-kinds=definite,possible --suppressions="$root/tests/valgrind.supp" \
        --log-file=log.%p "$@" >out.txt 2>&1 </dev/null
    status=$?
    if [ -n "$(cat log.*)" ] || [ $status -ge 99 ]; then
        fail "$name: exit status $status, $(cat log.* | head -n 60)"
    elif [ "$wanted" != - ] && [ $status -ne "$wanted" ]; then
        fail "$name: exit status $status, not $wanted: $(tail -n 1 out.txt)"
    else
        passed=$((passed + 1))
        echo "$name: nothing found ($((SECONDS - begin)) s)"
    fi
    rm -f log.*
}

for test in "${tests[@]}"; do
    memcheck - "$(basename "$test")" "$test"
done

# Every command once, on little.
idx_data data train 24
idx_data data t10k 6
gzip data/t10k-*
small='--data data --batch-size 4 --sample-every 0 --progress none --threads 1'
tiny='--preset tiny --image-size 8 --timesteps 20'
# shellcheck disable=SC2086
{
    memcheck 0 train "$SDLORA" train $tiny $small --threads 2 --steps 2 --save-every 1s --out run
    memcheck 0 'train --resume' "$SDLORA" train --resume --data data --steps 3 --out run --threads 2
    memcheck 0 'train --preset seed' "$SDLORA" train --preset seed --channels 8,8 --image-size 8 --timesteps 20 $small \
        --steps 2 --out seed
    memcheck 4 'train, diverging' "$SDLORA" train --preset seed --channels 4,8 --image-size 8 --timesteps 20 $small \
        --steps 60 --lr 100 --weight-decay 10 --save-every 1s --out wild
    memcheck 0 finetune "$SDLORA" finetune --model run/model.safetensors $small --rank 2 --steps 2 --out tuned
    memcheck 0 sample "$SDLORA" sample --model run/model.safetensors --threads 1 -n 2 --steps 2 -o a.png
    memcheck 0 'sample --lora --compare' "$SDLORA" sample --model run/model.safetensors --lora tuned --compare -n 1 \
        --steps 2 --threads 1 -o b.png
    memcheck 0 'sample, ddpm, idx' "$SDLORA" sample --model seed/model.safetensors --digit 1 -n 1 --threads 1 \
        --format idx -o c
    memcheck 0 merge "$SDLORA" merge run tuned:0.5 -o merged --threads 1
    memcheck 0 extract "$SDLORA" extract run merged -o extracted --energy 0.9 --full --threads 1
    memcheck 0 resize "$SDLORA" resize tuned -m run -o resized --rank 1 --threads 1
    memcheck 0 noise "$SDLORA" noise --data data -o d.png
    memcheck 0 data "$SDLORA" data data
    memcheck 0 'data, a copy' "$SDLORA" data data --transform slant -n 6 -o copy
    memcheck 3 'data, nothing there' "$SDLORA" data run
    memcheck 0 info "$SDLORA" info run/model.safetensors
    memcheck 0 'info of an adapter' "$SDLORA" info tuned
    memcheck 0 'info --json' "$SDLORA" info --json data/t10k-images-idx3-ubyte.gz
    memcheck 0 'info of directories' "$SDLORA" info run run/checkpoints/best data
    memcheck 0 'info of a picture' "$SDLORA" info b.png
    memcheck 0 list "$SDLORA" list .
    memcheck 0 'eval of images' "$SDLORA" eval data --data data --judge-epochs 1 --neighbours 4 --cas --no-cache -o scored
    memcheck 0 'eval of a model' "$SDLORA" eval run --data data --judge-epochs 1 -n 4 --steps 2 --no-cache --json
    memcheck 0 report "$SDLORA" report tuned
    memcheck 3 'info of a damaged file' "$SDLORA" info out.txt
    memcheck 2 'a wrong option' "$SDLORA" train --chanels 3
}
finish
