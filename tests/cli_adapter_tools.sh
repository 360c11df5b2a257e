#!/usr/bin/env bash
# merge, extract, resize: what they write does what they say, on a model and adapters of PEFT's and others
# (tests/golden/adapters); what they refuse leaves nothing behind. Which base: what is said of models and adapters that
# do not belong together.
. "$(dirname "$0")/lib_cli.sh"
G=$TESTS/golden/adapters
cp "$G/base.safetensors" base
IO=$G/io.safetensors

# predict OUT ARGS...: the model's answers to the inputs of the golden file, 6 images of 8x8
predict() {
    "$SDLORA" predict --threads 1 -q -i "$IO" -o "$1" "${@:2}" >/dev/null 2>err.txt ||
        fail "predict ${*:2}: $(cat err.txt)"
}
# near A B LIMIT: the largest difference of two answers is below it, and no NaN
near() {
    paste <(tail -c 1536 "$1" | od -An -v -tf4 -w4) <(tail -c 1536 "$2" | od -An -v -tf4 -w4) | awk -v limit="$3" '
        { d = $1 - $2; if (d < 0) d = -d; if (!(d <= limit)) bad = 1; n++; seen = seen || $1 != 0 }
        END { exit bad || n != 384 || !seen }'
}
# error NAME: the number of that line of the last report
error() { sed -n "s/^  $1 .* \([^ ]*\) %$/\1/p" err.txt; }
below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a < b) }'; }

# ---- merge ----
mkdir -p adapters
for kind in lora_all dora_linear lokr_conv loha_saved pissa_converted kohya_mid.safetensors; do
    expect 0 merged merge base "$G/$kind" -o merged
    check "$kind: the report" grep -q 'change |dW|/|W|' err.txt
    predict a -m merged
    predict b -m base --lora "$G/$kind"
    check "$kind: merged is as applied" cmp -s a b
    predict b -m base
    check "$kind: and no longer the base" test -n "$(cmp a b)"
done
expect 0 merged merge -o merged base "$G/lora_all:0.5" "$G/lokr_conv:-0.25"
predict a -m merged
predict b -m base --lora "$G/lora_all:0.5" --lora "$G/lokr_conv:-0.25"
check 'two of them at scales' cmp -s a b
expect 0 'tensors changed' merge -v base "$G/lora_qkv" -o merged
check 'a line for every layer' grep -q ' encoder_convs.0.cross_attention.w_q.weight .* %$' err.txt
expect 0 merged merge base "$G/lora_all:0" -o merged
check 'a scale of zero changes nothing, and is said' grep -q '^0 of .* tensors changed' err.txt
expect 0 grown merge base "$G/new_classes" -o grown -q
check 'quiet' test ! -s err.txt
expect 0 '' sample -m grown --digit 12 -n 1 --steps 1 -o c.png
"$SDLORA" merge base "$G/lora_all" -o - >through 2>err.txt
"$SDLORA" merge base "$G/lora_all" -o merged >/dev/null 2>&1
check 'through a pipe' cmp -s through merged
"$SDLORA" merge base "$G/lora_all" -o merged >/dev/null 2>&1
check 'the same bytes again' cmp -s through merged

