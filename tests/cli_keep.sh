#!/usr/bin/env bash
# What a run keeps, and what it refuses: its best checkpoint, what was there before a divergence, options that contradict
# those it was begun with. (cli_train.sh has resuming itself.)
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
idx_data other train 48
idx_data other t10k 6
list() { find "$1" ! -type d ! -name lock -exec cksum {} + | sort; }
train() { # train OUT ARGS...
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --data data --out "$1" --sample-every 0 --lr-schedule constant "${@:2}" \
        >out.txt 2>err.txt </dev/null
}

# ---- the best one, which is not the last ----
check 'a run of five steps' train run --steps 5 --ema 0 --keep 1
printf '{"checkpoint": "ckpt-00000005", "step": 5, "val_loss": 1e-9}' >run/checkpoints/best.json # none will be better
cp run/checkpoints/ckpt-00000005/model.safetensors best.safetensors
check 'goes on' train run --resume --steps 20 --save-every 5s
check 'the best and the last are kept' \
    test "$(echo run/checkpoints/*)" = "$(echo run/checkpoints/{best,best.json,ckpt-00000005,ckpt-00000020})"
check 'best is the old one' cmp run/checkpoints/best/model.safetensors best.safetensors
check 'and not the result' test "$(cmp best.safetensors run/model.safetensors | wc -l)" -eq 1
expect 0 'best.png' sample --model run/checkpoints/best/model.safetensors -n 1 --steps 2 -o best.png
expect 0 '"step": 5' info --json run/checkpoints/best/state.safetensors
check 'resumed from the best' train run --resume best --steps 21
check 'it goes on there' grep -q 'after step 5' err.txt
check 'what lay ahead is out of the way' \
    test "$(echo run/checkpoints/*)" = "$(echo run/checkpoints/{best,best.json,ckpt-00000005,ckpt-00000021})"
rm -r run/checkpoints/ckpt-00000005
check 'where somebody removed the best' train run --resume --steps 25
check 'the next one is it' cmp run/checkpoints/best/model.safetensors run/checkpoints/ckpt-00000025/model.safetensors

# ---- a run from before optimizers could be chosen ----
check 'a run by Adam' train old --optimizer adam --timestep-sampling uniform --steps 3
sed -i '/"optimizer"/d; /"timestep-sampling"/d' old/run.json
check 'that does not say so' test "$(grep -c 'optimizer\|timestep-sampling' old/run.json)" -eq 0
refuse 2 '--optimizer was adam, now muon' train --data data --out old --resume --steps 6 --optimizer muon
check 'goes on' train old --resume --steps 6
check 'by Adam' test "$(grep -c '"optimizer": "adam"\|"timestep-sampling": "uniform"' old/run.json)" -eq 2

# ---- a divergence: BatchNorm's running variance overflows while the loss is finite ----
wild() {
    "$SDLORA" train --preset seed --image-size 8 --channels 4,8 --time-dim 16 --context-dim 8 --timesteps 20 \
        --batch-size 8 --data data --out wild --save-every 1s --sample-every 0 --lr 100 --weight-decay 10 --threads 1 \
        --progress none "$@" >out.txt 2>err.txt
}
check 'one step' wild --steps 1
for file in model.safetensors checkpoints/ckpt-00000001/state.safetensors; do
    check "$file is finite" finite wild/$file
done
wild --resume --steps 200
check 'a hundred more of them end with 4' test $? -eq 4
check 'in one sentence' test "$(grep -c 'not finite' err.txt)" -eq 1
for file in wild/checkpoints/ckpt-*/*.safetensors wild/model.safetensors; do
    check "$file is finite" finite "$file"
done
page() { sed 's/Written [-0-9: ]*/Written /' wild/report.html; } # it says when it was written
page >before.html
before=$(list wild | grep -v 'metrics\|report')
wild --resume --steps 200
check 'resumed, it ends so again' test $? -eq 4
check 'and leaves what was there' test "$(list wild | grep -v 'metrics\|report')" = "$before"
page >after.html
check 'its page too' cmp before.html after.html

# ---- contradictions: all of them are named, nothing is written ----
refuse_all() { # refuse_all 'TEXT TEXT...' ARGS...: these texts, each a part of one refusal
    local text before
    before=$(list .)
    "$SDLORA" "${@:2}" >"$WORK.out" 2>"$WORK.err" </dev/null
    check "'${*:2}': status $?" test $? -ne 0 # the message must not be written where we look
    for text in $1; do
        check "'${*:2}' does not name '$text' but: $(cat "$WORK.err")" grep -qF -- "$text" "$WORK.err"
    done
    check "'${*:2}' writes nothing" test "$before" = "$(list .)"
    rm -f "$WORK.out" "$WORK.err"
}
refuse_all '--channels 4,8 8,8' train --resume --data data --out run --channels 8,8
refuse_all '--channels --groups --seed --lr' train --resume --data data --out run --channels 8,8 --groups 4 --seed 2 --lr 1
refuse_all '--preset tiny seed' train --resume --data data --out run --preset seed
refuse_all '--batch-size 8 4' train --resume --data data --out run --batch-size 4
refuse_all 'data_sha256 --force' train --resume --data other --out run --steps 30
refuse_all '--channels' train --resume run --data data --out elsewhere --channels 8,8
tune() {
    "$SDLORA" finetune --model best.safetensors --data data --out tuned --rank 2 --batch-size 8 --sample-every 0 \
        --progress none --threads 1 "$@" >out.txt 2>err.txt </dev/null
}
check 'an adapter' tune --steps 2 --lr-schedule constant
resume='finetune --resume --data data --out tuned --steps 4'
for options in '--rank 4' '--target w_q' '--alpha 3' '--seed 1' '--rank 4 --target w_v --alpha 16'; do
    # shellcheck disable=SC2086
    refuse_all "$options" $resume --model best.safetensors $options
done
# shellcheck disable=SC2086
refuse_all "'run/model.safetensors' is not the model that this adapter was begun on" $resume --model run/model.safetensors
# shellcheck disable=SC2086
refuse_all 'data_sha256' $resume --model best.safetensors --data other

finish
