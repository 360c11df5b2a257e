#!/usr/bin/env bash
# What `info` says of each kind of thing, and what a picture says about itself.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out runs/small --epochs 2 --sample-every 0 >out.txt 2>err.txt || fail 'no model'
R=runs/small
M=$R/model.safetensors
"$SDLORA" finetune --model $M --data data --steps 4 --batch-size 8 --rank 2 --alpha 6 --progress none --sample-every 0 \
    --out $R/lora >out.txt 2>err.txt || fail 'no adapter'

row() { # row PATH LABEL TEXT: this row, of these words
    "$SDLORA" info "$1" >out.txt 2>err.txt
    check "info of $1: $2 $3, not '$(grep "^  $2 " out.txt)'" grep -qxF "$(printf '  %-16s %s' "$2" "$3")" out.txt
}
json() { # json PATH KEY VALUE: as jansson prints it
    "$SDLORA" info --json "$1" >out.txt 2>err.txt
    check "info --json of $1: $2 is $3, not $(grep "\"$2\":" out.txt)" grep -qE "^ *\"$2\": $3,?$" out.txt
}
hash_of() { sha256sum "$1" | cut -c1-12; }
last() { sed -n "s/.*\"$2\": \([0-9.e+-]*\).*/\1/p" "$1" | tail -n 1; }
four() { printf '%.4f' "$1"; }

# ---- a model ----
expect 0 "model '$M'" info $M
check 'first what it is' test "$(head -n 1 out.txt)" = "model '$M'"
check 'in a few lines' test "$(wc -l <out.txt)" -le 12
check 'without its tensors' test "$(grep -c 'bytes\|encoder_convs' out.txt)" -eq 0
row $M images '8x8, grey'
row $M classes '3, and a null class'
row $M network 'channels 4,8'
row $M SHA-256 "$(hash_of $M)"
data_sha=$("$SDLORA" info --json data | sed -n 's/^ *"sha256": "\(.\{12\}\).*/\1/p' | head -n 1)
row $M data "data, SHA-256 $data_sha"
json $M val_loss "$(last $R/metrics.jsonl val_loss)"
row $M steps '10 of 10, 2 epochs, seed 0'
val=$(last $R/metrics.jsonl val_loss)
check 'its validation loss' grep -q "^  validation loss  $(four "$val") last, " out.txt
json $M kind '"model"'
json $M image_size 8
json $M total_steps 10
json $M state '"finished"'
expect 0 'encoder_convs.0.seq1.0.weight' info --tensors $M
check 'and its fields' grep -q '^  null_class      yes ' out.txt
mkdir alone && cp $M alone/m.safetensors
"$SDLORA" info alone/m.safetensors >out.txt
check 'a model by itself says what its file knows' test "$(grep '^  \(data\|steps\|validation loss\) ' out.txt | tr -s ' ' | tr '\n' '|')" = \
    " data data, SHA-256 $data_sha| steps 10| validation loss $(four "$(last $R/metrics.jsonl val_loss)")|"
weights=$("$SDLORA" finetune --model $M --data data --steps 1 --batch-size 8 --out spare 2>&1 | sed -n "s/^model: .*, \([0-9,]*\) weights, frozen/\1/p")
row $M parameters "$weights, $((($(stat -c %s $M) + 500) / 1000)) KB"
# shellcheck disable=SC2086
"$SDLORA" train --preset tiny --data data --out tiny --steps 1 --batch-size 8 --sample-every 0 --threads 1 --progress none >out.txt 2>err.txt
row tiny/model.safetensors network 'channels 16,32,64, preset tiny'
sed 's/qsize/qsizf/' $M >damaged
row damaged damaged "the configuration in 'damaged' has the unknown key 'qsizf'"

