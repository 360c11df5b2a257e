#!/usr/bin/env bash
# Several processes (include/sdlora/ranks.h) leave the bytes that one leaves: train, finetune, sample, eval, at any number of
# processes and threads, also when they are stopped, killed and resumed as others. What they have that differs is refused.
# For a program that was built with MPI=1; without it, or without mpirun, there is only a note. KILLS: how many (2).
. "$(dirname "$0")/lib_cli.sh"

if ! "$SDLORA" --version --verbose | grep -q '^MPI: [^n]' || ! command -v mpirun >/dev/null; then
    check "no MPI is no MPI" grep -q none <("$SDLORA" --version --verbose | grep '^MPI: ')
    echo "note: built without MPI, or no mpirun here: nothing tried with several processes"
    finish
    exit
fi
launcher=(mpirun)
if mpirun --version | grep -q 'Open MPI'; then
    launcher+=(--allow-run-as-root --oversubscribe --bind-to none)
    export OMPI_MCA_btl_vader_single_copy_mechanism=none # not allowed in many containers, and said there
fi
# ranks N ARGS...: the program by N processes, what it says in out.txt and err.txt
ranks() {
    local n=$1
    shift
    timeout 120 "${launcher[@]}" -n "$n" "$SDLORA" "$@" >out.txt 2>err.txt </dev/null
}
# refuses STATUS TEXT COMMAND...: ends so, with this in the one message of all processes
refuses() {
    local status=$1 text=$2 got
    shift 2
    "$@"
    got=$?
    check "'$text' ends with $status, not $got: $(head -c 300 err.txt)" [ $got -eq "$status" ]
    check "'$text' in one message: $(head -c 600 err.txt)" [ "$(grep -c '^sdlora: ' err.txt)" -eq 1 ]
    check "'$text' is said: $(head -c 600 err.txt)" grep -qF -- "$text" err.txt
}
metrics() { sed 's/"images_per_s": [0-9.]*/"images_per_s": 0/' "$1/metrics.jsonl"; }
# same A B FILE...: of two runs, with their metrics
same() {
    local a=$1 b=$2 file
    shift 2
    for file in "$@"; do check "$b/$file is that of $a" cmp "$a/$file" "$b/$file"; done
    check "the metrics of $b are those of $a" cmp <(metrics "$a") <(metrics "$b")
}

idx_data data train 60
idx_data data t10k 15
# 12 chunks: 5, 4 and 3 of them are no whole subtrees of the sum
options="$SMALL --batch-size 24 --micro-batch 2 --epochs 3 --val-images 15 --data data --threads 1 -q"
state=checkpoints/ckpt-00000006/state.safetensors

# ---- train ----

plain=${SDLORA%-mpi}
check "train, by one" "$plain" train $options --out one >/dev/null
check "train, by the program with MPI" "$SDLORA" train $options --out alone >/dev/null
same one alone model.safetensors $state samples/epoch-0003.png
for shape in ${SHAPES:-1:2 2:1 2:2 3:1 4:1 4:2 7:1}; do
    n=${shape%:*}
    check "train, processes and threads: $shape" ranks "$n" train $options --out "many.$n" --threads "${shape#*:}"
    same one "many.$n" model.safetensors $state samples/epoch-0003.png
    check "one speaks" [ "$(cat out.txt)" = "many.$n/model.safetensors" ]
    rm -rf "many.$n"
done
others() { # others WHAT ARGS...: the same with other options, where one process is not alone
    local what=$1
    shift
    check "$what, by one" "$plain" train $options "$@" --out one.other >/dev/null
    check "$what, by 3" ranks 3 train $options "$@" --out many.other
    same one.other many.other model.safetensors $state
    rm -rf one.other many.other
}
others "more processes than chunks" --batch-size 4 --limit 8
others "Muon, a chunk that is not whole" --batch-size 21 --micro-batch 2 --optimizer muon --augment flip,shift
others "one chunk, in bfloat16" --micro-batch 24 --precision bf16
others "shares that end within a sum of squares, Adam" --channels 8,20 --optimizer adam --ema 0

# ---- finetune ----

