#!/usr/bin/env bash
# Every call that a save makes fails once: write, fsync, rename, opening, memory (tests/fault/shim.c). The run ends with
# one sentence and status 1, what was there before is whole, and --resume goes on to the bytes of an undisturbed run.
# Of the many writes and allocations only a part is tried; FAULTS=all tries each one.
. "$(dirname "$0")/lib_cli.sh"
if [ -z "${FAULT_SHIM-}" ]; then
    echo 'skipped: FAULT_SHIM names no library (the sanitizers have an allocator of their own)'
    finish
    exit
fi
export OMP_NUM_THREADS=1
best() { sed -n 's/.*"checkpoint": "\([^"]*\)".*/\1/p' "$1/checkpoints/best.json"; }
idx_data data train 40
idx_data data t10k 6

# Step 10 ends an epoch: result, validation, metrics, checkpoint, a new best one, and the removal of two older ones, the
# best and the last of before, all belong to it.
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out begun --steps 9 --save-every 1s --sample-every 0 --lr-schedule constant -q \
    >out.txt 2>err.txt
# as if step 8 had been the better one
printf '{"checkpoint": "ckpt-00000008", "step": 8, "val_loss": 100}' >begun/checkpoints/best.json
ln -sfn ckpt-00000008 begun/checkpoints/best
cp -r begun after
"$SDLORA" train --resume --data data --out after --steps 10 --keep 1 --threads 1 -q >out.txt 2>err.txt
cp -r after further
"$SDLORA" train --resume --data data --out further --steps 11 --threads 1 -q >out.txt 2>err.txt
check 'an undisturbed run' test -s further/checkpoints/ckpt-00000011/state.safetensors
check 'the best was replaced' test "$(best begun) $(best after)" = 'ckpt-00000008 ckpt-00000010'

faulty() { # faulty RUN ORDER COMMAND [STEPS]: one more step of a copy of the run, under the fault
    rm -rf run log
    cp -r "$1" run
    SDLORA_FAULT=$2 SDLORA_FAULT_LOG=log LD_PRELOAD=$FAULT_SHIM "$SDLORA" "$3" --resume --data data --out run --steps "${4:-10}" \
        --keep 1 --threads 1 -q >out.txt 2>err.txt </dev/null
}
total() { sed -n "s/^$1 //p" log; }

