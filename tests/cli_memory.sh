#!/usr/bin/env bash
# Memory: what is needed is known before it is taken, is kept to --mem or to what the machine has, and changes no result;
# and a small stack is enough.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --steps 4 --sample-every 0 >out.txt 2>err.txt || fail 'no model'
M=run/model.safetensors

mb() { sed -n 's/.*memory: \([0-9.]*\) MB.*/\1/p' err.txt; }
needed() { sed -n 's/.* needs \([0-9.]*\) MB of memory.*/\1/p' err.txt; }
less() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a - b }'; }
limited() { # limited KB COMMAND...: with so much address space; a sanitizer (no shim, then) needs more
    local limit=$1
    shift
    if [ -z "${FAULT_SHIM-}" ]; then return 0; fi
    (ulimit -v "$limit" && failed=0 && "$@" && [ "$failed" -eq 0 ])
}
# The same weights under a configuration of large images.
header_size() { od -An -tu8 -N8 "$1" | tr -d ' '; }
header=$(tail -c +9 $M | head -c "$(header_size $M)" | sed -E 's/(image_size[^0-9]*)8/\11024/; s/   $//')
while [ $((${#header} % 8)) -ne 0 ]; do header+=' '; done
{
    printf '%b' "\\0$(printf %o $((${#header} & 255)))\\0$(printf %o $((${#header} >> 8)))" '\0\0\0\0\0\0'
    printf '%s' "$header"
    tail -c +$((9 + $(header_size $M))) $M
} >large
expect 0 '"image_size": 1024' info --json large

# ---- sample ----
refuse 2 'more than the 100.0 MB allowed' sample --model large --digit 0 -n 4 --steps 1 -o large.png --scale 1 --mem 100MB
check 'it says what a single image takes' grep -q 'where a single one takes [0-9.]* MB' err.txt
check 'nothing was written' test ! -e large.png
check 'the bound without --mem' limited 400000 refuse 2 'MB of this machine' sample --model large --steps 1 -o large.png
refuse 2 'a smaller --scale' sample --model $M --steps 1 -n 100 --scale 64 -o large.png --mem 10MB
draw() { # draw NAME OPTION...
    local name=$1
    shift
    rm -f "$name"-*
    expect 0 '' sample --model $M --steps 3 --digit 0,none -n 20 --format idx -o "$name" "$@"
}
draw free --threads 1
check 'four at a time' grep -q ' 4 images a pass' err.txt
for threads in 1 2; do
    draw free --threads $threads --batch-size 16
    check 'sixteen at a time' grep -q '16 images a pass' err.txt
    most=$(mb)
    draw held --threads $threads --batch-size 16 --mem "$(less "$most" 0.05)MB"
    check 'fewer at a time' grep -q ' 8 images a pass' err.txt
    check 'the same images' cmp -s free-images-idx3-ubyte.gz held-images-idx3-ubyte.gz
    check 'within the bound' test "$(less "$most" "$(mb)")" != "${most#0}" -a "$(less "$most" "$(mb)" | cut -c1)" != -
done
draw held --threads 2 --batch-size 16 --mem "$(less "$most" 0.15)MB"
check 'fewer side by side, the same images' cmp -s free-images-idx3-ubyte.gz held-images-idx3-ubyte.gz
refuse 2 'drawing needs' sample --model $M --steps 3 --digit 0,none -n 20 --format idx --threads 2 --mem 60KB \
    -o none
draw held --threads 2 --mem "$(less "$(needed)" -0.05)MB"
check 'the least, the same images' cmp -s free-images-idx3-ubyte.gz held-images-idx3-ubyte.gz

# ---- predict ----
st_file() { # st_file PATH BYTES HEADER-JSON: BYTES of a pattern are the data
    {
        printf '%b' "\\0$(printf %o $((${#3} & 255)))\\0$(printf %o $((${#3} >> 8)))" '\0\0\0\0\0\0'
        printf '%s' "$3"
        head -c "$2" /dev/zero
    } >"$1"
}
tensor() { echo "\"$1\":{\"dtype\":\"$2\",\"shape\":[$3],\"data_offsets\":[$4]}"; }
st_file in 10880 "{$(tensor x F32 40,1,8,8 640,10880),$(tensor t I64 40 0,320),$(tensor y I64 40 320,640)}"
expect 0 eps predict --model $M --input in --output eps
refuse 2 "all of 'in' needs" predict --model $M --input in --output none --mem 5KB
refuse 2 'more than the 0.0 MB allowed' predict --model $M --input in --output none --mem 15KB
expect 0 held predict --model $M --input in --output held --mem "$(less "$(needed)" -0.05)MB"
check 'the same prediction' cmp -s eps held
check 'none was written' test ! -e none

# ---- train ----
mkdir many
(printf '\000\000\010\003' && be32 2000 && be32 8 && be32 8 && head -c 128000 /dev/zero) >many/train-images-idx3-ubyte
(printf '\000\000\010\001' && be32 2000 && head -c 2000 /dev/zero) >many/train-labels-idx1-ubyte
# shellcheck disable=SC2086
train() { "$SDLORA" train $SMALL --data data --steps 2 "$@" >out.txt 2>err.txt; }
check 'training' train --out a --sample-every 1
check 'draws samples' test -s a/samples/step-00000002.png
# shellcheck disable=SC2086
{
    expect 0 'is left out: drawing needs' train $SMALL --data data --steps 2 --out b --mem "$(less "$(mb)" -0.05)MB"
    check 'the model is the same' cmp -s a/model.safetensors b/model.safetensors
    check 'there is no picture' test ! -e b/samples/step-00000002.png
    expect 0 '' finetune --model $M --data data --out c --steps 1 --batch-size 8 --progress none
    expect 0 'is left out: drawing needs' finetune --model $M --data data --out d --steps 1 --batch-size 8 \
        --progress none --mem "$(less "$(mb)" -0.05)MB"
    expect 2 "the model's weights need" train $SMALL --channels 512,512 --data data --out none --mem 50MB
    check 'weights that no memory can hold' limited 1000000 refuse 2 "weights need" \
        train $SMALL --channels 8192,8192 --data data --out none
    check 'images that no memory can hold' limited 1000000 refuse 2 'MB of this machine' \
        train $SMALL --image-size 1024 --data many --val-images 0 --out none
}
check 'nothing was begun' test ! -e none

# ---- stacks ----
small_stack() { # the program's and its threads'
    (ulimit -s 128 && "$SDLORA" "$@" >out.txt 2>err.txt </dev/null) || { fail "a small stack: $*: $(cat err.txt)"; }
}
if [ -n "${FAULT_SHIM-}" ]; then # sanitizers have larger frames
    for preset in tiny mnist; do
        for threads in 1 2; do
            run=stack-$preset-$threads
            small_stack train --preset $preset --data data --batch-size 16 --steps 1 --threads $threads --out "$run"
            small_stack train --data data --resume --steps 2 --threads $threads --out "$run"
            small_stack finetune --model "$run/model.safetensors" --data data --batch-size 16 --steps 1 --out "$run/lora" \
                --threads $threads
            small_stack sample --model "$run/model.safetensors" --steps 1 -n 16 --lora --compare --threads $threads
            small_stack sample --model "$run/model.safetensors" --steps 1 -n 1 --format idx --threads $threads -o "$run/i"
        done
        small_stack predict --model "stack-$preset-2/model.safetensors" --lora --input in --output eps --threads 2
        small_stack info "stack-$preset-2/model.safetensors"
    done
    small_stack noise --data data
    small_stack bench --preset tiny --runs 1 --batch-size 8 --eval-size 8 --threads 2
    check 'all of that ran' test -s noise.png
fi

finish
