#!/usr/bin/env bash
# Adapters from the files of one program to those of another, and back: the same bytes, or a refusal that leaves nothing.
. "$(dirname "$0")/lib_cli.sh"
G=$TESTS/golden/adapters
M=$G/base.safetensors
convert() { # convert ADAPTER FORMAT OUT [ARGS...]
    expect 0 "$3" convert "$1" --model "$M" --to "$2" -o "$3" "${@:4}"
}
output() { # output NAME ADAPTER: what the network gives with it
    expect 0 '' predict --model "$M" --lora "$2" --input "$G/io.safetensors" --output "$1"
}

# ---- there and back ----
for kind in lora_qkv lora_patterns lora_rslora lora_patterns_rslora lora_all_linear lora_conv dora_linear loha_conv; do
    convert "$G/$kind" peft "$kind.first"
    convert "$kind.first" kohya "$kind.kohya"
    convert "$kind.kohya" peft "$kind.back"
    for file in adapter_model.safetensors adapter_config.json; do
        check "$kind: $file is the same" cmp -s "$kind.first/$file" "$kind.back/$file"
    done
    output "$kind.st" "$G/$kind"
    for form in first kohya back; do
        output "$form.st" "$kind.$form"
        check "$kind: the output of $form is the same" cmp -s "$kind.st" "$form.st"
    done
done
convert lora_patterns.first diffusers diffusers
convert diffusers peft back
check 'diffusers keeps ranks and alphas' cmp -s lora_patterns.first/adapter_config.json back/adapter_config.json
convert "$G/reference.safetensors" peft ours
convert ours reference theirs
convert theirs peft again
check 'the reference has it as it was' cmp -s ours/adapter_model.safetensors again/adapter_model.safetensors
convert "$G/new_classes" peft classes
check 'an adapter with classes of its own' grep -q class_embedding classes/adapter_config.json

# ---- small types ----
convert "$G/lora_qkv" kohya half --dtype f16
convert "$G/lora_qkv" kohya brain --dtype bf16
check 'halves are smaller' test "$(stat -c %s half)" -lt "$(stat -c %s lora_qkv.kohya)"
convert half peft whole
convert whole kohya half.again --dtype f16
check 'what is a half already stays' cmp -s half half.again
grep -q BF16 brain
check 'bfloat16 is what it says' test $? -eq 0

# ---- refusals ----
no() { # no TEXT ARGS...
    refuse 3 "$1" convert "${@:2}" --model "$M" -o none
}
no 'files of kohya cannot hold the new value of' "$G/bias_all" --to kohya
no 'files of diffusers cannot hold the LoHa of' "$G/loha_linear" --to diffusers
no 'files of the reference cannot hold a change of a convolution' "$G/lora_conv" --to reference
no 'files of the reference know no alpha' "$G/lora_qkv" --to reference
no "PEFT's files cannot hold" "$G/lycoris_lokr.safetensors" --to peft
no "init_lora_weights' to 'pissa'" "$G/pissa_plain" --to kohya
no 'is a model, no adapter' "$M" --to kohya
refuse 2 "'convert' needs --output" convert "$G/lora_qkv" --model "$M" --to kohya
refuse 2 'must be one of peft, kohya, diffusers, reference' convert "$G/lora_qkv" --to other -o none
refuse 2 'needs a' convert --to kohya -o none
refuse 2 'cannot be its output' convert lora_qkv.first --model "$M" --to peft -o lora_qkv.first
refuse 2 'cannot be its output' convert lora_qkv.kohya --model "$M" --to kohya -o lora_qkv.kohya
check 'refusals wrote nothing' test ! -e none

# ---- what is written ----
refuse 2 'is a directory; name it' convert "$G/lora_qkv" --model "$M" --to peft -o -
check 'no directory of that name' test ! -e ./-
refuse 2 'without a scale' convert "$G/lora_qkv:0.5" --model "$M" --to peft -o none
mkdir taken
echo mine >taken/file
refuse 1 'holds more than' convert "$G/lora_qkv" --model "$M" --to peft -o taken
check 'a directory of something else stays' test "$(ls taken)" = file
convert "$G/dora_linear" peft replaced
convert "$G/lora_qkv" peft replaced
check 'an adapter is replaced whole' diff -r replaced lora_qkv.first
(ulimit -f 1 && trap '' XFSZ && "$SDLORA" convert "$G/dora_linear" --model "$M" --to peft -o replaced >out.txt 2>err.txt)
check 'no room' test $? -eq 1
check 'or stays whole' diff -r replaced lora_qkv.first
check 'and nothing lies about' test -z "$(find . -name '.sdlora*')"

# ---- half of an adapter ----
mkdir half.dir
cp "$G/lora_qkv/adapter_model.safetensors" half.dir
refuse 3 'no adapter_config.json' convert half.dir --model "$M" --to peft -o none
expect 0 '' convert half.dir/adapter_model.safetensors --model "$M" --to peft -o scale.1
check 'what a file leaves open is told' grep -q 'note: .*says no alpha' err.txt
finish
