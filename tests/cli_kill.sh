#!/usr/bin/env bash
# SIGKILL, again and again: a run that is killed at pseudo-random calls (in the middle of a write, before a rename, ...) and
# resumed each time, with another number of threads, until it is done, leaves the bytes of a run that was never disturbed.
# KILLS: how many (5). Where the shim cannot be loaded (sanitizers), the run is killed from outside when its metrics reach
# a chosen step.
. "$(dirname "$0")/lib_cli.sh"
kills=${KILLS:-5}
steps=$((kills * 4))
idx_data data train 40
idx_data data t10k 6

state=${KILL_SEED:-1}
random() { # random N: 1..N into $drawn, the same sequence everywhere (Park and Miller 1988)
    state=$((state * 48271 % 2147483647))
    drawn=$((state / 7 % $1 + 1))
}

run() { # run COMMAND OUT ARGS...: replaces this shell, so call it in one of its own
    local command=$1 out=$2
    shift 2
    exec "$SDLORA" "$command" "${options[@]}" --data data --out "$out" --steps $steps --save-every 1s --sample-every 0 \
        --log-every 1 -q "$@" >out.txt 2>err.txt </dev/null
}
whole_run() { (run "$@"); }

kill_inside() { # at the n-th of the calls that files need
    (
        export SDLORA_FAULT=kill@any:$1 LD_PRELOAD=$FAULT_SHIM
        run "${@:2}"
    ) &
    wait $! 2>/dev/null
}

kill_outside() { # when there are some lines of metrics more; bounded, in case the run ends before
    local lines=$(($(lines_of "$3") + $1 % 3 + 1)) pid i
    run "${@:2}" &
    pid=$!
    for ((i = 0; i < 200000; i++)); do
        if [ "$(lines_of "$3")" -ge $lines ] || ! kill -0 $pid 2>/dev/null; then break; fi
    done
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
}
lines_of() { if [ -s "$1/metrics.jsonl" ]; then wc -l <"$1/metrics.jsonl"; else echo 0; fi; }

# images_per_s is the one number that is a clock's
metrics() { sed 's/"images_per_s": [0-9.]*/"images_per_s": 0/' "$1/metrics.jsonl"; }
last() { echo "$1/checkpoints/ckpt-$(printf %08d $steps)/state.safetensors"; }

loop() { # loop COMMAND CALLS FILE...
    local command=$1 calls=$2 i status file killed=0
    shift 2
    check "$command, undisturbed" whole_run "$command" "$command.calm" --threads 1
    for ((i = 0; i < kills; i++)); do
        random "$calls"
        if [ -n "${FAULT_SHIM-}" ]; then
            kill_inside "$drawn" "$command" "$command.killed" --resume --threads $((i % 2 + 1))
        else
            kill_outside "$drawn" "$command" "$command.killed" --resume --threads $((i % 2 + 1))
        fi
        status=$?
        if [ $status -eq 137 ]; then
            killed=$((killed + 1))
        elif [ $status -ne 0 ]; then
            fail "$command, kill $i at call $drawn: status $status, $(cat err.txt)"
        fi
        for file in "$command.killed/$1" "$command.killed"/checkpoints/ckpt-*[0-9]/*.safetensors; do
            [ -e "$file" ] || continue
            "$SDLORA" info "$file" >info.txt 2>&1 || fail "$command, kill $i at call $drawn: $(cat info.txt)"
        done
    done
    check "$command, resumed to its end after $killed kills" whole_run "$command" "$command.killed" --resume --threads 2
    check "$command was killed at all" test $killed -gt $((kills / 2))
    for file; do
        check "$command, $file after $killed kills" cmp "$command.calm/$file" "$command.killed/$file"
    done
    check "$command, state after $killed kills" cmp "$(last "$command.calm")" "$(last "$command.killed")"
    check "$command, metrics after $killed kills" test "$(metrics "$command.calm")" = "$(metrics "$command.killed")"
    check "$command, nothing half done is left" test -z "$(find "$command.killed" -name '*.tmp')"
    echo "$command: $killed kills"
}

# shellcheck disable=SC2206
options=($SMALL)
loop train 1700 model.safetensors # some three steps of such calls
options=(--model train.calm/model.safetensors --rank 2 --batch-size 8)
loop finetune 400 adapter_model.safetensors adapter_config.json

# ---- checkpoints that something else damaged ----
mkdir train.killed/checkpoints/ckpt-99999998 # no state at all
cp -r train.killed/checkpoints/ckpt-"$(printf %08d $steps)" train.killed/checkpoints/ckpt-99999999
head -c 3000 "$(last train.killed)" >train.killed/checkpoints/ckpt-99999999/state.safetensors
cp -r train.killed damaged
expect 0 "last step ($steps of $steps)" train --resume --data data --out train.killed --steps $steps
rm -r "damaged/checkpoints/ckpt-$(printf %08d $((steps - 1)))" "damaged/checkpoints/ckpt-$(printf %08d $steps)"
refuse 3 'ckpt-99999999/state.safetensors' train --resume --data data --out damaged --steps 1000 -q
check 'where none is whole, nothing begins anew' cmp damaged/model.safetensors train.calm/model.safetensors
check 'nothing is removed' test -d damaged/checkpoints/ckpt-99999998

finish