adapter="--model one/model.safetensors --rank 2 --batch-size 24 --micro-batch 2 --epochs 3 --val-images 15 --data data
         --log-every 1 --milestone-steps 0 --progress none -q"
check "finetune, by one" "$plain" finetune $adapter --out lora >/dev/null
for n in 2 3; do
    check "finetune, $n processes" ranks $n finetune $adapter --out lora.$n --threads $((n % 2 + 1))
    same lora lora.$n adapter_model.safetensors adapter_config.json $state before.png
done
whole="$adapter --target all --dora --dropout 0.2 --train-bias all --train-embedding"
check "finetune of everything, by one" "$plain" finetune $whole --out lora.whole --threads 2 >/dev/null
check "finetune of everything, 5 processes" ranks 5 finetune $whole --out lora.5
same lora.whole lora.5 adapter_model.safetensors $state
# Of one direction for each weight there are fewer numbers than weights.
check "a larger base" "$plain" train $options --channels 16,32 --epochs 1 --out base >/dev/null
weights=$("$SDLORA" info base/model.safetensors --json | sed -n 's/.*"parameters": \([0-9]*\).*/\1/p')
check "an adapter of all layers" ranks 2 finetune --model base/model.safetensors --rank 1 --target all --data data \
    --batch-size 24 --micro-batch 3 --steps 9 --val-images 0 --sample-every 0 --progress none --profile --out thin
exchanged=$(sed -n 's/.*exchange \([0-9.]*\) MB a step.*/\1/p' err.txt)
check "only its own gradients go from one to the other: $exchanged MB, of $weights weights" \
    awk -v mb="$exchanged" -v n="$weights" 'BEGIN { exit !(mb > 0 && n > 0 && mb * 1e6 < 4 * n) }'

# ---- stopped and killed, resumed by another number ----

long="$SMALL --batch-size 24 --micro-batch 2 --steps 1500 --milestone-steps 50 --save-every 29s --sample-every 0 --val-images 15 --data data -q"
lines_of() { if [ -s "$1/metrics.jsonl" ]; then wc -l <"$1/metrics.jsonl"; else echo 0; fi; }
# disturbed N HOW...: start N processes, and run HOW with mpirun's process when there are some lines of metrics more
disturbed() {
    local n=$1 pid i lines=$(($(lines_of cut) + 15))
    shift
    "${launcher[@]}" -n "$n" "$SDLORA" train $long --resume --out cut >out.txt 2>err.txt </dev/null &
    pid=$!
    for ((i = 0; i < 100000; i++)); do
        if [ "$(lines_of cut)" -ge $lines ] || ! kill -0 $pid 2>/dev/null; then break; fi
    done
    "$@" $pid
    wait $pid
    stopped=$?
}
kill_rank() { kill -9 "$(pgrep -P "$2" -x "$(basename "$SDLORA" | head -c 15)" | sed -n "$(($1 + 1))p")"; }

check "a long one" "$plain" train $long --out whole >/dev/null
for signal in TERM INT; do
    disturbed 3 kill -$signal 2>/dev/null
    check "SIG$signal: not the status of success" [ $stopped -ne 0 ]
    check "SIG$signal: said by one" [ "$(grep -c 'finishing the step' err.txt)" -eq 1 ]
    step=$(tail -n 1 cut/metrics.jsonl | sed 's/.*"step": \([0-9]*\).*/\1/')
    check "SIG$signal: saved after step $step" [ -f "cut/checkpoints/ckpt-$(printf %08d "$step")/state.safetensors" ]
done
for ((k = 0; k < ${KILLS:-2}; k++)); do
    disturbed $((k % 3 + 2)) kill_rank $((k % (k % 3 + 2))) 2>/dev/null
    check "a killed process: not the status of success" [ $stopped -ne 0 ]
done
check "resumed by two" ranks 2 train $long --resume --out cut
same whole cut model.safetensors checkpoints/ckpt-00001500/state.safetensors
check "resumed at its end" ranks 3 train $long --resume --out cut

