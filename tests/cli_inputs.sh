#!/usr/bin/env bash
# Inputs that would be waited for, or never end, in every place where a command reads: refused at once. The pipes of a shell
# are read.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 24
idx_data data t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --steps 3 --save-every 1s -q >out.txt 2>err.txt
M=run/model.safetensors
"$SDLORA" finetune --model $M --data data --out tuned --rank 2 --batch-size 8 --steps 2 -q >out.txt 2>err.txt
check 'something to begin with' test -s tuned/adapter_model.safetensors
# The bounds are only there to end a test that would hang.
now() { timeout 20 "$SDLORA" "$@"; }
refused() { # refused TEXT ARGS...
    local status
    now "${@:2}" >out.txt 2>err.txt </dev/null
    status=$?
    check "'${*:2}' ends with $status: $(cat err.txt)" test $status -ne 0 -a $status -ne 124
    check "'${*:2}' says '$1' but: $(cat err.txt)" grep -qF -- "$1" err.txt
}
with() { # with PATH COMMAND...: instead of the file PATH (in a copy) there is a named pipe, then a device
    local path=$1
    rm -f "$path" && mkfifo "$path"
    refused "'$path': it is a named pipe" "${@:2}"
    rm "$path" && ln -s /dev/zero "$path"
    refused "'$path': it is a device" "${@:2}"
    rm "$path"
}
rm -rf w && mkdir w
with w/m sample --model w/m -n 1 -o out.png
with w/m finetune --model w/m --data data --steps 1 --out written
with w/m predict --model w/m --input $M --output out.safetensors
with w/in predict --model $M --input w/in --output out.safetensors
with w/x info w/x
with w/x.gz info w/x.gz
cp -r tuned lora && with lora/adapter_model.safetensors sample --model $M --lora lora -n 1 -o out.png
with lora.safetensors sample --model $M --lora lora.safetensors -n 1 -o out.png
for file in train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte; do
    rm -rf w && cp -r data w
    # shellcheck disable=SC2086
    with w/$file train $SMALL --data w --steps 1 --out written
done
rm -rf w && cp -r data w && with w/train-images-idx3-ubyte noise --data w -o out.png
rm -rf w && cp -r data w && with w/t10k-images-idx3-ubyte data w
rm -rf w && mkdir w && cp $M w/train_labels.npy && with w/train_images.npy data w
for file in run.json checkpoints/best.json checkpoints/ckpt-00000003/state.safetensors; do
    rm -rf w && cp -r run w
    rm -rf w/checkpoints/ckpt-00000002 w/$file && mkfifo w/$file
    refused "w/$file" train --resume --data data --out w --steps 4 -q
done
for file in metrics.jsonl lock; do
    rm -rf w && cp -r run w
    rm -f w/$file && mkfifo w/$file
    refused "w/$file" train --resume --data data --out w --steps 4 -q
done
check 'nothing was written' test ! -e out.png -a ! -e out.safetensors -a ! -e written

# ---- what is too long is not read first ----
truncate -s 3G sparse
limited() { (failed=0 && ulimit -v 1500000 && refused "$@" && [ "$failed" -eq 0 ]); }
[ -z "${FAULT_SHIM-}" ] || { # a sanitizer needs more addresses
    check 'three gigabytes of zeros are no model' limited "'sparse'" sample --model sparse -n 1
    check 'nor a file that info reads' limited "'sparse'" info sparse
    rm -rf w && cp -r data w && mv sparse w/train-images-idx3-ubyte
    # shellcheck disable=SC2086
    check 'nor images' limited "w/train-images-idx3-ubyte'" train $SMALL --data w --steps 1 --out written
}

# ---- pipes of the shell ----
check 'a model out of a pipe' now sample --model <(cat $M) -n 1 --steps 2 -q -o piped.png >out.txt
check 'the same from the file' now sample --model $M -n 1 --steps 2 -q -o file.png >out.txt
check 'draw the same' cmp <(tail -c 500 piped.png) <(tail -c 500 file.png)
refused 'cut short' sample --model <(head -c 5000 $M) -n 1 -o out.png
refused 'stray' sample --model <(cat $M; echo) -n 1 -o out.png

finish