# ---- a run ----
row $R command 'train, preset tiny'
check 'it is a run' test "$(head -n 1 out.txt)" = "run '$R'"
row $R state finished
row $R checkpoints '2, of steps 5, 10; the best: '"$(last $R/checkpoints/best.json step)"
row $R resume "sdlora train --resume --out $R --epochs MORE"
best=$(sed -n 's/.*"val_loss": \([0-9.e+-]*\).*/\1/p' $R/metrics.jsonl | sort -g | head -n 1)
check 'its best loss' grep -q " last, $(four "$best") best, at step " out.txt
json $R bytes "$(find $R -type f -printf '%s\n' | awk '{ n += $1 } END { print n }')"
cp -r $R half
sed -i '$d' half/metrics.jsonl && rm -r half/checkpoints/ckpt-00000010
row half steps "$(last half/metrics.jsonl step) of 10, in epoch 2, seed 0"
row half state stopped
row half resume 'sdlora train --resume --out half'
flock half/lock "$SDLORA" info half >out.txt
check 'a run that goes on' grep -qx '  state            running' out.txt
check 'is not resumed' test "$(grep -c resume out.txt)" -eq 0
mv half "it's half" && row "it's half" resume "sdlora train --resume --out 'it'\\''s half'"
mkdir claimed && echo '{"sdlora": "0", "command": "train", "options": {}}' >claimed/run.json
row claimed steps '0, of how many is not known'
echo '{"command": 7}' >claimed/run.json
refuse 3 'claimed/run.json' info claimed

# ---- a checkpoint ----
row $R/checkpoints/ckpt-00000005 step 5
row $R/checkpoints/ckpt-00000005 run $R
row $R/checkpoints/ckpt-00000005 resume "sdlora train --resume $R/checkpoints/ckpt-00000005"
row $R/checkpoints/ckpt-00000005 'validation loss' "$(four "$(sed -n 's/.*"step": 5,.*"val_loss": \([0-9.e+-]*\).*/\1/p' $R/metrics.jsonl)")"
json $R/checkpoints/ckpt-00000005 step 5
cp -r $R/checkpoints/ckpt-00000005 ckpt-00000007
row ckpt-00000007 step '5, which its name, 7, does not say'
row $R/checkpoints/ckpt-00000005/model.safetensors steps '5 of 10, a checkpoint'
row $R/checkpoints/best/state.safetensors step "$(last $R/checkpoints/best.json step)"
head -c 1000 $R/checkpoints/ckpt-00000005/state.safetensors >ckpt-00000007/state.safetensors
refuse 3 'cut short' info ckpt-00000007

# ---- an adapter, as its run's directory, as a file, by itself, in another spelling ----
L=$R/lora/adapter_model.safetensors
fact() { "$SDLORA" info --json --tensors $L | sed -n "s/^ *\"$1\": \([^{]*[^{,]\),*$/\1/p" | head -n 1; }
for path in $R/lora $L; do
    row $path kind 'LoRA, in the spelling of PEFT'
    check 'it is an adapter first' grep -q "^adapter '" out.txt
    row $path rank '2, alpha 6, on w_k, w_q, w_v: 9 layers'
    row $path numbers "416 in $((($(stat -c %s $L) + 500) / 1000)) KB"
    row $path base "small/model.safetensors, SHA-256 $(hash_of $M)"
    row $path steps '4 of 4, 1 epoch, seed 0'
    json $path rank 2
    json $path spelling '"PEFT"'
    json $path sha256 "\"$(sha256sum $M | cut -c1-64)\"" # of the base, beside its own
    val=$(last $R/lora/metrics.jsonl val_loss)
    "$SDLORA" info $path >out.txt
    check 'losses with and without' grep -q "^  validation loss  $(four "$val") last, .*, the base alone [0-9.]*$" out.txt
