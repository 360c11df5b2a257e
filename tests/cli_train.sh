#!/usr/bin/env bash
# Runs: what they write, exact resume, checkpoints, locks, signals, adapters.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
idx_data other train 48
idx_data other t10k 6

train() { # train OUT ARGS...
    local out=$1
    shift
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --data data --out "$out" "$@" >out.txt 2>err.txt </dev/null
}
same() { # same A B: runs with the same model and last checkpoint, byte for byte
    cmp -s "$1/model.safetensors" "$2/model.safetensors" &&
        cmp -s "$1"/checkpoints/ckpt-00000020/state.safetensors "$2"/checkpoints/ckpt-00000020/state.safetensors
}
steps() { grep -o '"step": [0-9]*' "$1/metrics.jsonl" | tr -dc '0-9\n' | tr '\n' ' '; }

# ---- one run ----
check 'a run of 20 steps' train whole --steps 20 --save-every 7s
check 'its model' test -s whole/model.safetensors
check 'its samples' test -s whole/samples/epoch-0001.png -a -s whole/samples/epoch-0004.png
check 'every step is in the metrics' test "$(steps whole)" = "$(seq -s ' ' 20) "
check 'validation at epoch ends' test "$(grep -c val_loss whole/metrics.jsonl)" -eq 4
check 'the last two checkpoints are kept' \
    test "$(echo whole/checkpoints/*)" = "$(echo whole/checkpoints/{best,best.json,ckpt-00000014,ckpt-00000020})"
check 'the same again' train again --steps 20 --sample-every 0
check 'the same seed gives the same bytes' same whole again
check 'on two threads' train threads --steps 20 --threads 2
check 'the same bytes at any number of threads' same whole threads
check 'another seed' train seeded --steps 20 --seed 1
check 'gives others' test "$(cmp whole/model.safetensors seeded/model.safetensors | wc -l)" -eq 1

check 'without a moving average' train raw --steps 20 --ema 0 --sample-every 0
check 'the model is another: it holds the average' test "$(cmp whole/model.safetensors raw/model.safetensors | wc -l)" -eq 1

# ---- short epochs: five steps each, and all other runs here attend to every one (--milestone-steps 0 in SMALL) ----
vals() { sed -n 's/.*"step": \([0-9]*\),.*val_loss.*/\1/p' "$1/metrics.jsonl" | tr '\n' ' '; }
check 'two epochs taken together' train pairs --steps 20 --milestone-steps 6 --keep 0
check 'validation after each two' test "$(vals pairs)" = '10 20 '
check 'pictures too' test "$(ls pairs/samples | tr '\n' ' ')" = 'epoch-0002.png epoch-0004.png '
check 'checkpoints too' test "$(echo pairs/checkpoints/ckpt-*)" = "$(echo pairs/checkpoints/ckpt-000000{10,20})"
check 'the model is the same' cmp whole/model.safetensors pairs/model.safetensors
usual() { # without what SMALL says about it
    # shellcheck disable=SC2086
    "$SDLORA" train ${SMALL/--milestone-steps 0/} --data data --steps 20 "$@" >out.txt 2>err.txt </dev/null
}
check 'a hundred steps are usual' usual --out usual
check 'so only the end' test "$(vals usual)" = '20 '
check 'resume keeps what was said' usual --out pairs --resume --steps 40
check 'two epochs, still' test "$(vals pairs)" = '10 20 30 40 '
check 'checkpoints by epochs' usual --out saves --save-every 1e --sample-every 0
check 'come after each' test "$(vals saves)" = '5 10 15 20 '
check 'pictures by epochs' usual --out draws --sample-every 2
check 'come after each' test "$(ls draws/samples | tr '\n' ' ')" = 'epoch-0002.png epoch-0004.png '
check 'no pictures' usual --out none --sample-every 0
check 'is no wish for more' test "$(vals none)" = '20 '

