#!/usr/bin/env bash
# Drawing and looking: image i depends on (seed, i) only; grids, IDX files, trajectories, adapters, predict, info.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --steps 10 --sample-every 0 >/dev/null 2>&1 || fail 'no model'
"$SDLORA" finetune --model run/model.safetensors --data data --steps 5 --lr 0.1 --batch-size 8 --progress none \
    --sample-every 0 --out run/lora >/dev/null 2>&1 || fail 'no adapter'

sample() { "$SDLORA" sample --model run/model.safetensors "$@" >out.txt 2>err.txt </dev/null; }
pixels() { gzip -dc "$1-images-idx3-ubyte.gz" | tail -c +17 | cksum; }

# names and sizes: two pixels around and between images
check 'the default grid' sample --steps 2
check 'its name' test "$(cat out.txt)" = sample.png
check 'its size: 10 columns, 3 classes, twice magnified' test "$(size sample.png)" = "182x56"
check 'one digit' sample --steps 2 --digit 1
check 'its name' test "$(cat out.txt)" = sample-1.png
check 'its size: 8x8' test "$(size sample-1.png)" = "146x146"
check 'rows and columns' sample --steps 2 --digit 1 --rows 2 --cols 5 --scale 1 -o grid.png
check 'their size' test "$(size grid.png)" = "52x22"
check 'the seed is written into the picture' grep -qa 'seed' grid.png
check 'no class' sample --steps 2 --class none -n 2
check 'its name' test "$(cat out.txt)" = sample-none.png
check 'an adapter' sample --steps 2 --digit 1 --lora
check 'its name' test "$(cat out.txt)" = sample-1-lora.png
check 'it changes the picture' test "$(cmp sample-1.png sample-1-lora.png | wc -l)" -eq 1
check 'scale 0 does not' sample --steps 2 --digit 1 --lora run/lora:0 -o zero.png --format png
check 'both in one' sample --steps 2 --digit 1 --lora --compare
check 'their size, and a line above' test "$(size sample-1-compare.png)" = "300x172"
check 'a trajectory' sample --trajectory 5 --scale 1
check 'its size: 5 columns, 3 classes' test "$(size trajectory.png)" = "52x32"
check 'to standard output' sample --steps 1 -n 1 -o -
check 'is a PNG' test "$(head -c 4 out.txt | od -An -c | tr -d ' ')" = '211PNG'

# image i depends on (seed, i) only
sample --steps 4 --digit 2 -n 20 --format idx -o a
check 'IDX files' test "$(cat out.txt)" = "$(printf 'a-images-idx3-ubyte.gz\na-labels-idx1-ubyte.gz')"
sample --steps 4 --digit 2 -n 20 --format idx -o b --batch-size 8 --threads 2
check 'the same images in other batches and threads' test "$(pixels a)" = "$(pixels b)"
sample --steps 4 --digit 2 -n 5 --format idx -o c
head5() { gzip -dc "$1-images-idx3-ubyte.gz" | tail -c +17 | head -c 320 | cksum; }
check 'the first five of twenty are the five' test "$(head5 a)" = "$(head5 c)"
check 'another seed' sample --steps 4 --digit 2 -n 20 --format idx -o d --seed 1
check 'other images' test "$(pixels a)" != "$(pixels d)"
sample --steps 4 --digit 2 -n 20 --format idx -o e --lora :0
check 'an adapter of scale 0 changes nothing' test "$(pixels a)" = "$(pixels e)"
check 'half an adapter, twice' sample --steps 4 --digit 2 -n 20 --format idx -o f --lora :0.5 --lora run/lora:0.5
check 'the whole of it' sample --steps 4 --digit 2 -n 20 --format idx -o g --lora
check 'the adapter does change them' test "$(pixels a)" != "$(pixels g)"
raw() { gzip -dc "$1-images-idx3-ubyte.gz" | tail -c +17 | od -An -v -tu1 -w1; }
farthest() { paste <(raw "$1") <(raw "$2") | awk '{ d = $1 > $2 ? $1 - $2 : $2 - $1; if (d > most) most = d } END { print most + 0, NR }'; }
check "twice half of it is the whole, up to rounding, but: $(farthest f g)" test "$(farthest f g | sed 's/^1 /0 /')" = '0 1280'
check 'ddpm' sample --sampler ddpm --digit 0 -n 2
check 'guidance' sample --steps 4 --cfg-scale 2 --digit 0 -n 2
expect 0 'U8 (20), 20 bytes' info a-labels-idx1-ubyte.gz
expect 0 'per class        0 0 20' info a-labels-idx1-ubyte.gz
mkdir fake
sample --steps 1 -n 16 --format idx -o fake/train && sample --steps 1 -n 3 --format idx -o fake/t10k
# shellcheck disable=SC2086
expect 0 runs/fake/model.safetensors train $SMALL --data fake --steps 1

