#!/usr/bin/env bash
# Folders of pictures on the command line: what is said of them, how they are trained on, what is kept and refused.
. "$(dirname "$0")/lib_cli.sh"
export XDG_CACHE_HOME=$WORK/cache HOME=$WORK/home
mkdir home

le32() { # a little-endian u32
    printf '%b' "$(printf '\\0%o' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)))"
}
# bmp FILE WIDTH HEIGHT R G B: a picture of one colour; the width is a multiple of 4.
bmp() {
    local n=$(($2 * $3)) pixel
    pixel=$(printf '\\%03o\\%03o\\%03o' "$6" "$5" "$4")
    mkdir -p "$(dirname "$1")"
    {
        printf 'BM'
        le32 $((54 + 3 * n)) && le32 0 && le32 54 && le32 40 && le32 "$2" && le32 "$3"
        printf '\001\000\030\000' && le32 0 && le32 0 && le32 0 && le32 0 && le32 0 && le32 0
        # shellcheck disable=SC2059
        printf "$pixel%.0s" $(seq "$n")
    } >"$1"
}
said() { # TEXT: on standard error
    grep -qF -- "$1" err.txt
}
for i in 1 2 3 4 5 6 7 8 9; do
    bmp "photos/red cats/$i.bmp" 8 4 $((i * 20)) 10 10
    bmp "photos/blüe/$i.bmp" 4 4 10 10 $((i * 20))
    bmp "grey/$i.bmp" 4 4 $i $i $i
done

# ---- what is there ----
expect 0 'red cats               9           0' data photos
check 'classes by name' grep -q '^blüe  *8  *1$' out.txt
check 'sizes' grep -qF '  sizes: 4x4 to 8x4, 2 different' out.txt
check 'modes' grep -qF '  modes: 17 colour' out.txt
check 'why colour' grep -qF "  colour: 3 channels, because of 'blüe/1.bmp'" out.txt
expect 0 '' data photos --json
check 'as JSON' python3 - <<'PY'
import json
about = json.load(open("out.txt"))
train = about["splits"]["train"]
assert train["class_names"] == ["blüe", "red cats"] and train["images_per_class"] == [8, 9]
assert train["pictures"]["files"] == 17 and train["pictures"]["left_out"] == [] and train["channels"] == 3
assert train["pictures"]["smallest"] == [4, 4] and train["pictures"]["largest"] == [8, 4]
assert about["splits"]["test"]["images_per_class"] == [1, 0]
PY
expect 0 'grey                   8           1' data grey
check 'grey is one channel' grep -q '^channels  *1  *1$' out.txt
expect 0 '16x16' data --image-size 16 photos
expect 0 'channels               3' data --rgb --val-split 0 grey
expect 0 "sheet.png" data photos --sheet sheet.png
expect 0 'x 134 pixels' info sheet.png
refuse 2 "'photos/sheet.png' would be one of the pictures in 'photos'" data photos --sheet photos/sheet.png
refuse 2 "'photos/blüe/sheet.png' would be one" data photos --sheet photos/blüe/sheet.png
refuse 2 "'grey/noise.png' would be one" noise --data grey -o grey/noise.png
expect 0 noise.png noise --data photos --image-size 8 -o noise.png
expect 0 '17 images of 32x32, 2 classes' info photos
mv photos plain-photos && ln -s plain-photos photos
refuse 2 "would be one of the pictures" data photos --sheet plain-photos/x.png
rm photos && mv plain-photos photos

# ---- copies ----
expect 0 copy data -t bold -o copy --image-size 8 photos
expect 0 'channels               3           3' data copy
rm -r copy
expect 0 copy data -t invert -o copy --grey --image-size 4 photos
expect 0 '4x4         4x4' data copy
refuse 2 'give --grey or --rgb, not both' data --grey --rgb photos
refuse 2 "--sheet draws what a data set holds" data -t bold -o x --sheet y.png photos

