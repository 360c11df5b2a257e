#!/usr/bin/env bash
# Signals, limits and closed streams. A signal is sent at chosen calls (tests/fault/shim.c), so nothing depends on time: 128 +
# signal means that the state is saved, and from wherever a run ended, --resume goes to the bytes of an undisturbed run.
. "$(dirname "$0")/lib_cli.sh"
export OMP_NUM_THREADS=1
idx_data data train 24
idx_data data t10k 6

run() { # run OUT ARGS...: six steps, two epochs
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --data data --out "$1" --steps 6 --save-every 0 --sample-every 0 --lr-schedule constant "${@:2}" \
        >out.txt 2>err.txt </dev/null
}
whole() { cmp calm/model.safetensors "$1/model.safetensors" && cmp {calm,"$1"}/checkpoints/ckpt-00000006/state.safetensors; }
last_step() { sed -n '$s/.*"step": \([0-9]*\).*/\1/p' "$1/metrics.jsonl" 2>/dev/null; }
check 'an undisturbed run' run calm

# ---- a signal, at any call ----
signalled() { # signalled ORDER: the status, of a run that is there anew
    rm -rf run log
    SDLORA_FAULT=$1 SDLORA_FAULT_LOG=$WORK/log LD_PRELOAD=$FAULT_SHIM run run
}
one() { # one NAME NUMBER K
    local order=$1@any:$3 status step
    signalled "$order"
    status=$?
    step=$(last_step run)
    case $status in
    0) grep -q finishing err.txt && whole run || echo "$order: not whole, or no signal" ;;
    $((128 + $2)))
        [ -z "$step" ] || [ -s "$(printf 'run/checkpoints/ckpt-%08d/state.safetensors' "$step")" ] ||
            echo "$order: status $status, but step $step is not saved"
        ! grep -q finishing err.txt || { grep -q 'stopped behind step' err.txt && [ -z "$(find run -name '*.tmp')" ]; } ||
            echo "$order: $(cat err.txt)"
        ;;
    *) echo "$order: status $status" ;;
    esac
    grep -q '^hit' log || echo "$order: no such call"
    run run --resume && whole run || echo "$order: $(cat err.txt)"
}
if [ -n "${FAULT_SHIM-}" ]; then
    signalled count
    n=$(sed -n 's/^any //p' log)
    check 'calls to send signals at' test "$n" -gt 100
    i=0
    for signal in 'int 2' 'term 15' 'hup 1'; do
        for ((k = 1 + i; k <= n; k += k < 16 ? 3 : n / 12)); do
            # shellcheck disable=SC2086
            bad=$(one $signal $k 2>&1)
            if [ -z "$bad" ]; then passed=$((passed + 1)); else fail "$bad"; fi
        done
        i=$((i + 1))
    done

    # the twelfth call is one of the second step
    # once more: at once, not as if it had saved
    signalled "term@any:12+"
    check "a second SIGTERM ends with 1, not $?" test $? -eq 1
    check 'and says what that means' grep -q 'nothing is saved beyond the last checkpoint' err.txt
    check 'a run stopped at once' run run --resume
    check 'can be resumed' whole run
    # a closed session sends more than one
    signalled "hup@any:12+"
    check "SIGHUP again and again ends with 129, not $?" test $? -eq 129
    check 'when all is saved' grep -q 'stopped behind step' err.txt
    (trap '' HUP && signalled "hup@any:12+")
    check 'what nohup ignores stays ignored' whole run
else
    echo 'note: FAULT_SHIM names no library: no signals were sent'
fi

# ---- nobody reads the messages any more ----
mkfifo pipe
: <pipe &
exec 9>pipe
wait $!
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --progress plain --data data --out unread --steps 6 --sample-every 0 --lr-schedule constant \
    >out.txt 2>&9 </dev/null
check "a run that nobody watches ends with 0, not $?" test $? -eq 0
check 'and is whole' whole unread
exec 9>&-

# ---- files that may not grow ----
(ulimit -f 16 && run limited) 2>/dev/null
check "a file size limit ends with 1, not $?" test $? -eq 1
check 'and names the file' grep -q "^sdlora: cannot write 'limited/.*: File too large" err.txt
check 'of which nothing is left' test -z "$(find limited -name '*.tmp')"
(ulimit -f 0 && "$SDLORA" --help >help.txt 2>/dev/null)
check 'also behind a redirection' test $? -eq 1

finish
