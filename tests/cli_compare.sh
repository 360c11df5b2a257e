#!/usr/bin/env bash
# Several adapters in one picture: each block is the picture that would be drawn alone, under a caption; and --stretch.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --steps 10 --sample-every 0 >out.txt 2>err.txt || fail 'no model'
for name in dots lines; do
    "$SDLORA" finetune --model run/model.safetensors --data data --steps 5 --lr 0.1 --batch-size 8 --progress none --seed ${#name} \
        --sample-every 0 --out runs/$name/lora >out.txt 2>err.txt || fail 'no adapter'
done

sample() { "$SDLORA" sample --model run/model.safetensors --steps 2 --digit 1 -q "$@" >out.txt 2>err.txt </dev/null; }
columns() { cut -d' ' -f"$1"; }

# ---- blocks: 3 images across, 56 pixels wide and 38 high; 8 between them ----
grid='-n 6 --cols 3'
plain='--compare --no-captions'
A=runs/dots/lora B=runs/lines/lora
# shellcheck disable=SC2086
{
    check 'no adapter' sample $grid -o base.png
    check 'one' sample $grid --lora $A -o a.png
    check 'half of it, the other way' sample $grid --lora $A:-0.5 -o half.png
    check 'another' sample $grid --lora $B -o b.png
    check 'all' sample $grid $plain --lora $A --lora $A:-0.5 --lora $B -o all.png
    check 'all with captions' sample $grid --compare --lora $A --lora $A:-0.5 --lora $B -o captions.png
}
for name in base a half b all captions; do pixels $name.png >$name.txt; done
check 'they differ' test "$(for name in base a half b; do cksum <$name.txt; done | sort -u | wc -l)" -eq 4
check 'the size of one' test "$(size base.png)" = 56x38
check 'the size of all' test "$(size all.png)" = 248x38
check 'without an adapter' cmp base.txt <(columns 1-56 <all.txt)
check 'the first alone' cmp a.txt <(columns 65-120 <all.txt)
check 'the first at its scale, alone' cmp half.txt <(columns 129-184 <all.txt)
check 'the second alone' cmp b.txt <(columns 193-248 <all.txt)
check 'white between them' test "$(columns 57-64,121-128,185-192 <all.txt | tr ' ' '\n' | sort -u)" = 255
# "base", "dots", "dots x -0.5", "lines": dots of one pixel for the third to have room; lines are 12 dots high, and one more
check 'a band above' test "$(size captions.png)" = 248x51
check 'under it the same' cmp all.txt <(tail -n +14 captions.txt)
ink() { head -n 13 captions.txt | columns "$1" | tr ' ' '\n' | sort | uniq -c | awk '$2 == 0 { n = $1 } END { print n + 0 }'; }
caption() { head -n 13 captions.txt | columns "$1"; }
check 'a caption above each' test "$(ink 1-56)" -gt 20 -a "$(ink 65-120)" -gt 20 -a "$(ink 129-184)" -gt 40 -a "$(ink 193-248)" -gt 20
check 'nothing between them' test "$(ink 57-64,121-128,185-192)" -eq 0
check 'a name, and the same with a scale' cmp <(caption 65-90) <(caption 129-154)
check 'without a scale where that is 1' test "$(ink 91-120)" -eq 0
check 'another name' test "$(caption 193-220 | cksum)" != "$(caption 65-92 | cksum)"
# shellcheck disable=SC2086
check 'wide ones stand below each other' sample -n 6 --cols 6 $plain --lora $A --lora $B -o tall.png
check 'so' test "$(size tall.png)" = 110x76
check 'large ones' sample -n 64 --compare --lora $A -o large.png
check 'have letters of two pixels' test "$(size large.png)" = 300x172
mkdir -p deep other/data
cp $A/adapter_* other/data
cp -r other/data deep/lora
check 'a path that says nothing' sample -n 64 --compare --lora deep/lora -o fact.png
check 'one that says what the data are called' sample -n 64 --compare --lora other/data -o data.png
check 'the data, out of the file, are the name' cmp <(pixels fact.png) <(pixels data.png)
expect 0 'they are not added up' sample --help

# ---- drawn again ----
again() { # again NAME ARGS...
    local name=$1 command
    shift
    sample -o "$name.png" "$@"
    command=$("$SDLORA" info "$name.png" | sed -n 's/^ *draw it again *sdlora //p')
    # shellcheck disable=SC2086
    "$SDLORA" $command -q -o "$name-again.png" >out.txt 2>err.txt
    check "drawn again by '$command'" cmp "$name.png" "$name-again.png"
}
again captions --compare --lora "$WORK/$A:0.25" --lora $B -n 6
again none --compare --no-captions --lora $A -n 6
again stretched --stretch -n 3
again moments --stretch --trajectory 2 -n 2

# ---- memory: four blocks more are 4 x 538 x 530 pixels, and as many bytes three times on their way to the file ----
mb() { "$SDLORA" sample --model run/model.safetensors --steps 1 --digit 1 --scale 8 -n 64 --no-captions --compare "$@" 2>&1 >out.txt |
    sed -n 's/.*memory: \([0-9.]*\) MB.*/\1/p'; }
two=$(mb --lora $A -o m.png)
six=$(mb --lora $A --lora $A --lora $A --lora $A --lora $A -o m.png)
check "all blocks are counted: $two MB, $six MB" awk -v a="$two" -v b="$six" 'BEGIN { exit !(b - a > 4.4 && b - a < 5.6) }'
refuse 2 'a smaller --scale' sample --model run/model.safetensors --steps 1 --digit 1 --scale 8 -n 64 --compare --lora $A --lora $A \
    --lora $A --lora $A --lora $A --mem "$(awk -v a="$six" 'BEGIN { print a - 0.5 }')MB" -o refused.png
check 'nothing was drawn' test ! -e refused.png

# ---- stretch: 0 and 255 in each image, and what lies between by matplotlib's formula ----
raw() { gzip -dc "$1-images-idx3-ubyte.gz" | tail -c +17 | od -An -v -tu1 -w64; }
sample -n 5 --format idx -o usual
sample -n 5 --format idx --stretch -o full
check 'each image has its whole range' awk '{ lo = 255; hi = 0; for (i = 1; i <= NF; i++) { if ($i < lo) lo = $i; if ($i > hi) hi = $i }
    if (lo != 0 || hi != 255) exit 1 }' <(raw full)
check 'by the formula, up to the rounding of what it is compared with' awk '
    function want(v) { return (v - lo) / (hi - lo) * 256 }
    NR == FNR { for (i = 1; i <= 64; i++) usual[FNR, i] = $i; next }
    {
        lo = 255; hi = 0
        for (i = 1; i <= 64; i++) { v = usual[FNR, i]; if (v < lo) lo = v; if (v > hi) hi = v }
        for (i = 1; i <= 64 && lo > 0 && hi < 255; i++) # those that are not clamped
            { d = $i + 0.5 - want(usual[FNR, i]); slack = 1 + 256 / (hi - lo); if (d > slack || -d > slack) exit 1; n++ }
    } END { if (NR != 10) exit 1 }' <(raw usual) <(raw full)

finish