# Every file that counts is one of the two whole ones; at least one checkpoint is there.
whole_files() { # whole_files OLD NEW FILE...
    local old=$1 new=$2 file at found=
    shift 2
    for file; do
        cmp -s "run/$file" "$old/$file" || cmp -s "run/$file" "$new/$file" || { echo "run/$file is neither"; return 1; }
    done
    for at in run/checkpoints/ckpt-*[0-9]; do
        file=${at#run/}
        if [ -d "$old/$file" ]; then diff -rq "$at" "$old/$file" || return; else diff -rq "$at" "$new/$file" || return; fi
        found=1
    done
    [ -n "$found" ] || return
    if [ -e run/checkpoints/best.json ] && [ ! -d "run/checkpoints/$(best run)" ]; then
        echo "the best checkpoint, '$(best run)', is gone"
        return 1
    fi
}

# one ORDER: what must hold after one fault. In memory's case no file can always be named.
one() {
    local order=$1 status
    faulty begun "$order" train
    status=$?
    if ! grep -q '^hit' log; then
        [ $status -eq 0 ] || echo "$order: not reached, status $status"
    elif [ $status -eq 0 ]; then # an allocation that can do without: then all must be done
        [ "${order%:*}" = malloc ] && cmp -s run/model.safetensors after/model.safetensors ||
            echo "$order: status 0 in spite of it"
    elif [ $status -ne 1 ] || [ "$(wc -l <err.txt)" -ne 1 ] || ! grep -q '^sdlora: ' err.txt ||
        { [ "${order%:*}" != malloc ] && ! grep -q "'run/" err.txt; }; then
        echo "$order: status $status, $(cat err.txt)"
    fi
    whole_files begun after model.safetensors
    "$SDLORA" train --resume --data data --out run --steps 11 --keep 1 --threads 1 -q >out.txt 2>err.txt </dev/null ||
        echo "$order: cannot resume: $(cat err.txt)"
    cmp run/model.safetensors further/model.safetensors
    cmp run/checkpoints/ckpt-00000011/state.safetensors further/checkpoints/ckpt-00000011/state.safetensors
    [ -z "$(find run -name '*.tmp')" ] || echo "$order: leaves $(find run -name '*.tmp')"
}

each() { # each KIND EDGE STRIDE SUFFIX: the first and the last EDGE calls, and every STRIDE-th between them
    local kind=$1 edge=$2 stride=$3 suffix=${4-} n k tried=0 bad
    faulty begun count train
    n=$(total "$kind")
    [ -n "${FAULTS-}" ] && stride=1
    for ((k = 1; k <= n + 1; k++)); do
        [ $k -le "$edge" ] || [ $k -gt $((n - edge)) ] || [ $((k % stride)) -eq 0 ] || continue
        bad=$(one "$kind:$k$suffix" 2>&1)
        [ -z "$bad" ] || fail "$bad"
        tried=$((tried + 1))
    done
    check "no $kind to fail" test "$n" -gt 0
    echo "$kind${suffix:+ and all behind it}: $tried of $n calls"
    passed=$((passed + tried))
}
faulty begun count train
# the result, run.json, best.json, the checkpoint's two, each with its directory; the checkpoint and where it lies
check "12 times something is brought to the disk, not $(total fsync)" test "$(total fsync)" -eq 12
each fsync 99 1
each rename 99 1
each open 99 1
each write 4 41
each write 2 67 +
each malloc 2 509

# An adapter's two files.
# shellcheck disable=SC2086
"$SDLORA" finetune --model after/model.safetensors --data data --out tuned --rank 2 --batch-size 8 --steps 4 --threads 1 \
    --save-every 1s --sample-every 0 --lr-schedule constant -q >out.txt 2>err.txt
cp -r tuned tuned.after
"$SDLORA" finetune --resume --data data --out tuned.after --steps 5 --threads 1 -q >out.txt 2>err.txt
for kind in rename fsync open; do
    for k in 1 2 3 4 5 6 7 8; do
        faulty tuned $kind:$k finetune 5
        status=$?
        grep -q '^hit' log || continue
        check "adapter, $kind:$k: status $status" test $status -eq 1
        check "adapter, $kind:$k" whole_files tuned tuned.after adapter_model.safetensors adapter_config.json
    done
done

# A disk of 1 MB, and a model that fits on it once but not three times.
tiny_disk() {
    local status
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --channels 16,16 --time-dim 64 --data data --out disk --steps 1 --sample-every 0 -q \
        --lr-schedule constant >out.txt 2>err.txt
    check 'one step fits on the disk' test -s disk/model.safetensors
    cp -r disk disk.before
    "$SDLORA" train --resume --data data --out disk --steps 20 --save-every 1s --keep 9 --threads 1 -q \
        >out.txt 2>err.txt
    status=$?
    check "a full disk ends with 1, not $status" test $status -eq 1
    check 'in one sentence that names the file' grep -q "^sdlora: cannot write 'disk/.*No space left on device$" err.txt
    check 'and nothing else' test "$(wc -l <err.txt)" -eq 1
    check 'the first checkpoint is as it was' diff -r disk{.before,}/checkpoints/ckpt-00000001
    for file in disk/model.safetensors disk/checkpoints/ckpt-*[0-9]/*.safetensors; do
        expect 0 '' info "$file"
    done
    check 'no half file is left' test -z "$(find disk -name '*.tmp')"
    cp -r disk room
    check 'elsewhere it goes on' "$SDLORA" train --resume --data data --out room --steps 20 --threads 1 -q >out.txt
    "$SDLORA" train --resume --data data --out disk.before --steps 20 --threads 1 -q >out.txt 2>err.txt
    check 'to the same bytes' cmp room/model.safetensors disk.before/model.safetensors
}
mkdir disk
if mount -t tmpfs -o size=1m none disk 2>/dev/null; then
    tiny_disk
    umount disk
else
    echo 'no tmpfs: mounting is not permitted here'
fi

finish