# ---- resume ----
check 'resume where nothing is begins' train part --steps 11 --save-every 4s --lr-schedule constant --resume
check 'and says so' grep -q "no checkpoint in 'part' yet" err.txt
check 'the whole of it' train straight --steps 20 --lr-schedule constant
check 'resume to 20' train part --steps 20 --resume
check 'mid-epoch resume is exact' same straight part
check 'and continues the metrics' test "$(steps part)" = "$(seq -s ' ' 20) "
check 'a finished run' train part --steps 20 --resume
check 'says that it is' grep -q 'already at its last step (20 of 20)' err.txt

train killed --steps 20 --lr-schedule constant --save-every 3s
cp -r killed killed.copy
rm -r killed/checkpoints/ckpt-00000020 killed/model.safetensors # as if killed after step 18 was saved
half=killed/checkpoints/.sdlora-0123456789abcdef.tmp
mkdir $half && touch $half/state.safetensors
check 'resume after a kill' train killed --steps 20 --resume latest --threads 2
check 'a partial checkpoint is not chosen' grep -q 'after step 18' err.txt
check 'and is cleaned away' test ! -e $half
check 'lost steps are not twice in the metrics' test "$(steps killed)" = "$(seq -s ' ' 20) "
check 'resume after a kill is exact' same straight killed

# a run holds the lock of its directory (cli_kill.sh kills runs)
exec 8<>whole/lock
flock -n 8
refuse 1 'another run (process' train --data data --out whole --batch-size 8
refuse 1 'name another place (--out)' train --data data --out whole --batch-size 8
exec 8>&-

refuse_resume() {
    local text=$1
    shift
    train whole --resume "$@" && fail "resume with $*"
    check "resume with $* says '$text'" grep -qF -- "$text" err.txt
}
before=$(find whole -type f ! -name lock -exec cksum {} + | sort)
refuse_resume '--channels was 4,8, now 8,8' --channels 8,8
refuse_resume '--lr was 0.004, now 0.1' --channels 8,8 --lr 0.1
refuse_resume '--augment was none, now flip' --augment flip
refuse_resume "option '--augment' must be none or, separated by commas, some of flip, shift, rotate, colour, got 'mirror'" \
    --augment mirror
refuse_resume '--seed was 0, now 3' --seed 3
refuse_resume 'data_sha256' --data other --steps 25
check 'a refused resume changes nothing' test "$before" = "$(find whole -type f ! -name lock -exec cksum {} + | sort)"
check 'other data by force' train whole --resume --data other --steps 25 --force
check 'an unknown checkpoint' test "$(train whole --resume nix; echo $?)" = 3

# ---- a second run in one directory ----
cp whole/model.safetensors old.safetensors
check 'a new run where one was' train whole --steps 2
check 'puts the old one aside' cmp old.safetensors whole/previous-1/model.safetensors
check 'and starts its metrics anew' test "$(steps whole)" = '1 2 '

# ---- signals ----
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out stopped --steps 100000 --sample-every 0 >/dev/null 2>err.txt &
pid=$!
for _ in $(seq 600); do
    [ -s stopped/metrics.jsonl ] && break
    sleep 0.05
done
kill -TERM $pid
wait $pid
check 'SIGTERM ends with 143' test $? -eq 143
check 'a checkpoint is there' test -n "$(ls -d stopped/checkpoints/ckpt-* 2>/dev/null)"
check 'and the way on' grep -q -- '--resume' err.txt

# ---- a loss that explodes ----
explode() { train wild --lr 100 --grad-clip 0 --lr-schedule constant --warmup 0 --save-every 1s --weight-decay 10 "$@"; }
check 'its first step' explode --steps 1
explode --steps 30 --resume
check 'a diverged run ends with 4' test $? -eq 4
check 'and says so' grep -q 'not finite' err.txt
check 'its model is finite' finite wild/model.safetensors
check 'that of the last good step' cmp wild/model.safetensors wild/checkpoints/ckpt-00000001/model.safetensors
check 'memory limits are kept' test "$(train big --mem 200KB; echo $?)" -eq 2
check 'and the least need is said' grep -q "even with the micro-batch (--micro-batch) at 1 it needs [0-9.]* MB" err.txt
least=$(sed -n "s/.* needs \([0-9.]*\) MB$/\1/p" err.txt)
check 'what is said to fit, fits' train big --mem "$(awk "BEGIN { print $least + 0.1 }")MB" --micro-batch 1 --steps 1