# A disk that is full, from some write of process 0 on
pair() { # pair A B: the command by two processes, after these words each
    timeout 120 "${launcher[@]}" -n 1 $1 "$SDLORA" $3 : -n 1 $2 "$SDLORA" $4 >out.txt 2>err.txt </dev/null
}
if [ -n "${FAULT_SHIM-}" ]; then
    rm -rf cut
    full="train $long --resume --out cut"
    refuses 1 "No space left on device" pair "env LD_PRELOAD=$FAULT_SHIM SDLORA_FAULT=mkdir:9+" "" "$full" "$full"
    check "not before there was a checkpoint" [ -n "$(ls cut/checkpoints 2>/dev/null)" ]
    check "with room again" ranks 3 $full
    same whole cut model.safetensors checkpoints/ckpt-00001500/state.safetensors
fi

# An error of process 0 is everybody's.
rm -rf cut
disturbed 2 eval 'mv cut gone #' 2>/dev/null
check "a directory that is moved away ends the run" [ $stopped -eq 1 ]
check "in one message: $(head -c 300 err.txt)" [ "$(grep -c '^sdlora: ' err.txt)" -eq 1 ]

# ---- what differs ----

other=$("$SDLORA" --version --verbose | grep -q 'SIMD: baseline' && echo ref || echo baseline)

mkdir here there
cp -r data here && cp -r data there
printf '\377' | dd of=there/data/train-images-idx3-ubyte bs=1 seek=100 conv=notrunc 2>/dev/null
train="train $options --out new"
refuses 2 "another set of training images" pair "-wdir $PWD/here" "-wdir $PWD/there" "$train" "$train"
check "nothing is begun" [ ! -e here/new ]
rm -r there/data
refuses 3 "process 1: no data: 'data' is not there" pair "-wdir $PWD/here" "-wdir $PWD/there" "$train" "$train"
refuses 2 "another command line" pair "" "" "$train" "$train --lr 1"
refuses 2 "another instruction set" pair "" "env SDLORA_SIMD=$other" "$train" "$train"
train="$train --mixed-machines"
check "mixed machines" pair "" "env SDLORA_SIMD=$other" "$train" "$train"
check "and they learn" finite new/model.safetensors
refuses 2 "SDLORA_SIMD is 'none'" pair "" "env SDLORA_SIMD=none" "$train" "$train"
norm="--preset seed --image-size 8 --channels 4,8 --timesteps 20 --data data --batch-size 8 --steps 2 -q"
check "a model with BatchNorm" "$plain" train $norm --out norm >/dev/null
refuses 2 "takes its batch at once" ranks 2 train $norm --out norm.many
refuses 2 "unknown option '--nosuch'" ranks 3 train --nosuch
refuses 3 "no data: 'nowhere'" ranks 3 train --data nowhere --out nowhere.run

# ---- sample, eval ----

# drawn DIR COMMAND...: all kinds of pictures by this command
drawn() {
    local dir=$1 kind
    shift
    mkdir "$dir"
    for kind in "-n 11 --format idx -o $dir/set" "-n 5 --seed 3 --cfg-scale 2 --sampler ddpm -o $dir/guided.png" \
        "--lora lora --compare -n 2 -o $dir/compared.png" "--trajectory 4 -n 3 -o $dir/way.png" \
        "--interpolate seed:1:5 --class 1 -n 7 -o $dir/between.png" "--interpolate 0:2 -n 7 -o $dir/classes.png"; do
        check "sample $kind by $*" "$@" sample -m one/model.safetensors $kind -q >out.txt 2>err.txt
    done
    check "eval by $*" "$@" eval one/model.safetensors --data data -n 13 --no-cache --judge-epochs 1 -o figures -q >out.txt 2>err.txt
    mv figures "$dir"
}
drawn pictures "$plain"
for n in 2 3; do
    drawn pictures.$n "${launcher[@]}" -n $n "$SDLORA"
    check "the same by $n" diff -r pictures pictures.$n
done
refuses 2 "images depend on each other" ranks 2 sample -m norm/model.safetensors --bn batch -o no.png
check "info is said once" ranks 3 info one
check "once" [ "$(grep -c "^run 'one'" out.txt)" -eq 1 ]

finish
