#!/usr/bin/env bash
# Where results go is settled before any work: what cannot be written, is too large, is an input, or is somebody else's file
# is refused first.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --steps 2 --sample-every 0 >out.txt 2>err.txt || fail 'no model'
M=run/model.safetensors
"$SDLORA" finetune --model $M --data data --steps 1 --batch-size 8 --progress none --sample-every 0 --out run/lora \
    >out.txt 2>err.txt || fail 'no adapter'
sample() { # sample STATUS TEXT OPTION...: refused before anything is drawn
    refuse "$1" "$2" sample --model $M --steps 1 "${@:3}"
    check "nothing was drawn for '${*:3}'" test -z "$(ls -A nothing)"
}
mkdir nothing

# ---- too large for a PNG file: (w+1) h must not exceed 2^30 ----
sample 2 'too large' -n 5000 --digit 0 --cols 1 --scale 64 -o nothing/a.png
sample 2 'too large' --trajectory 20 --steps 20 -n 100 --scale 64 -o nothing/a.png
sample 2 'too large' -n 3000 --digit 0 --cols 1 --scale 64 --lora --compare -o nothing/a.png # one of them is not
refuse 2 'too large' noise --data data --image-size 8 --rows 1000 --cols 1000 --scale 16 -o nothing/a.png

# ---- names ----
long=$(printf '%260s' '' | tr ' ' n)
sample 1 'File name too long' -o "nothing/$long"
sample 1 'File name too long' --format idx -o "nothing/${long:0:250}" # with what is appended
refuse 1 'File name too long' noise --data data -o "nothing/$long"
refuse 1 'File name too long' predict --model $M --input $M -o "nothing/$long"
sample 1 'No such file or directory' -o nothing/nowhere/a.png
sample 1 'Not a directory' -o $M/a.png
mkdir p-labels-idx1-ubyte.gz
sample 1 "'p-labels-idx1-ubyte.gz': it is a directory" --format idx -o p
check 'the other of the two was not begun' test ! -e p-images-idx3-ubyte.gz
expect 0 'nothing/a.png' sample --model $M --steps 1 -n 1 -o nothing/a.png
check 'a check leaves no file' test "$(ls -A nothing)" = a.png
rm nothing/a.png
mkfifo pipe
cat pipe >through & # a reader that a check must not satisfy
expect 0 pipe sample --model $M --steps 1 -n 1 -o pipe
wait $!
expect 0 '' sample --model $M --steps 1 -n 1 -o plain
check 'through a pipe' cmp -s through plain

# ---- inputs ----
cp -r data spare && cp $M before && cp -r run/lora lora_before
ln -s run link && ln $M hard
for output in $M ./$M link/model.safetensors hard; do
    sample 2 'is read by this command' -o $output
    refuse 2 'is read by this command' predict --model $M --input plain -o $output
done
sample 2 'is read by this command' --lora -o run/lora/adapter_model.safetensors
sample 2 'is read by this command' --lora run/lora:0.5 -o run/lora/adapter_config.json
refuse 2 'is read by this command' predict --model $M --input plain --output ./plain
refuse 2 'is read by this command' predict --model $M --input in --lora --output run/lora/adapter_model.safetensors
for file in data/*; do refuse 2 'is read by this command' noise --data data -o "$file"; done
check 'the model is as it was' cmp -s $M before
check 'the adapter, too' diff -r run/lora lora_before
check 'and the data' diff -r data spare

# ---- names that nobody gave ----
mine() { # mine FILE ARGS...: somebody's file survives; an empty one and a picture of ours are replaced
    local file=$1
    shift
    printf '\211PNG\r\n\032\nsomebody painted this by hand, and has no other copy of it' >"$file"
    cp "$file" kept
    refuse 2 "'$file' is there already" "$@"
    check "'$file' is kept" cmp -s "$file" kept
    expect 0 "$file" "$@" --output "$file"
    check "'$file' was named" test "$(head -c 24 "$file" | cmp - kept 2>&1 | wc -l)" -eq 1
    cp "$file" ours
    expect 0 "$file" "$@"
    check "'$file' is ours" cmp -s "$file" ours
    : >"$file"
    expect 0 "$file" "$@"
    check "'$file' was empty" cmp -s "$file" ours
    rm "$file" && ln -s nowhere "$file"
    refuse 2 "'$file' is there already" "$@"
    rm "$file"
}
mine sample.png sample --model $M --steps 1
mine sample-1.png sample --model $M --steps 1 -d 1
mine trajectory.png sample --model $M --trajectory 2 --steps 2
mine noise.png noise --data data --image-size 8
sed 's/sdlora /gimmick/' ours >sample.png
sample 2 "'sample.png' is there already"
expect 0 '' sample --model $M --steps 1 --format idx -n 1
sample 2 "'sample-images-idx3-ubyte.gz' is there already" --format idx -n 1
rm sample-images-idx3-ubyte.gz
sample 2 "'sample-labels-idx1-ubyte.gz' is there already" --format idx -n 1
expect 0 '' sample --model $M --steps 1 --format idx -n 1 --output sample

finish