done
row $R/lora state 'finished, a run of finetune'
# what its own file knows is enough
mkdir lone && cp $R/lora/adapter_*.* lone
row lone base "small/model.safetensors, SHA-256 $(hash_of $M)"
row lone rank '2, alpha 6, on w_k, w_q, w_v: 9 layers'
row lone steps 4
row lone classes 3
row lone data "data, SHA-256 $(fact data_sha256 | cut -c2-13)"
row lone 'validation loss' "$(four "$val"), the base alone $(four "$(fact base_val_loss)")"
json lone base_val_loss "$(fact base_val_loss)"
check 'the base is not its adapter' test "$(four "$val")" != "$(four "$(fact base_val_loss)")"
check 'whether it fits is not asked' test "$("$SDLORA" info lone | grep -c fits)" -eq 0
expect 0 "fits             $M, for which it was made" info lone -m $M
expect 0 '"fits": true' info lone --json --model $R
expect 0 'though it was made for another model of the same shape' info lone -m $R/checkpoints/ckpt-00000005/model.safetensors
refuse 3 'does not fit' info lone -m tiny
refuse 2 "'$M' is no adapter" info $M -m $M
"$SDLORA" convert lone -m $M --to kohya -o lone.kohya >out.txt
row lone.kohya kind 'LoRA, in the spelling of kohya'
row lone.kohya rank '2, alpha 6, on cross_attention_w_k, cross_attention_w_q, cross_attention_w_v: 9 layers'
row lone.kohya base "small/model.safetensors, SHA-256 $(hash_of $M)"
G=$TESTS/golden/adapters
row $G/dora_patterns kind 'DoRA, in the spelling of PEFT'
row $G/lora_rslora kind 'rsLoRA, in the spelling of PEFT'
row $G/dora_conv kind 'DoRA, scaled as rsLoRA, in the spelling of PEFT'
row $G/lycoris_lokr.safetensors kind 'LoKr, in the spelling of kohya'
row $G/lokr_both kind 'LoKr, in the spelling of PEFT'
row $G/bias_all whole '45 biases'
row $G/new_classes whole "1 class table of 14 rows"
row $G/ia3 refused "'$G/ia3/adapter_config.json' sets 'peft_type' to 'IA3', which is not supported"
json $G/ia3 kind '"adapter"'
st_file() { # st_file PATH BYTES HEADER-JSON: BYTES zeros are the data
    local path=$1 bytes=$2 header=$3
    {
        printf '%b' "\\0$(printf %o $((${#header} & 255)))\\0$(printf %o $((${#header} >> 8)))" '\0\0\0\0\0\0'
        printf '%s' "$header"
        head -c "$bytes" /dev/zero
    } >"$path"
}
tensor() { echo "\"$1\":{\"dtype\":\"F32\",\"shape\":[$2],\"data_offsets\":[$3]}"; }
k=lora_unet_x_1
st_file mixed 136 "{$(tensor ${k}_a.lora_down.weight 2,3 0,24),$(tensor ${k}_a.lora_up.weight 4,2 24,56),$(tensor ${k}_a.alpha '' 56,60),\
$(tensor ${k}_b.lora_down.weight 1,8 60,92),$(tensor ${k}_b.lora_up.weight 10,1 92,132),$(tensor strange 1 132,136)}"
"$SDLORA" info mixed >out.txt
check 'ranks that differ' test "$(grep -A 1 '^  rank ' out.txt | sed 's/^[ rank]*//' | tr '\n' '|')" = '2, alpha 2, on a: 1 layer|1, alpha 1, on b: 1 layer|'
row mixed kind 'LoRA, in the spelling of kohya'
row mixed numbers '32 in 1 KB' # 6 + 8 + 8 + 10, not the alpha
row mixed strange "1 tensors whose names no spelling has, the first 'strange'"

# ---- what can be adapted ----
expect 0 "layers to adapt, of model '$M'" info $R --targets
layer_row() { # layer_row LAYER REST
    check "--targets: $1, not '$(grep " $1 " out.txt)'" test "$(grep -F " $1 " out.txt | tr -s ' ')" = " $1 $2"
}
layer_row encoder_convs.1.seq1.0 '3x3 convolution (8,4,3,3) 352 conv, all' # 8 (4 9 + 8)
layer_row encoder_convs.1.cross_attention.w_q 'linear (16,8) 192 attention, all-linear, all'
layer_row class_embedding 'embedding (4,32) 288 all'
"$SDLORA" info $M --targets --rank 3 >out.txt
layer_row encoder_convs.1.seq1.0 '3x3 convolution (8,4,3,3) 132 conv, all'
check 'and no bias' test "$(grep -c '\.bias\|norm' out.txt)" -eq 0
sum=$(tr -d , <out.txt | awk '$NF == "all" { for (i = 2; i < NF; i++) if ($i ~ /^\(/) { k++; n += $(i + 1) } } END { print k " layers " n " numbers" }')
check "the group 'all' is all of them" test "$(tr -d , <out.txt | sed -n 's/^  all  *\(.* numbers\) .*/\1/p')" = "$sum"
expect 0 '"groups": [' info --json $M --targets
refuse 3 'is an adapter, no model' info $R/lora --targets
refuse 2 rank info $M --targets --rank 0

