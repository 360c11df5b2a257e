#!/usr/bin/env bash
# The model that comes with the program: used, and said, where --model is not given and there is no run yet. Nothing is
# written beside it.
. "$(dirname "$0")/lib_cli.sh"
idx_data data/mnist train 40
idx_data data/mnist t10k 6
cp -r data/mnist data/other
DEFAULT=runs/mnist/model.safetensors
SHIPPED=data/models/mnist.safetensors
LINE="no run yet: using the model that is shipped, $SHIPPED"
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --out made --steps 4 --sample-every 0 >out.txt 2>err.txt || fail 'no model'

# ---- neither is there ----
for command in sample finetune 'predict --input in --output out' 'convert adapter -o x' 'resize adapter --rank 1 -o x'; do
    # shellcheck disable=SC2086
    case $command in
    convert* | resize*) refuse 3 'cannot open' $command ;;
    *) refuse 3 "cannot open '$DEFAULT'" $command ;;
    esac
done

# ---- only the one that is shipped ----
mkdir data/models && cp made/model.safetensors $SHIPPED
says_it() { check "'$1' says which model, once" test "$(grep -cxF "$LINE" err.txt)" -eq 1; }
expect 0 a.png sample --steps 1 -n 1 -o a.png
says_it sample
expect 0 b.png sample --model made --steps 1 -n 1 -o b.png
check 'a model that is named is taken without a word' test "$(grep -c shipped err.txt)" -eq 0
check 'it is the same' test "$("$SDLORA" info --json a.png | grep model-sha256)" = "$("$SDLORA" info --json b.png | grep model-sha256)"
expect 0 a.png sample --steps 1 -n 1 -o a.png -q
check 'with --quiet nothing is said' test ! -s err.txt
expect 0 "sdlora sample --model $SHIPPED" info a.png
refuse 3 "cannot open '$DEFAULT'" sample --model $DEFAULT
tune="--steps 2 --batch-size 8 --sample-every 0 --progress none"
# shellcheck disable=SC2086
{
    expect 0 runs/other/lora finetune --data data/other $tune
    says_it finetune
    refuse 3 "cannot open adapter 'runs/mnist/lora'" sample --model $SHIPPED --lora
    expect 0 runs/mnist/lora finetune --model $SHIPPED $tune
    mv runs/mnist/lora runs/mnist/named
    expect 0 runs/mnist/lora finetune $tune
}
check 'the same adapter' cmp runs/mnist/lora/adapter_model.safetensors runs/mnist/named/adapter_model.safetensors
expect 0 c.png sample --steps 1 -n 1 --lora -o c.png
check 'the adapter of the run' grep -qa 'runs/mnist/lora:1' c.png
expect 0 x convert runs/mnist/lora -o x
says_it convert
expect 0 y resize runs/mnist/lora --rank 1 -o y
says_it resize
check 'nothing lies beside it' test "$(ls data/models)" = mnist.safetensors

# ---- both: the run's own ----
cp made/model.safetensors $DEFAULT
expect 0 d.png sample --steps 1 -n 1 -o d.png
check 'the model of the run is taken without a word' test "$(grep -c shipped err.txt)" -eq 0
check 'it is that' grep -qa "$DEFAULT" d.png
expect 0 runs/other/lora finetune --data data/other --out runs/other/lora --resume --steps 4 --progress none
check 'a resumed adapter keeps its model' grep -qF "'$SHIPPED'" err.txt

finish