# ---- extract ----
predict tuned -m merged
expect 0 full extract base merged -o full --energy 1 --full
predict a -m base --lora full
check 'all of the difference' near a tuned 1e-4
expect 0 'rank4' extract base merged -o rank4 --rank 4 --target all
four=$(error together)
predict a -m base --lora rank4
check 'its own rank finds it again' near a tuned 1e-4
check 'and says so' below "$four" 0.01
expect 0 'rank1' extract base merged -o rank1 --rank 1 --target all
one=$(error together)
predict a -m base --lora rank1
check 'rank 1 loses some' test -z "$(near a tuned 1e-4 && echo same)"
check 'and says so' below 1 "$one"
expect 0 energy extract base merged -o energy --energy 0.9
check 'of the squares a tenth is lost' below "$(error together)" 31.7 # percent: sqrt(0.1)
expect 0 'left out; --full keeps them' extract base merged -o qkv --target w_q,w_k,w_v
check 'what is left out is part of the error' below 50 "$(error 'together with these')"
check 'the adapter knows its base' grep -q "$(sha256sum base | cut -c 1-64)" qkv/adapter_model.safetensors
expect 0 classes extract base grown -o classes --rank 8
refuse 2 'there is no class 12' sample -m base --digit 12
expect 0 '' sample -m base --lora classes --digit 12 -n 1 --steps 1 -o c.png
# ---- resize ----
for kind in lora_all dora_conv lokr_patterns lycoris_loha.safetensors loha_conv kohya_mid.safetensors saved_modules; do
    expect 0 "resized" resize "$G/$kind" -m base -o resized --sv-fro 1
    predict a -m base --lora resized
    predict b -m base --lora "$G/$kind"
    check "$kind as LoRA" near a b 1e-4
done
expect 0 small resize "$G/lora_all" -m base -o small --rank 1
check 'ranks are said' grep -q '^ranks: 1 to 1, 1 on average' err.txt
check 'and sizes' grep -q 'KB became .* KB$' err.txt
expect 0 small resize "$G/lora_all" -m base -o small --sv-ratio 1e30 --rank 2
check 'a rule has a most' grep -q '^ranks: [12] to 2,' err.txt
expect 0 small resize "$G/lora_all" -m base -o small --sv-cumulative 0.5 -v
check 'a line for every layer' grep -q 'w_q.weight *rank .* -> ' err.txt
check 'the adapter was replaced whole' test "$(ls -A small | wc -l)" -eq 2

# ---- refused, and nothing left behind ----
rm -rf out && mkdir out
cp -r "$G/lora_qkv" mine && cp base before && cp -r mine mine_before && ln base hard
head -c 3000 base >half && echo text >text && mkdir empty && cp -r mine other && touch other/notes
nothing() { # nothing STATUS TEXT COMMAND...
    refuse "$@"
    check "nothing was left by '${*:3}'" test -z "$(ls -A out)"
}
nothing 2 "'merge' needs a MODEL" merge
nothing 2 "needs a model and at least one adapter" merge base -o out/m
nothing 2 "'merge' needs --output" merge base mine
nothing 2 'a finite number' merge base mine:inf -o out/m
nothing 2 'at most 16 adapters' merge base mine{,,,,,,,,,,,,,,,,} -o out/m
nothing 3 'cannot open' merge nix mine -o out/m
nothing 3 'cannot open adapter' merge base nix -o out/m
nothing 3 'is an adapter, no model' merge mine base -o out/m
nothing 3 'is a model, no adapter' merge base base -o out/m
nothing 3 half merge half mine -o out/m
nothing 3 text merge base text -o out/m
nothing 3 'without a model.safetensors' merge empty mine -o out/m
nothing 4 "is not finite; lower the adapter's scale" merge base "$G/lora_all:1e39" -o out/m
for output in base ./base hard mine/adapter_model.safetensors mine/adapter_config.json; do
    refuse 2 'is read by this command' merge base mine -o $output