expect 2 '--eta belongs to --sampler ddim' sample --sampler ddpm --eta 0.5
expect 0 "ddpm: all the model's" sample --help

# the reference's kind of model: BatchNorm, no null class, ddpm by default
# shellcheck disable=SC2086
expect 0 '' train ${SMALL/--groups 2/} --preset seed --data data --out seed --steps 6
expect 0 'ddpm in 20 steps' sample --model seed/model.safetensors -n 1
expect 0 'ddim in 5 steps' sample --model seed/model.safetensors -n 1 --steps 5 --bn batch
expect 2 'needs a null class' sample --model seed/model.safetensors --digit none
expect 2 'needs a null class' sample --model seed/model.safetensors --cfg-scale 2
expect 2 'needs a null class' finetune --model seed/model.safetensors --data data --cond-drop 0.1

# predict: what it writes is read by itself only here; golden files hold it against another implementation
expect 0 noise.png noise --data data --image-size 8 --cols 4 --rows 2 --scale 1
check 'its size' test "$(size noise.png)" = "42x22"
st_file() { # st_file PATH BYTES HEADER-JSON: BYTES zeros are the data
    local path=$1 bytes=$2 header=$3
    {
        printf '%b' "\\0$(printf %o $((${#header} & 255)))\\0$(printf %o $((${#header} >> 8)))" '\0\0\0\0\0\0'
        printf '%s' "$header"
        head -c "$bytes" /dev/zero
    } >"$path"
}
tensor() { echo "\"$1\":{\"dtype\":\"$2\",\"shape\":[$3],\"data_offsets\":[$4]}"; }
st_file in.safetensors 816 "{$(tensor x F32 3,1,8,8 48,816),$(tensor t I64 3 0,24),$(tensor y I64 3 24,48)}"
predict() { "$SDLORA" predict --model run/model.safetensors --input in.safetensors "$@" >out.txt 2>err.txt; }
check 'predict' predict --output eps.safetensors
expect 0 '(3,1,8,8)' info --tensors eps.safetensors
check 'with an adapter' predict --output merged.safetensors --lora
check 'that changes it' test "$(cmp eps.safetensors merged.safetensors | wc -l)" -eq 1
st_file bad.safetensors 792 "{$(tensor x F32 3,1,8,8 24,792),$(tensor t I64 3 0,24)}"
expect 3 "'bad.safetensors' has no tensor 'y'" predict --model run/model.safetensors --input bad.safetensors --output o
st_file bad.safetensors 240 "{$(tensor x F32 1,1,7,8 16,240),$(tensor t I64 1 0,8),$(tensor y I64 1 8,16)}"
expect 3 'multiples of 2' predict --model run/model.safetensors --input bad.safetensors --output o
check 'refused predictions write nothing' test ! -e o

# bench
expect 0 "\"gemm_gflops\"" bench --preset tiny --runs 1 --batch-size 8 --eval-size 8 --json --threads 1 -q
check 'the peak is measured' grep -q '"peak_gflops": [0-9.]*[1-9]' out.txt
check 'and the convolutions of a step' grep -q '"conv_share_of_time": 0\.[0-9]' out.txt
# A step of training is a pass forward and two backward, but for the first layers' inputs; one of sampling two passes forward,
# as guidance is on by default: flops of an image are images/s divided out of GFLOP/s.
check 'sampling is measured as it is done' awk -F'[:,]' '
    /_step"/ { step = $1 } /"images_per_s"/ { n = $2 } step && /"gflops"/ { flops[step] = $2 / n }
    END { for (s in flops) if (s !~ /train/) { r = flops[s] / flops["  \"train_step\""]; if (!(r > 0.6 && r < 0.75)) exit 1 } }' out.txt

# info
expect 0 "model 'run/model.safetensors'" info --tensors run/model.safetensors
for line in 'channels        4,8              the number of channels' \
    'null_class      yes              the null class' 'pre_norm        pre              the place of LayerNorm' \
    'schedule        cosine           the noise schedule'; do
    check "info: $line" grep -qxF "  $line" out.txt
done
expect 0 "adapter 'run/lora/adapter_model.safetensors'" info run/lora
expect 0 '"kind": "model"' info --json run/model.safetensors
expect 0 'U8 (40,8,8), 2,560 bytes' info data/train-images-idx3-ubyte
expect 0 ' pixels' info sample.png

finish