# ---- data ----
row data training '40 images of 8x8, 3 classes'
row data validation '6 images of 8x8, 3 classes'
check 'images of each class' grep -qx '    per class      14 13 13' out.txt
rm -r spare && cp -r data spare && rm spare/t10k-images*
row spare validation none
rm spare/train-labels*
refuse 3 train-labels info spare
row data/t10k-labels-idx1-ubyte 'per class' '2 2 2'

# ---- pictures ----
sample() { "$SDLORA" sample --threads 1 -q "$@" >out.txt 2>err.txt || fail "sample $*: $(cat err.txt)"; }
command_of() { "$SDLORA" info --json "$1" | sed -n 's/^  "command": "\(.*\)",*$/\1/p'; }
again() { # again NAME ARGS...: the command that the picture holds draws it again, to the same bytes
    local name=$1
    shift
    sample -o "$name.png" "$@"
    check "$name: no path of this machine" test "$(grep -ca "$WORK" "$name.png")" -eq 0
    command_of "$name.png" >"$name.sh"
    sed -i 's/\\\\/\\/g' "$name.sh"
    check "$name: a command" grep -q '^sdlora sample --model ' "$name.sh"
    (sdlora() { "$SDLORA" "$@" -q -o "$name-again.png" >out.txt 2>err.txt; } && eval "$(cat "$name.sh")")
    check "$name: drawn again by '$(cat "$name.sh")'" cmp "$name.png" "$name-again.png"
}
again plain --model $M --steps 3
again one --model $M --steps 3 --digit 1,none --count 3 --cols 5 --scale 1 --seed 18446744073709551615
again eta --model "$WORK/$M" --steps 2 --eta 0.123456789 --cfg-scale -0.7 --clip none -n 1
again all --model $M --sampler ddpm --digit 0 -n 2 --conv im2col --bn running
again between --model $M --interpolate 0:1 -n 2 --cols 3 --sampler k_heun --steps 3 --spacing logsnr
again seeds --model $M --interpolate seed:7:8 --cols 4 --sampler euler-a --steps 2
again guided --model $M --negative 1 --cfg-interval 0.1:3 --cfg-rescale 0.5 --cfg-scale 2 --steps 3 --sampler ddpm -n 1
again moments --model $M --trajectory 3 --steps 3
again adapted --model $M --lora --lora "$WORK/$R/lora:-0.25" --compare --steps 2 --rows 2 --cols 6
again checkpoint --model $R/checkpoints/best/model.safetensors --steps 1 -n 1
check 'an adapter and its scale' grep -q -- '--lora=runs/small/lora:1 --lora=runs/small/lora:-0.25 ' adapted.sh
check 'a relative name' grep -q -- "--model $M " plain.sh
check 'an absolute one is cut' grep -q -- "--model $M " eta.sh
row plain.png model "$M, SHA-256 $(hash_of $M): it is here"
row adapted.png lora "$R/lora:1, SHA-256 $(hash_of $R/lora/adapter_model.safetensors): it is here"