# ---- training ----
train() { # ARGS...
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --steps 2 "$@" >out.txt 2>err.txt </dev/null
}
losses() { # RUN
    grep -o '"[a-z_]*loss[^,}]*' "$1/metrics.jsonl"
}
check 'trains in colour' train --data photos --out a
check 'and says why' said "colour: 3 channels, because of 'blüe/1.bmp'"
check 'it says nothing twice' test "$(grep -c colour err.txt)" -eq 1
expect 0 '3 channels' info a/model.safetensors
check 'trains in grey' train --data photos --grey --out b
expect 0 'grey' info b/model.safetensors
check 'what is grey stays so' train --data grey --out c
check 'and says so' said 'grey: 1 channel, as no picture has colour'
expect 0 'grey' info c/model.safetensors
check 'quietly' train --data photos --quiet --out d
check 'without a word' test ! -s err.txt
check 'what fits how' train --data photos --fit pad --background '#102030' --out e
check 'is remembered' grep -q '"background": "#102030"' e/run.json
check 'and resumed' "$SDLORA" train --data photos --out e --resume --steps 3 -q >out.txt
check 'to the step' grep -q '"step": 3' e/metrics.jsonl
expect 2 '--fit was pad, now crop' train --data photos --out e --resume --fit crop
refuse 2 '--background was #102030, now white' train --data photos --out e --resume --background white
cp -r photos other && bmp 'other/blüe/1.bmp' 4 4 200 200 200
expect 2 'other data' train --data other --out e --resume --steps 4
refuse 2 "option '--background' must be #RRGGBB, white or black, got 'mauve'" train --data photos --background mauve
refuse 2 "got '#12345'" train --data photos --background '#12345'
refuse 2 "must be 0 to 0.9, got '1'" train --data photos --val-split 1
expect 2 "the batch size (--batch-size) 10 is more than the number of images, 9" train --data grey --val-split 0 --batch-size 10
# shellcheck disable=SC2086
check 'a batch that nobody named is no larger' "$SDLORA" train ${SMALL/--batch-size 8/} --data grey --val-split 0 \
    --steps 1 --out n >/dev/null 2>err.txt
check 'which is said' said 'note: batches of 9, as the data have no more images'
check 'and resumed' "$SDLORA" train --data grey --out n --resume --steps 2 -q >/dev/null

# ---- validation ----
check 'a part of the folder' grep -q val_loss a/metrics.jsonl
check 'or nothing' train --data photos --val-split 0 --out f
check 'then without' test -z "$(grep val_loss f/metrics.jsonl)"
cp -r photos val && rm -r 'val/blüe'
check 'or another folder' train --data photos --val val --out g
check 'with these pictures' said '9 for validation'
mkdir parts && cp -r photos parts/train && cp -r val parts/test
check 'or its own' train --data parts --out h
check 'of the same images' cmp -s <(losses g) <(losses h)
mv val/'red cats' val/dogs
expect 3 "class 'dogs'" train --data photos --val val --out x
check 'some of each class' train --data photos --limit 8 --val-split 0 --out i
check 'as many' said '8 images, 2 classes'
mkdir few few/blüe 'few/red cats'
for i in 1 2 3 4; do
    cp "photos/blüe/$i.bmp" few/blüe && cp "photos/red cats/$i.bmp" 'few/red cats'
done
check 'alone' train --data few --val-split 0 --out few-run
check 'are the first ones' cmp -s <(losses i) <(losses few-run)

# ---- an adapter: size and channels are the model's ----
expect 0 l finetune --model a --data grey --rank 1 --steps 1 --batch-size 4 --out l
expect 0 m finetune --model b --data photos --rank 1 --steps 1 --batch-size 4 --out m
check 'which is said of the model only' test -z "$(grep 'channel' err.txt)"
refuse 2 'leave out --grey' train --init a --data photos --grey --out x

# ---- broken pictures ----
cp -r photos broken
echo 'no picture' >broken/blüe/text.png
head -c 60 photos/blüe/1.bmp >broken/blüe/cut.bmp
: >"$(printf 'broken/blüe/\033[31m.png')"
expect 0 '3 of 20 pictures skipped' data broken
check 'each has a line' test "$(grep -c '  left out: ' out.txt)" -eq 3
check 'with its name' grep -qF "broken/blüe/text.png'" out.txt
check 'that cannot speak to the terminal' test -z "$(tr -dc '\033' <out.txt)"
check 'trains all the same' train --data broken --out j
check 'and counts them' said '3 of 20 pictures skipped'
check 'the images are the same' cmp -s <(losses a) <(losses j)
refuse 3 '3 of 20 pictures' train --data broken --strict --out x
refuse 3 '3 of 20 pictures' data broken --strict
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $i >broken/blüe/text$i.png; done
check 'with many' train --data broken --out k
check 'ten are told' test "$(grep -c "left out: .*'" err.txt)" -eq 10
check 'and the rest counted' said 'left out: 5 more'
check 'refusals wrote nothing' test ! -e x

# ---- what is kept ----
check 'decoded pictures are kept' test -n "$(ls cache/sdlora)"
rm -r cache
expect 0 '' data --no-cache photos
check 'or not' test ! -e cache
unset XDG_CACHE_HOME
expect 0 '' data photos
check 'at home' test -n "$(ls home/.cache/sdlora)"
rm -r home/.cache && : >home/.cache
expect 0 'red cats' data photos
unset HOME
expect 0 'red cats' data photos
export XDG_CACHE_HOME=here # relative: the specification says to ignore it
expect 0 'red cats' data photos
check 'nowhere else' test ! -e here
finish
