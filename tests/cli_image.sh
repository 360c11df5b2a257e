#!/usr/bin/env bash
# Pictures in colour on the command line, and pictures to begin with: sample --init-image, --strength, --mask, --fit.
. "$(dirname "$0")/lib_cli.sh"

bytes() { printf '%b' "$(printf '\\0%o' "$@")"; }
le() { bytes $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
# npy FILE SHAPE: standard input under the head that np.save writes
npy() {
    { printf '\223NUMPY\1\0v\0' && printf '%-117s\n' "{'descr': '|u1', 'fortran_order': False, 'shape': ($2), }" && cat; } >"$1"
}
# colours N: images of 8x8 pixels, each red, green or blue, in the upper half less so
colours() {
    local i c row
    for ((i = 0; i < $1; i++)); do
        c=(20 20 20)
        c[i % 3]=120
        row=$(printf '%b' "\\0$(printf %o "${c[0]}")\\0$(printf %o "${c[1]}")\\0$(printf %o "${c[2]}")")
        for _ in {1..32}; do printf %s "$row"; done
        c[i % 3]=240
        row=$(printf '%b' "\\0$(printf %o "${c[0]}")\\0$(printf %o "${c[1]}")\\0$(printf %o "${c[2]}")")
        for _ in {1..32}; do printf %s "$row"; done
    done
}
mkdir data
for split in train test; do
    colours 12 | npy data/${split}_images.npy '12, 8, 8, 3'
    for _ in {1..4}; do printf '\0\1\2'; done | npy data/${split}_labels.npy '12,'
done
# bmp FILE W H: pixels "R G B" from the upper left one on, one a line; W a multiple of 4
bmp() {
    {
        printf 'BM' && le $((54 + $2 * $3 * 3)) && le 0 && le 54 && le 40 && le "$2" && le "$3" && bytes 1 0 24 0
        le 0 && le 0 && le 0 && le 0 && le 0 && le 0
        # shellcheck disable=SC2046
        bytes $(awk -v w="$2" '{ line[int((NR - 1) / w)] = line[int((NR - 1) / w)] " " $3 " " $2 " " $1; last = int((NR - 1) / w) }
            END { for (y = last; y >= 0; y--) print line[y] }')
    } >"$1"
}
# the picture, 8x8: every pixel another one; and the mask: white from column 3 and row 2 on
awk 'BEGIN { for (i = 0; i < 64; i++) print i * 3 + 7, 255 - i, i % 8 * 30 }' >pixels.txt
bmp photo.bmp 8 8 <pixels.txt
awk 'BEGIN { for (i = 0; i < 64; i++) { v = i % 8 >= 3 && i >= 16 ? 200 : 100; print v, v, v } }' | bmp hole.bmp 8 8
awk 'BEGIN { for (i = 0; i < 64; i++) print 255, 255, 255 }' | tee >(bmp all.bmp 8 8) | head -n 32 | bmp half.bmp 8 4
tr ' ' '\n' <pixels.txt >values.txt

# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --epochs 2 --sample-every 1 >out.txt 2>err.txt || fail 'no model'
"$SDLORA" finetune --model run/model.safetensors --data data --steps 5 --lr 0.1 --batch-size 4 --progress none --sample-every 0 \
    --out run/lora >out.txt 2>err.txt || fail 'no adapter'
sample() { "$SDLORA" sample --model run/model.safetensors -q "$@" >out.txt 2>err.txt </dev/null; }
values() { tail -c +129 "$1_images.npy" | od -An -v -tu1 -w1 | tr -d ' '; } # of the pixels, R G B

# ---- everything that draws ----
check 'a preview in colour' test "$(kind "$(find run/samples -name '*.png' | head -n 1)")" = '8 2'
check 'a grid' sample -n 2 --scale 1 -o grid.png
check 'in colour' test "$(kind grid.png) $(size grid.png)" = '8 2 22x32'
check 'a trajectory' sample --trajectory 4 --digit 1 --scale 1 -o way.png
check 'in colour' test "$(kind way.png) $(size way.png)" = '8 2 42x12'
for way in '-o base' '--lora -o with' '--compare --lora --no-captions -o both'; do
    # shellcheck disable=SC2086
    check "drawn with $way" sample --digit 1 -n 4 --cols 2 $way.png
done
white() { pixels base.png | awk '{ for (i = 1; i < 24; i++) printf "255 "; print 255 }'; } # the 8 pixels between blocks
check 'each block is the picture that is drawn alone' cmp <(pixels both.png) <(paste -d' ' <(pixels base.png) <(white) <(pixels with.png))
check 'blocks with captions' sample --digit 1 --compare --lora --stretch -o compare.png
check 'in colour' test "$(kind compare.png) $(size compare.png)" = '8 2 300x172'
expect 0 noise.png noise --data data --image-size 8 --cols 4 --rows 2 --scale 1
check 'noise in colour' test "$(kind noise.png) $(size noise.png)" = '8 2 42x22'
COLORTERM='' sample -n 2 -o grid.png --show
check 'on a terminal: the palette' grep -q $'\033\\[38;5;' err.txt
COLORTERM=truecolor sample -n 2 -o grid.png --show
check 'any colour' grep -q $'\033\\[38;2;[0-9]*;[0-9]*;[0-9]*m' err.txt
mkdir again
check 'files for NumPy' sample -n 4 --format npy -o again/train
check 'their names' test "$(cat out.txt)" = "$(printf 'again/train_images.npy\nagain/train_labels.npy')"
check 'the labels' test "$(tail -c +129 again/train_labels.npy | od -An -v -tu1 | tr -d ' \n')" = 000011112222
# shellcheck disable=SC2086
expect 0 runs/again/model.safetensors train $SMALL --data again --steps 1 --val-images 0
refuse 2 'use --format npy' sample --model run/model.safetensors --format idx -o x
refuse 2 '--format npy writes two files' sample --model run/model.safetensors --format npy -o -
refuse 2 '--format npy writes single images' sample --model run/model.safetensors --format npy --show

# ---- strength ----
one() { sample --digit 1 -n 3 --format npy "$@"; }
same() { cmp <(values "$1") <(for _ in {1..3}; do cat values.txt; done); }
check 'from noise' one -o none
check 'strength 1' one --init-image photo.bmp --strength 1 -o full
check 'is from noise' cmp none_images.npy full_images.npy
check 'strength 0' one --init-image photo.bmp --strength 0 -o zero
check 'is the picture, channel for channel' same zero
check 'strength 0, another way' one --init-image photo.bmp --strength 0 --sampler ddpm --lora --cfg-scale 2 -o zero
check 'is the picture too' same zero
check 'in between' one --init-image photo.bmp -o usual
check 'is 0.6' one --init-image photo.bmp --strength 0.6 -o six
check 'just so' cmp usual_images.npy six_images.npy
distance() { paste <(values "$1") <(for _ in {1..3}; do cat values.txt; done) | awk '{ d += ($1 - $2) ^ 2 } END { print int(d / NR) }'; }
check 'less strength' one --init-image photo.bmp --strength 0.2 -o two
check "is nearer: $(distance two), $(distance six), $(distance full)" test "$(distance two)" -lt "$(distance six)" -a "$(distance six)" -lt "$(distance full)"
"$SDLORA" sample --model run/model.safetensors --digit 1 -n 3 --init-image photo.bmp --steps 10 -o x.png >out.txt 2>err.txt
check 'what is said' grep -q 'unipc in the last 6 of 10 steps' err.txt

# ---- a mask ----
kept() { # what is kept is the picture's, and of what is not less than a tenth happens to be
    paste <(values "$1") <(for _ in {1..3}; do cat values.txt; done) | awk '
        { p = int((NR - 1) / 3) % 64; paint = p % 8 >= 3 && p >= 16; if (!paint && $1 != $2) exit 1; if (paint) { n++; equal += $1 == $2 } }
        END { if (n != 270 || equal > 27) exit 1 }'
}
for way in '--sampler ddim' '--sampler unipc' '--sampler heun --strength 0.7' '--sampler dpm++2m --cfg-scale 2' '--sampler euler-a' '--sampler ddim --eta 1 --strength 0.7' '--sampler ddpm --cfg-scale 3' '--lora --clip none'; do
    # shellcheck disable=SC2086
    check "painted with $way" one --init-image photo.bmp --mask hole.bmp $way -o mask
    check "around what is kept with $way" kept mask
done
check 'all white' one --init-image photo.bmp --mask all.bmp -o white
check 'keeps nothing' cmp none_images.npy white_images.npy

# ---- fit: a picture of 16x8 is cropped to its middle, filled up or squeezed; a mask alike ----
awk 'BEGIN { for (i = 0; i < 128; i++) { x = i % 16; print(x >= 4 && x < 12 ? "10 200 30" : "250 0 90") } }' >wide.txt
bmp wide.bmp 16 8 <wide.txt
corner() { values "$1" | head -n 3 | tr '\n' ' '; }
check 'crop' one --init-image wide.bmp --strength 0 -o w
check 'is the middle' test "$(values w | sort -n | uniq -c | tr -s ' ' | tr '\n' ',')" = ' 192 10, 192 30, 192 200,'
check 'pad' one --init-image wide.bmp --strength 0 --fit pad -o w
check 'is white above' test "$(corner w)" = '255 255 255 '
check 'pad with a colour' one --init-image wide.bmp --strength 0 --fit pad --background '#0a141e' -o w
check 'has that above' test "$(corner w)" = '10 20 30 '
check 'stretch' one --init-image wide.bmp --strength 0 --fit stretch -o w
check 'is the whole' test "$(corner w)" = '250 0 90 '

awk 'BEGIN { for (i = 0; i < 128; i++) { v = i % 16 < 4 ? 255 : 0; print v, v, v } }' | bmp side.bmp 16 8
column() { values "$1" | awk -v x="$2" 'int((NR - 1) / 3) % 8 == x' | cksum; } # of all rows and images
check 'as it is' one --init-image wide.bmp --strength 0 --fit stretch -o w
check 'with a mask' one --init-image wide.bmp --mask side.bmp --fit stretch -o s
check 'of the left' test "$(column w 0)" != "$(column s 0)" -a "$(column w 1)" != "$(column s 1)"
check 'quarter' test "$(column w 3)" = "$(column s 3)" -a "$(column w 7)" = "$(column s 7)"

# ---- a grey model takes grey of the colours (ITU-R 601, as Pillow rounds it) ----
idx_data grey train 24
idx_data grey t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data grey --out grey-run --steps 2 --sample-every 0 >out.txt 2>err.txt || fail 'no grey model'
"$SDLORA" sample --model grey-run/model.safetensors -q -n 1 --digit 0 --init-image photo.bmp --strength 0 --format npy -o g >out.txt
check 'grey of colour' cmp <(values g) <(awk '{ print int((19595 * $1 + 38470 * $2 + 7471 * $3 + 32768) / 65536) }' pixels.txt)

# ---- predict against PyTorch (scripts/make_golden.py): 5 images of 3 channels, 8x8 pixels ----
floats() { # floats FILE TENSOR: the numbers of an F32 tensor of a safetensors file
    local head span
    head=$(od -An -tu8 -N8 "$1" | tr -d ' ')
    span=$(tail -c +9 "$1" | head -c "$head" | grep -o "\"$2\": *{[^}]*}" | sed 's/.*\[\([0-9]*\), *\([0-9]*\)\].*/\1 \2/')
    tail -c +$((head + 9 + ${span% *})) "$1" | head -c $((${span#* } - ${span% *})) | od -An -v -tf4 -w4
}
G=$TESTS/golden/unet_colour
expect 0 eps.safetensors predict --model "$G.safetensors" --input "${G}_io.safetensors" --output eps.safetensors
check 'answers of a network in colour' awk '{ d = $1 - $2; if (d < 0) d = -d; if (!(d <= 5e-5)) bad = 1 } END { exit bad || NR != 960 }' \
    <(paste <(floats eps.safetensors eps) <(floats "${G}_io.safetensors" eps))

# ---- drawn again, and what a picture says of itself ----
again() { # again NAME ARGS...
    local name=$1 command
    shift
    sample -o "$name.png" "$@"
    command=$("$SDLORA" info "$name.png" | sed -n 's/^ *draw it again *sdlora //p')
    eval "'$SDLORA' $command -q -o $name-again.png" >out.txt 2>err.txt
    check "drawn again by '$command'" cmp "$name.png" "$name-again.png"
}
again init --init-image "$WORK/photo.bmp" --strength 0.4 --fit pad --background '#102030' -n 2 --trajectory 3
again mask --init-image photo.bmp --mask "$WORK/hole.bmp" --lora -n 2
check 'no path of this machine' test "$(grep -c "$WORK" mask.png)" -eq 0
expect 0 'photo.bmp, SHA-256 ' info mask.png
check 'it is the file' grep -q "mask  *hole.bmp, SHA-256 $(sha256sum hole.bmp | head -c 12): it is here" out.txt
cp all.bmp hole.bmp
expect 0 'another file is here' info mask.png
expect 0 '' info grid.png
check 'nothing of pictures in others' test "$(grep -c -e strength -e '  fit' -e background out.txt)" -eq 0

# ---- refusals ----
cold() { refuse "$1" "$2" sample --model run/model.safetensors --steps 5 -o x.png "${@:3}"; }
rm -f x.png
cold 2 '--mask belongs to --init-image' --mask hole.bmp
cold 2 '--strength belongs to --init-image' --strength 0.5
cold 2 '--fit belongs to --init-image' --fit pad
cold 2 '--background belongs to --init-image' --background black
cold 2 'background' --init-image photo.bmp --background blue
cold 2 '0 to 1' --init-image photo.bmp --strength 1.01
cold 2 'needs a number' --init-image photo.bmp --strength nan
cold 2 'more moments than the 2 steps taken' --init-image photo.bmp --strength 0.4 --trajectory 3
cold 3 "'nowhere.png'" --init-image nowhere.png
cold 3 "'nowhere.png'" --init-image photo.bmp --mask nowhere.png
cold 3 "'pixels.txt' is no PNG" --init-image pixels.txt
cold 3 "the mask 'half.bmp' has 8x4 pixels, and 'photo.bmp' 8x8" --init-image photo.bmp --mask half.bmp
check 'nothing was drawn' test ! -e x.png
refuse 2 'cannot be its output' sample --model run/model.safetensors --init-image photo.bmp -o photo.bmp
refuse 2 'cannot be its output' sample --model run/model.safetensors --init-image photo.bmp --mask hole.bmp -o hole.bmp

finish