# of one drawing the same bytes, wherever it was made
mkdir -p else/deeper
(cd else/deeper && sample --model ../../$M --steps 3 -o x.png && sample --model "$WORK/$M" --steps 3 -o y.png)
check 'from another directory' cmp plain.png else/deeper/x.png
check 'by another path' cmp plain.png else/deeper/y.png
mkdir a b && cp $M a/m.safetensors && cp $M b/m.safetensors
(cd a && sample --model m.safetensors --steps 3 -o ../a.png)
(cd b && sample --model ./m.safetensors --steps 3 -o ../b.png)
check 'with a copy of the model' cmp a.png b.png
row a.png model "m.safetensors, SHA-256 $(hash_of $M): not here"
(cd a && "$SDLORA" info ../a.png >../out.txt)
check 'where it is' grep -q ': it is here$' out.txt
(cd tiny && cp model.safetensors m.safetensors && "$SDLORA" info ../a.png >../out.txt)
check 'where another is' grep -q ': another file is here$' out.txt
cp -r $R small && sample --model small/model.safetensors --steps 3 -o named.png
row named.png model "small/model.safetensors, SHA-256 $(hash_of $M): it is here"
sample --model <(cat $M) --steps 3 -o piped.png
row piped.png model "pipe, SHA-256 $(hash_of $M): not here"
"$SDLORA" noise --data data --image-size 8 -o noise.png >out.txt 2>err.txt
row noise.png Software "$("$SDLORA" --version | head -n 1)"

# a name that is no UTF-8, in a text that must be
mkdir "$(printf 'runs/\377')" && cp $M "$(printf 'runs/\377/m')"
sample --model "$(printf 'runs/\377/m')" --steps 1 -n 1 -o odd.png
row odd.png model 'runs/\xff/m, SHA-256 '"$(hash_of $M): not here"

# hostile pictures: quoted, harmless to a terminal, and without options that write
le32() { od -An -tx1 | tr -d ' \n' | sed 's/\(..\)\(..\)\(..\)\(..\)/\\x\4\\x\3\\x\2\\x\1/'; }
png_chunk() { # png_chunk TYPE: data from standard input
    cat >chunk.bin
    be32 "$(stat -c %s chunk.bin)"
    printf %s "$1" | cat - chunk.bin
    printf '%b' "$(printf %s "$1" | cat - chunk.bin | gzip -c | tail -c 8 | head -c 4 | le32)"
}
png() { # png KEY VALUE...
    printf '\211PNG\r\n\032\n'
    printf '\0\0\0\1\0\0\0\1\10\0\0\0\0' | png_chunk IHDR
    for ((; $# > 0; )); do
        printf '%s\0%s' "$1" "$2" | png_chunk tEXt
        shift 2
    done
    : | png_chunk IEND
}
png model '$(touch hacked) `id`' model-sha256 0123456789ab output /etc/passwd digit "5'; touch hacked" threads 9 >evil.png
expect 0 "sdlora sample --model '\$(touch hacked) \`id\`' --class '5'\\''; touch hacked'" info evil.png
check 'nothing that writes' test "$(grep 'draw it again' out.txt | grep -c -- '--output\|--threads')" -eq 0
png model m model-sha256 0123456789ab seed -7 >evil.png
expect 0 'seed' info evil.png
check 'no command of impossible values' test "$(grep -c 'draw it again' out.txt)" -eq 0
png model /etc/passwd model-sha256 0123456789ab lora ../../x:1 lora-sha256 0123456789ab >evil.png
row evil.png model '/etc/passwd, SHA-256 0123456789ab: not here'
png model $'m\e[2J' model-sha256 $'\e]0;t\a' digit $'\x9b5' $'k\e[31m' $'v\x7f' >evil.png
expect 0 '\x1b' info evil.png
check 'they do not speak to the terminal' test -z "$(LC_ALL=C tr -dc '\033\007\177' <out.txt)"
expect 0 '\u001B' info --json evil.png
check 'nor as JSON' test -z "$(LC_ALL=C tr -d '\n -~' <out.txt)"
head -c 60 plain.png >cut.png
refuse 3 "'cut.png' is cut short" info cut.png

# ---- several, and errors ----
"$SDLORA" info $M nix data >out.txt 2>err.txt
check 'the exit status is that of the one refused' test $? -eq 3
check 'which is named' grep -q "nix" err.txt
check 'and the others are shown' test "$(grep -c "^model '\|^data '" out.txt)" -eq 2
mkdir empty
refuse 3 "'empty' is a directory without" info empty
refuse 2 'needs a PATH' info

finish
