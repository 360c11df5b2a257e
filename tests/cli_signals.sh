#!/usr/bin/env bash
# Signals, limits and closed streams. A signal is sent at chosen calls (tests/fault/shim.c), so nothing depends on time: 128 +
# signal means that the state is saved, and from wherever a run ended, --resume goes to the bytes of an undisturbed run.
. "$(dirname "$0")/lib_cli.sh"
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
        ! grep -q finishing err.txt || { grep -q 'stopped after step' err.txt && [ -z "$(find run -name '*.tmp')" ]; } ||
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
    ignored=$((0x$(sed -n 's/^SigIgn:[[:space:]]*//p' /proc/$$/status))) # as of a script's background job
    for signal in 'int 2' 'term 15' 'hup 1'; do
        if [ $((ignored >> (${signal#* } - 1) & 1)) -eq 1 ]; then
            echo "note: the parent ignores ${signal% *}, and so does the program: not sent"
            continue
        fi
        for ((k = 1 + i; k <= n; k += k < 16 ? 3 : n / 12)); do
            # shellcheck disable=SC2086
            bad=$(one $signal $k 2>&1)
            if [ -z "$bad" ]; then passed=$((passed + 1)); else fail "$bad"; fi
        done
        i=$((i + 1))
    done

    # the fourth write is the metrics' line of a step
    # once more: at once, not as if it had saved
    signalled "term@write:4+"
    check "a second SIGTERM ends with 1, not $?" test $? -eq 1
    check 'and says what that means' grep -q 'nothing is saved beyond the last checkpoint' err.txt
    check 'a run stopped at once' run run --resume
    check 'can be resumed' whole run
    # a closed session sends more than one
    if [ $((ignored & 1)) -eq 0 ]; then
        signalled "hup@write:4+"
        check "SIGHUP again and again ends with 129, not $?" test $? -eq 129
        check 'when all is saved' grep -q 'stopped after step' err.txt
    fi
    (trap '' HUP && signalled "hup@write:4+")
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
check 'also into a file' test $? -eq 1

# ---- 130 can only mean that a run was saved: a library must not end with it where memory is short ----
if [ -n "${FAULT_SHIM-}" ]; then # a sanitizer needs all addresses
    ended=" $(for ((kb = 30000; kb <= 100000; kb += 2500)); do
        (ulimit -v $kb && exec timeout 60 "$SDLORA" --version --verbose) >out.txt 2>&1
        status=$?
        echo $status
        [ $status -ne 130 ] || break
    done | sort -u | tr '\n' ' ')"
    check "no start under a memory limit ends with 130, but with$ended" test "${ended/ 130 /}" = "$ended"
    check 'some succeed' test "${ended/ 0 /}" != "$ended"
fi

# ---- closed standard streams: no file takes their numbers ----
T=calm/model.safetensors
"$SDLORA" finetune --model $T --data data --out tuned --rank 2 --batch-size 8 --steps 2 -q >out.txt 2>err.txt
"$SDLORA" sample --model $T -n 4 --steps 4 -o calm.png >out.txt 2>err.txt
tensors() { # x (1,1,8,8), t, y: zeros
    local header='{"x":{"dtype":"F32","shape":[1,1,8,8],"data_offsets":[0,256]},"t":{"dtype":"I64","shape":[1],"data_offsets":[256,264]},"y":{"dtype":"I64","shape":[1],"data_offsets":[264,272]}}'
    printf '%b' "$(printf '\\0%o' ${#header})\0\0\0\0\0\0\0"
    printf %s "$header"
    head -c 272 /dev/zero
}
tensors >input.safetensors
"$SDLORA" predict --model $T --input input.safetensors --output calm.eps >out.txt 2>err.txt
check 'files to compare with' test -s tuned/adapter_model.safetensors -a -s calm.png -a -s calm.eps

closed() { # closed IN OUT ERR ARGS...: 1: that stream is closed
    local in=$1 out=$2 err=$3
    shift 3
    (
        if [ "$in" = 1 ]; then exec <&-; else exec </dev/null; fi
        if [ "$out" = 1 ]; then exec >&-; else exec >out.txt; fi
        if [ "$err" = 1 ]; then exec 2>&-; else exec 2>err.txt; fi
        exec "$SDLORA" "$@"
    )
}
for streams in '0 0 1' '0 1 0' '0 1 1' '1 0 0' '1 0 1' '1 1 0' '1 1 1'; do
    rm -rf c c.png c.eps ct
    # shellcheck disable=SC2086
    {
        closed $streams train $SMALL --progress plain --data data --out c --steps 6 --sample-every 0 --lr-schedule constant
        check "closed $streams: train" test $? -eq 0
        closed $streams finetune --model $T --data data --out ct --rank 2 --batch-size 8 --steps 2
        check "closed $streams: finetune" test $? -eq 0
        closed $streams sample --model $T -n 4 --steps 4 -o c.png
        check "closed $streams: sample" test $? -eq 0
        closed $streams predict --model $T --input input.safetensors --output c.eps
        check "closed $streams: predict" test $? -eq 0
        closed $streams info $T
        check "closed $streams: info" test $? -eq 0
        closed $streams info nix
        check "closed $streams: info of nothing" test $? -eq 3
    }
    check "closed $streams: the model" whole c
    check "closed $streams: its metrics" test "$(grep -c '^{"step": .*}$' c/metrics.jsonl) $(wc -l <c/metrics.jsonl)" = '6 6'
    check "closed $streams: the adapter" cmp tuned/adapter_model.safetensors ct/adapter_model.safetensors
    check "closed $streams: the picture" cmp calm.png c.png
    check "closed $streams: the prediction" cmp calm.eps c.eps
done
for streams in '0 1 0' '1 1 0'; do
    # shellcheck disable=SC2086
    for what in 'sample -n 1 --steps 1 -o -' 'predict --input input.safetensors --output -'; do
        closed $streams $what --model $T
        check "$what: status 1, not $?" test $? -eq 1
        check 'and the reason' grep -q 'standard output is closed' err.txt
    done
done
"$SDLORA" sample --model $T -n 1 --steps 1 -o - >/dev/null 2>err.txt
check '/dev/null is not closed' test $? -eq 0
"$SDLORA" sample --model $T -n 1 --steps 1 -o - 1<>/dev/null 2>err.txt
check 'nor where it was opened for reading too' test $? -eq 0

finish
