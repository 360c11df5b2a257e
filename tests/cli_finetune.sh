#!/usr/bin/env bash
# finetune: which layers, its options, what it says, new classes, exact resume of every kind; train --init.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
idx_data other train 48
idx_data other t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out base --steps 4 --sample-every 0 -q >out.txt 2>err.txt
B=base/model.safetensors

tune() { # tune OUT ARGS...
    local out=$1
    shift
    "$SDLORA" finetune --model $B --out "$out" --batch-size 8 --threads 1 --progress none --sample-every 0 "$@" \
        >out.txt 2>err.txt </dev/null
}
says() { grep -qF -- "$1" err.txt; }
silent() { ! says "$1"; }
config() { # config DIR KEY VALUE, as JSON has it on one line
    tr -d '\n ' <"$1/adapter_config.json" | grep -qF "\"$2\":$3"
}
draw() { "$SDLORA" sample --model $B --steps 2 -n 1 -q "$@" >out.txt 2>err.txt; }

# ---- which layers ----
check 'the same images' tune same --data data --steps 1
check 'three matrices of every attention' says 'in 9 layers, rank 8, alpha 16, lr 0.02, on w_q,w_k,w_v'
check 'that adds little' says 'an adapter adds little to what it knows already'
check 'other images' tune wide --data other --steps 1
check 'all that PEFT can adapt, convolutions at the plain rate' says 'lr 0.01, on all-linear,conv,class_embedding'
check 'a rate that is given stays' tune given --data other --steps 1 --target w_q --lr 0.01
check 'as it is' says 'lr 0.01, on w_q'
check 'a rate is settled once' tune once --data other --steps 1 --target w_q
check 'and resumed' tune once --steps 2 --resume
check 'as it was' says 'lr 0.02, on w_q'
check 'not the images of the model' silent 'adds little'
check 'alpha by the rank' tune ranks --data other --steps 1 --rank 2 # 2 sqrt(8/2) 2
check 'is written' config ranks lora_alpha 8
check 'of rsLoRA' tune rs --data other --steps 1 --rank 2 --rslora # 2 sqrt(8)
check 'is another' config rs lora_alpha 6
check 'alpha as given' tune alphas --data other --steps 1 --rank 3 --alpha 5
check 'is written' config alphas lora_alpha 5
check 'ranks of their own' tune mixed --data other --steps 1 --target 'w_q,w_v=2,seq1.0=5:1'
check 'are written' config mixed rank_pattern '{'
check 'both' grep -q '"encoder_convs.0.seq1.0": 5' mixed/adapter_config.json
check 'as PEFT reads them' draw --lora=mixed -o mixed.png
check 'an option that it has' grep -q '"lora_alpha": ' mixed/adapter_config.json
refuse 2 "no layer is called 'w_x'; the model has" finetune --model $B --data other --target w_q,w_x
check 'what there is' grep -q "'class_embedding'.*groups: 'attention', 'all-linear', 'conv', 'all'" err.txt
refuse 2 "no =RANK" finetune --model $B --data other --target w_q=2x

# ---- learning rates of weights ----
check 'a small one' tune slow --data other --steps 1 --lr 1e-3
check 'is told' says '--lr 0.001 is a learning rate for weights'
check 'a large one' tune fast --data other --steps 1 --lr 4e-3
check 'is not' silent 'learning rate for weights'