# ---- adapters ----
base=$(cksum <again/model.safetensors)
tune() {
    local out=$1
    shift
    "$SDLORA" finetune --model again/model.safetensors --data other --target w_q,w_k,w_v --out "$out" --rank 2 --batch-size 8 --log-every 1 \
        --threads 1 --progress none "$@" >out.txt 2>err.txt </dev/null
}
check 'an adapter' tune lora --steps 9
check 'says what it trains' grep -q 'adapter: 416 trainable weights' err.txt
check 'its files' test -s lora/adapter_model.safetensors -a -s lora/adapter_config.json -a -s lora/metrics.jsonl
check 'the base is as it was' test "$base" = "$(cksum <again/model.safetensors)"
check 'half an adapter' tune parts --steps 4 --lr-schedule constant
check 'the other half' tune parts --steps 9 --resume
check 'all of it' tune one --steps 9 --lr-schedule constant
check 'resumed adapters are exact' cmp parts/adapter_model.safetensors one/adapter_model.safetensors
"$SDLORA" finetune --data other --out parts --steps 12 --resume --model straight/model.safetensors >out.txt 2>err.txt
check 'not on another base' test $? -eq 3
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out onetoken --steps 2 --context-tokens 1 >out.txt 2>err.txt
"$SDLORA" finetune --model onetoken/model.safetensors --data data --steps 1 --batch-size 8 --progress none \
    >out.txt 2>err.txt
check 'one token: queries and keys cannot learn' grep -q 'w_q and w_k get no gradient' err.txt
check 'the default directory of an adapter' test -s runs/data/lora/adapter_model.safetensors

# ---- each option sets its own field: the model as its file describes it, the training as run.json does ----
check 'every field of a model' train fields --steps 1 --sample-every 0 --image-size 10 --channels 5,6 --time-dim 14 --qsize 3 \
    --vsize 7 --fsize 9 --context-tokens 2 --context-dim 11 --groups 3 --act relu --time-act --no-skip --attention-norm post \
    --no-null-class --timesteps 13 --schedule linear --predict x0 --clip none
"$SDLORA" info --tensors fields/model.safetensors | sed -n '/^configuration:/,/^$/s/^  \([a-z_]*\) *\([^ ]*\) .*/\1=\2/p' | tr '\n' ' ' >out.txt
check 'are in its file' test "$(cat out.txt)" = "channels=5,6 image_size=10 in_channels=1 time_dim=14 qsize=3 vsize=7 fsize=9 context_tokens=2 \
context_dim=11 classes=3 null_class=no norm=group groups=3 act=relu time_act=yes skip=no pre_norm=post timesteps=13 schedule=linear \
predict=x0 clip=none "
check 'every field of a training' train training --steps 2 --batch-size 9 --micro-batch 4 --lr 0.002 --lr-schedule linear \
    --lr-end 0.3 --warmup 1 --loss l1 --cond-drop 0.25 --beta1 0.5 --beta2 0.6 --adam-eps 1e-7 --weight-decay 0.01 --grad-clip 0.7 \
    --timestep-sampling uniform --optimizer adam --ema 0.8 --augment rotate,flip --seed 18446744073709551615 --val-images 4 --conv im2col
tr -d '\n" ' <training/run.json | grep -o 'steps:2,.*val-images:4' >out.txt
check 'is in run.json' test "$(cat out.txt)" = "steps:2,batch-size:9,micro-batch:4,optimizer:adam,lr:0.002,lr-schedule:linear,\
lr-end:0.3,warmup:1,loss:l1,timestep-sampling:uniform,cond-drop:0.25,beta1:0.5,beta2:0.6,adam-eps:1e-07,weight-decay:0.01,grad-clip:0.7,ema:0.8,\
augment:flip,rotate,seed:18446744073709551615,val-images:4"
check 'from where they are taken again' "$SDLORA" train --data data --out training --resume --steps 3 -q --threads 1 >out.txt

finish