done
nothing 2 "'extract' needs two models" extract base -o out/e
nothing 2 "'extract' takes BASE TUNED" extract base base base -o out/e
nothing 2 'name it with --output' extract base merged
nothing 2 'name it with --output' extract base merged -o -
nothing 2 "no layer is called 'w_z'" extract base merged -o out/e --target w_z
nothing 2 "'--rank' must be 1 to" extract base merged -o out/e --rank 0
nothing 2 "'--energy' must be 0 to 1" extract base merged -o out/e --energy 1.1
nothing 3 'the two models are the same' extract base hard -o out/e
nothing 3 'differ in ' extract "$TESTS/golden/unet_mnist.safetensors" merged -o out/e
nothing 3 'fewer than' extract grown base -o out/e
nothing 3 'is an adapter, no model' extract base mine -o out/e
nothing 3 half extract base half -o out/e
nothing 1 "more than an adapter's two files" extract base merged -o other
nothing 1 'no directory' extract base merged -o text
nothing 2 "'resize' needs an ADAPTER" resize -o out/r
nothing 2 "'resize' needs --rank, --sv-ratio" resize mine -m base -o out/r
nothing 2 'give one of' resize mine -m base -o out/r --sv-fro 0.5 --sv-ratio 3
nothing 2 "'--sv-ratio' must be 1 to" resize mine -m base -o out/r --sv-ratio 0.5
nothing 2 "'--sv-cumulative' must be 0 to 1" resize mine -m base -o out/r --sv-cumulative 2
nothing 2 "needs a number" resize mine -m base -o out/r --sv-fro nan
nothing 2 'without a scale' resize mine:0.5 -m base -o out/r --rank 1
nothing 2 'is read by this command' resize mine -m base -o mine --rank 1
nothing 2 'is read by this command' resize mine/adapter_model.safetensors -m base -o ./mine/ --rank 1
nothing 3 'is a model, no adapter' resize base -m base -o out/r --rank 1
nothing 3 'cannot open adapter' resize nix -m base -o out/r --rank 1
nothing 1 "more than an adapter's two files" resize mine -m base -o other --rank 1
for command in 'merge base mine -o out/m' 'extract base merged -o out/e' 'resize mine -m base -o out/r --rank 1'; do
    # shellcheck disable=SC2086
    (ulimit -f 1 && exec "$SDLORA" $command >out.txt 2>err.txt)
    check "a full disk ends '$command'" test $? -eq 1 -a ! -s out.txt
    check 'with the reason' grep -q 'cannot write .*: File too large$' err.txt
    check 'and leaves nothing' test -z "$(ls -A out)"
done
check 'the inputs are as they were' cmp -s base before
check 'the adapter, too' diff -r mine mine_before
check 'and what is not ours' test -e other/notes -a "$(cat text)" = text

# ---- which base ----
idx_data data train 40
idx_data data t10k 6
seed=1
for run in one two; do
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --data data --out $run --steps 2 --sample-every 0 --seed $seed -q >/dev/null ||
        fail 'no model'
    seed=2
done
"$SDLORA" finetune -m one --steps 1 --batch-size 8 --progress none --sample-every 0 --data data --out one/lora -q ||
    fail 'no adapter of a directory'
draw() { expect 0 '' sample -n 1 --steps 2 -q -o "$1" "${@:2}"; }
draw a.png -m one/model.safetensors --lora one/lora
draw b.png -m one --lora
check 'a directory is the model in it, and its adapter' cmp -s <(tail -c 100 a.png) <(tail -c 100 b.png)
check 'the base is known' test -z "$(grep note err.txt)"
draw b.png -m one --lora :0.5
expect 3 'the model takes 0 to 19' predict -m one -i "$IO" -o answers
mkdir bare && cp one/lora/adapter_* bare # without run.json
expect 0 "note: the adapter 'bare' was trained on another model than 'two/model.safetensors': on 'one/model.safetensors'" \
    sample -m two --lora bare -n 1 --steps 1 -o c.png
check 'in one line' test "$(grep -c 'another model' err.txt)" -eq 1
mkdir -p elsewhere/data && cp -r data elsewhere/data/mnist
(cd elsewhere && "$SDLORA" finetune -m ../two --steps 1 --batch-size 8 --progress none --sample-every 0 -q >/dev/null)
check "a run's adapter goes into it" test -e two/lora/adapter_model.safetensors
refuse 3 "'one/lora' is an adapter, no model; it goes with --lora" sample -m one/lora
refuse 3 'is an adapter, no model; it goes with --lora' sample -m one/lora/adapter_model.safetensors
refuse 3 'is an adapter, no model; it goes with --lora' finetune -m one/lora --data data
refuse 3 "is a model, no adapter; it goes with --model" sample -m one --lora=one/model.safetensors
refuse 3 "is a model, no adapter; it goes with --model" sample -m one --lora=two
refuse 3 'without a model.safetensors' predict -m empty -i "$IO" -o answers
finish