# ---- kinds: each is trained, resumed to the same bytes, read again, and changes the picture ----
"$SDLORA" sample --model $B --steps 2 -n 1 -q -o plain.png >/dev/null 2>&1
kind() { # kind NAME ARGS...
    local name=$1
    shift
    # shellcheck disable=SC2086
    check "$name" tune "$name" --data other --lr-schedule constant --lr 0.05 --steps 6 "$@"
    tune "$name.part" --data other --lr-schedule constant --lr 0.05 --steps 3 "$@"
    check "$name: resumed" tune "$name.part" --steps 6 --resume
    check "$name: to the same bytes" cmp "$name/adapter_model.safetensors" "$name.part/adapter_model.safetensors"
    check "$name: drawn" draw --lora="$name" -o "$name.png"
    check "$name: to some effect" test "$(cmp plain.png "$name.png" | wc -l)" -eq 1
    check "$name: finite" finite "$name/adapter_model.safetensors"
    "$SDLORA" convert "$name" --model $B --to peft -o again >out.txt 2>err.txt
    for file in adapter_model.safetensors adapter_config.json; do
        check "$name: $file is the same, read and written" cmp "$name/$file" "again/$file"
    done
}
kind everything --target all
kind rslora --rslora --target attention
check 'rslora is written' config rslora use_rslora true
kind dora --dora --target attention,conv
check 'DoRA is written' config dora use_dora true
kind pissa --init pissa --target w_v,seq1.0 --rank 2
check 'pissa as plain LoRA of twice the rank' config pissa r 4
kind gaussian --init gaussian --target conv
kind dropout --dropout 0.4 --target all-linear
check 'dropout is written' config dropout lora_dropout 0.4
kind augmented --augment shift,rotate,flip,colour --target w_v
check 'the augmentation is remembered' grep -q '"flip,shift,rotate,colour"' augmented/run.json
refuse 2 "--augment was flip,shift,rotate,colour, now none" finetune --model $B --out augmented --resume --steps 8 --augment none
kind biases --train-bias all --target w_v
check 'biases are written' config biases bias '"all"'
kind own --train-bias lora_only --train-embedding --target w_v
check 'the class table is written' config own modules_to_save '["class_embedding"]'
kind 'all at once' --target all --dora --init pissa --dropout 0.2 --train-bias all --train-embedding
check 'dropout: another seed, other ranks' tune dropped --data other --lr-schedule constant --lr 0.05 --steps 6 \
    --dropout 0.4 --target all-linear --seed 1
check 'is another adapter' test "$(cmp dropout/adapter_model.safetensors dropped/adapter_model.safetensors | wc -l)" -eq 1
refuse 2 "--dora was 1, now 0" finetune --model $B --out dora --resume --steps 8 --no-dora
check 'the adapter of before is there' finite dora/adapter_model.safetensors
check 'on two threads' tune threads --data other --lr-schedule constant --lr 0.05 --steps 6 --target all --threads 2
check 'the same bytes' cmp everything/adapter_model.safetensors threads/adapter_model.safetensors

# ---- facts ----
facts=$(tr '\0' '\n' <everything/adapter_model.safetensors | grep -a -o '"sdlora.facts":"[^}]*}')
check 'the base, the data, the losses' grep -q 'base_name.*base/model.safetensors.*base_sha256.*base_val_loss.*data_name.*other.*steps.*6.*val_loss' <<<"$facts"

# ---- new classes: the data have label 4, the model knows 0 to 2 ----
cp -r other more
printf '\004\003\004\003' | dd of=more/train-labels-idx1-ubyte bs=1 seek=8 conv=notrunc 2>/dev/null
check 'new classes' tune new --data more --lr-schedule constant --lr 0.05 --steps 4 --val-images 0 --target w_v
check 'are told' says 'the data have 5 classes and the model knows 3'
check 'in the file of PEFT' config new modules_to_save '["class_embedding"]'
check 'resumed' tune new --steps 6 --resume
check 'drawn by number' draw --lora=new --digit 4 -o four.png
refuse 2 'class' sample --model $B --digit 4 -o five.png
check 'nothing is drawn without the adapter' test ! -e five.png
check 'beside another adapter' draw --lora=new --lora=rslora:0.5 --digit 3 -o two.png
check 'and of a grid' draw --lora=new -o grid.png

# ---- train --init ----
# shellcheck disable=SC2086
init() { "$SDLORA" train --init $B --data other --batch-size 8 --threads 1 --sample-every 0 -q "$@" >out.txt 2>err.txt; }
check 'all weights of a model' init --out full --steps 6 --lr-schedule constant
check 'half of it' init --out full.part --steps 3 --lr-schedule constant
check 'and the rest' "$SDLORA" train --data other --out full.part --resume --steps 6 -q >out.txt
check 'to the same bytes' cmp full/model.safetensors full.part/model.safetensors
check 'from where the model stands' test "$(cmp full/model.safetensors $B | wc -l)" -eq 1
check 'which is as it was' finite $B
check 'a run for its model' "$SDLORA" train --init full --data other --out from.run --steps 1 --batch-size 8 -q --sample-every 0 >out.txt
refuse 2 "leave out --channels" train --init $B --data other --channels 4,8 --out x
refuse 3 "nix" train --init nix --data other --out x
check 'nothing is begun' test ! -e x

finish
