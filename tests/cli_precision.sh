#!/usr/bin/env bash
# --precision: what it changes and what not, in every command that has it.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6

train() { # train OUT ARGS...
    local out=$1
    shift
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --data data --out "$out" --sample-every 0 "$@" >out.txt 2>err.txt </dev/null
}
same() { cmp -s "$1/model.safetensors" "$2/model.safetensors"; }

# ---- training ----
check 'in fp32, as usual' train usual --steps 10
check 'and asked for' train fp32 --steps 10 --precision fp32
check 'which is the same' same usual fp32
check 'in bfloat16' train bf16 --steps 10 --precision bf16 --save-every 8s
check 'it says by what' grep -q "$("$SDLORA" --version --verbose | sed -n 's/^bfloat16: //p')\$" err.txt
check 'which gives other weights' test "$(cmp usual/model.safetensors bf16/model.safetensors | wc -l)" -eq 1
check 'in the same format' test "$(stat -c %s usual/model.safetensors)" -eq "$(stat -c %s bf16/model.safetensors)"
loss() { sed -n 's/.*"step": 10,.*"loss": \([0-9.]*\),.*/\1/p' "$1/metrics.jsonl"; }
check 'and nearly the same loss' awk -v a="$(loss usual)" -v b="$(loss bf16)" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 < (0.02 * a) ^ 2) }'
check 'on two threads' train threads --steps 10 --precision bf16 --threads 2
check 'the same bytes' same bf16 threads
check 'resumed after the eighth step' train resumed --resume bf16/checkpoints/ckpt-00000008
check 'the same bytes again' same bf16 resumed
# shellcheck disable=SC2086
refuse 2 '--precision was bf16, now fp32' train $SMALL --data data --out resumed --resume --precision fp32
check 'the run says it' grep -q '"precision": "bf16"' bf16/run.json
expect 0 'precision        bf16' info bf16
# shellcheck disable=SC2086
refuse 2 "--precision" train $SMALL --data data --out other --precision f16

# ---- an adapter ----
finetune() { "$SDLORA" finetune --model usual --data data --steps 4 --batch-size 8 --rank 2 --progress none --sample-every 0 "$@" >out.txt 2>err.txt; }
check 'an adapter' finetune --out lora
check 'in bfloat16' finetune --out lora16 --precision bf16
check 'is another' test "$(cmp lora/adapter_model.safetensors lora16/adapter_model.safetensors | wc -l)" -eq 1

# ---- drawing ----
check 'drawn' "$SDLORA" sample --model usual -n 2 --steps 4 -o a.png -q
check 'in bfloat16' "$SDLORA" sample --model usual -n 2 --steps 4 -o b.png -q --precision bf16
check 'by whatever is fastest' "$SDLORA" sample --model usual -n 2 --steps 4 -o c.png -q --precision auto
pixels a.png >a.txt
pixels b.png >b.txt
check 'is nearly the same picture' awk '
    NR == FNR { for (i = 1; i <= NF; i++) a[FNR, i] = $i; next }
    { for (i = 1; i <= NF; i++) { d = a[FNR, i] - $i; if (d > 24 || d < -24) exit 1; other += d != 0 } }
    END { exit !other }' a.txt b.txt
expect 0 'precision bf16' info b.png

# ---- bench ----
expect 0 'peak of products in bf16' bench --preset tiny --runs 1 --batch-size 8 --eval-size 8 --threads 1 -q --precision bf16
check 'beside that of multiply-adds' grep -q '^peak of multiply-adds in fp32: ' out.txt
check 'and the convolutions as they run' grep -Eq ' (shifted|winograd-f4) ' out.txt
finish
