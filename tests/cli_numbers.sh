#!/usr/bin/env bash
# Numbers that must not pass for right ones: results that are not finite end with status 4 and write nothing; adapters whose
# configuration asks for what is not done here are refused by name.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 24
idx_data data t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --steps 3 --sample-every 0 -q >out.txt 2>err.txt || fail 'no model'
M=run/model.safetensors
"$SDLORA" finetune --model $M --data data --out tuned --rank 2 --alpha 4 --lr 0.1 --batch-size 8 --steps 2 --sample-every 0 -q \
    >out.txt 2>err.txt || fail 'no adapter'

# One image of zeros at t 3, class 1: what predict takes.
le64() {
    local i
    for i in 0 8 16 24 32 40 48 56; do printf '%b' "$(printf '\\0%o' $((($1 >> i) & 255)))"; done
}
input() { # input VALUE: the four bytes of the first pixel
    local header='{"x":{"dtype":"F32","shape":[1,1,8,8],"data_offsets":[0,256]},"t":{"dtype":"I64","shape":[1],"data_offsets":[256,264]},"y":{"dtype":"I64","shape":[1],"data_offsets":[264,272]}}'
    le64 ${#header}
    printf %s "$header"
    printf '%b' "$1"
    head -c 252 /dev/zero
    le64 3
    le64 1
}
input '\0\0\0\0' >in
input '\0\0\0300\0177' >in_nan

# ---- scales that make the results infinite, in the weights or after them ----
for scale in 1e30 -1e36 1e300; do
    refuse 4 'is not finite' sample --model $M --lora tuned:$scale -n 3 --steps 4 -o out.png -q
    refuse 4 'is not finite' sample --model $M --lora tuned:$scale -n 3 --steps 4 --format idx -o out -q
    refuse 4 'is not finite' sample --model $M --lora tuned:$scale --compare --clip none -n 3 --steps 4 -o out.png -q
    refuse 4 'is not finite' predict --model $M --lora tuned:$scale --input in --output out.st
done
refuse 4 'image 0 at step 1 of 20 is not finite' sample --model $M --lora tuned:1e30 --sampler ddpm -n 1 -o out.png -q
refuse 4 "cross_attention.w_" sample --model $M --lora tuned:1e300 -n 1 -o out.png -q
for threads in 1 2; do
    refuse 4 'is not finite' sample --model $M --lora tuned:1e30 -n 40 --steps 2 --threads $threads -o out.png -q
    cp err.txt said.$threads
done
check 'the same words at any number of threads' cmp -s said.1 said.2
refuse 3 "'in_nan': tensor 'x' holds values that are not finite" predict --model $M --input in_nan --output out.st
check 'nothing was written' test ! -e out.png -a ! -e out.st -a ! -e out-images-idx3-ubyte.gz
expect 0 '' predict --model $M --lora tuned:1e3 --input in --output fine.st
expect 0 '' sample --model $M --lora tuned:1e3 -n 3 --steps 4 -o fine.png -q

# The picture at the end of training, with guidance: the null class, which this training never meets, has values of 3e38. The
# weights are saved, and the run says what it saw.
end=$(tail -c +9 $M | head -c "$(od -An -tu8 -N8 $M | tr -d ' ')" |
    sed -E 's/.*"class_embedding\.weight":\{[^}]*"data_offsets":\[[0-9]+,([0-9]+)\].*/\1/')
cp $M null.safetensors
for ((i = 0; i < 32; i++)); do printf '\346\261\141\177'; done |
    dd of=null.safetensors bs=1 seek=$((8 + $(od -An -tu8 -N8 $M) + end - 128)) conv=notrunc 2>/dev/null
refuse 4 'is not finite' finetune --model null.safetensors --data data --out wild --rank 2 --batch-size 8 --steps 1 --cond-drop 0 \
    --sample-every 1 -q
check 'its adapter is there' test -s wild/adapter_model.safetensors
check 'its picture is not' test -z "$(find wild -name '*.png')"

# ---- configurations ----
bare() { # bare DIR: the adapter without the configuration in its metadata
    local header n
    rm -rf "$1"
    mkdir "$1"
    n=$(od -An -tu8 -N8 tuned/adapter_model.safetensors | tr -d ' ')
    header=$(tail -c +9 tuned/adapter_model.safetensors | head -c "$n" | sed -E "s/\"sdlora\.lora\":\"\{/\"other\":\"{/")
    { le64 ${#header} && printf %s "$header" && tail -c +$((9 + n)) tuned/adapter_model.safetensors; } >"$1/adapter_model.safetensors"
}
adapter() { # adapter TEXT FIELDS: refused with these fields in the configuration, and taken without one
    bare a
    echo "{\"peft_type\": \"LORA\", \"lora_alpha\": 4, \"r\": 2, $2}" >a/adapter_config.json
    refuse 3 "$1" sample --model $M --lora a -n 1 -o out.png
    check 'it names the configuration or the file' grep -q "'a/adapter_" err.txt
    refuse 3 "$1" predict --model $M --lora a --input in --output out.st
    rm a/adapter_config.json
    expect 0 '' predict --model $M --lora a/adapter_model.safetensors --input in --output fine.st
}
adapter 'but r is 1 in the configuration' '"rank_pattern": {"w_q": 1}'
adapter "sets 'kasa_config'" '"kasa_config": {"beta": 1}'
adapter "'use_dora'" '"use_dora": true'
adapter "'target_modules'" '"target_modules": ["w_q"]'
adapter "init_lora_weights' to 'pissa" '"init_lora_weights": "pissa"'
adapter 'takes too long to match' '"target_modules": "((.*)*)*((.*)*)*ww"'

# A pattern says what alpha says.
outputs() { # outputs NAME FIELDS: what the network gives
    bare a
    echo "{\"peft_type\": \"LORA\", \"r\": 2, $2}" >a/adapter_config.json
    expect 0 '' predict --model $M --lora a --input in --output "$1"
}
outputs plain.st '"lora_alpha": 8'
outputs pattern.st '"lora_alpha": 4, "alpha_pattern": {"w_[qkv]": 8}'
outputs one.st '"lora_alpha": 4, "alpha_pattern": {"w_q": 8}'
check 'an alpha for each layer is an alpha for all' cmp -s plain.st pattern.st
check 'an alpha for one layer is none for all' test "$(cmp -s plain.st one.st; echo $?)" = 1
mkdir b
cp a/adapter_model.safetensors b
echo '{"peft_type": "IA3", "lora_alpha": 4}' >b/adapter_config.json
refuse 3 "'peft_type' to 'IA3'" sample --model $M --lora b -n 1 -o out.png
cp tuned/adapter_*.json b
cp tuned/adapter_model.safetensors b
expect 0 '' predict --model $M --lora b --input in --output fine.st
sed -i 's/"lora_alpha": 4/"lora_alpha": 8/' b/adapter_config.json
refuse 3 'make them agree' predict --model $M --lora b --input in --output out.st
check 'nothing was written' test ! -e out.png -a ! -e out.st
finish
