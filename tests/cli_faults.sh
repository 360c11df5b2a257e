#!/usr/bin/env bash
# shellcheck disable=SC2034 # variables that lib_fault.sh reads
# Every call by which the program reads and writes fails once: what was there before is whole, the program ends with one
# sentence (or has done all the same), and the same command again leaves the bytes of one that was never disturbed.
# Of the many writes and allocations only a part is tried; FAULTS=all tries each one. (cli_previous.sh has the runs that
# begin where there was one.)
. "$(dirname "$0")/lib_cli.sh"
. "$TESTS/lib_fault.sh"
best() { sed -n 's/.*"checkpoint": "\([^"]*\)".*/\1/p' "$1/checkpoints/best.json"; }
idx_data data train 40
idx_data data t10k 6

# Step 10 ends an epoch: result, validation, metrics, checkpoint, a new best one, and the removal of two older ones, the
# best and the last of before, all belong to it.
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out begun --steps 9 --save-every 1s --sample-every 0 --no-report --lr-schedule constant -q \
    >out.txt 2>err.txt
# as if step 8 had been the better one
printf '{"checkpoint": "ckpt-00000008", "step": 8, "val_loss": 100}' >begun/checkpoints/best.json
ln -sfn ckpt-00000008 begun/checkpoints/best
go_on() { "$SDLORA" "$1" --resume --data data --out "$2" --steps "$3" --keep 1 --threads 1 -q; }
cp -r begun after
go_on train after 10 >out.txt 2>err.txt
check 'an undisturbed run' test -s after/checkpoints/ckpt-00000010/state.safetensors
check 'the best was replaced' test "$(best begun) $(best after)" = 'ckpt-00000008 ckpt-00000010'

# ---- a step of training ----
scenario='a step of training'
status_ok='1 3'
prepare() { cp -r begun w; }
act() { go_on train w 10; }
table() { cut -d, -f1-5,7 "$1/metrics.csv"; } # without the speed
verify() {
    diff -r -x lock -x metrics.jsonl -x metrics.csv w after
    [ "$(sed 's/images_per_s.*//' w/metrics.jsonl)" = "$(sed 's/images_per_s.*//' after/metrics.jsonl)" ] ||
        echo "$1: other metrics"
    [ "$(table w)" = "$(table after)" ] || echo "$1: another table"
}
before_it() { # right after the fault, too: model and checkpoints are the old ones or the new ones
    local file at
    cmp -s w/model.safetensors begun/model.safetensors || cmp w/model.safetensors after/model.safetensors
    for at in w/checkpoints/ckpt-*[0-9]; do
        file=${at#w/}
        if [ -d "begun/$file" ]; then diff -rq "$at" "begun/$file"; else diff -rq "$at" "after/$file"; fi
    done
    [ ! -e w/checkpoints/best.json ] || [ -d "w/checkpoints/$(best w)" ] || echo "the best checkpoint, '$(best w)', is gone"
}
for order in rename:{1..9} fsync:{1..16} kill@rename:{1..9} kill@unlink:{1..9}; do
    faulty "$order" 2>/dev/null
    bad=$(before_it 2>&1)
    check "$order: $bad" test -z "$bad"
done
each fsync 99 1
each rename 99 1
each mkdir 99 1
each link 99 1
each unlink 99 1
each open 2 5
each read 2 7
each write 2 89
each write 1 211 +
each malloc 1 1511

# ---- a step of an adapter's ----
# shellcheck disable=SC2086
"$SDLORA" finetune --model after/model.safetensors --data data --out tuned --rank 2 --batch-size 8 --steps 4 --threads 1 \
    --save-every 1s --sample-every 0 --no-report --lr-schedule constant -q >out.txt 2>err.txt
cp -r tuned after.tuned
go_on finetune after.tuned 5 >out.txt 2>err.txt
scenario="a step of an adapter's"
prepare() { cp -r tuned w; }
act() { go_on finetune w 5; }
verify() { diff -r -x lock -x metrics.jsonl -x metrics.csv w after.tuned; }
each rename 99 1
each fsync 99 4
each open 1 7
each read 1 9
each write 1 29
each malloc 1 907

# ---- a picture, where there is one ----
scenario='a picture'
mkdir picture
"$SDLORA" sample --model begun/model.safetensors -n 1 --steps 2 -q -o picture/x.png >out.txt 2>err.txt
cp picture/x.png old.png
draw() { "$SDLORA" sample --model after/model.safetensors --lora=tuned -n 1 --steps 2 -q -o "$1"; }
draw new.png >out.txt
check 'the pictures differ' test "$(cmp old.png new.png | wc -l)" -eq 1
prepare() { cp -r picture w; }
act() { draw w/x.png >/dev/null; }
verify() { cmp w/x.png new.png; }
for kind in open read write fsync rename; do
    each $kind 99 1
    for k in 1 2 3; do # before the second try
        faulty $kind:$k
        cmp -s w/x.png old.png || check "$kind:$k: half a picture" cmp w/x.png new.png
        passed=$((passed + 1))
    done
done

# ---- a run's page, where there is one ----
scenario='a page'
prepare() { cp -r after w && echo '<!DOCTYPE html>
<!-- a run of sdlora -->' >w/report.html; }
act() { "$SDLORA" report w >/dev/null; }
shown() { sed 's/^<p class="soft foot">Written.*//; s/[0-9.]* MB//' "$1/report.html"; } # without when and how large
rm -rf w && prepare && act && shown w >page.html
check 'a page' grep -q '</html>' page.html
verify() { shown w | cmp - page.html; }
for kind in open read write fsync rename; do each $kind 99 1; done
each malloc 1 97

# ---- what the network says ----
scenario='a prediction'
safetensors() {
    local i n=${#1}
    for i in 0 8 16 24 32 40 48 56; do printf '%b' "$(printf '\\0%o' $(((n >> i) & 255)))"; done
    printf %s "$1"
    head -c "$2" /dev/zero
}
safetensors '{"x":{"dtype":"F32","shape":[1,1,8,8],"data_offsets":[0,256]},"t":{"dtype":"I64","shape":[1],"data_offsets":[256,264]},"y":{"dtype":"I64","shape":[1],"data_offsets":[264,272]}}' 272 >in.safetensors
say() { "$SDLORA" predict --model after/model.safetensors --input in.safetensors -q --output "$1" >/dev/null; }
say new.safetensors
prepare() { mkdir w && echo old >w/x; }
act() { say w/x; }
verify() { cmp w/x new.safetensors; }
for kind in open read write fsync rename; do each $kind 99 1; done

# A disk of 1 MB, and a model that fits on it once but not three times.
tiny_disk() {
    local status
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --channels 16,16 --time-dim 64 --data data --out disk/run --steps 1 --sample-every 0 --no-report -q \
        --lr-schedule constant >out.txt 2>err.txt
    check 'one step fits on the disk' test -s disk/run/model.safetensors
    cp -r disk/run disk.before
    "$SDLORA" train --resume --data data --out disk/run --steps 20 --save-every 1s --keep 9 --threads 1 -q \
        >out.txt 2>err.txt
    status=$?
    check "a full disk ends with 1, not $status" test $status -eq 1
    check 'in one sentence that names the file' grep -q "^sdlora: cannot write 'disk/.*No space left on device$" err.txt
    check 'and nothing else' test "$(wc -l <err.txt)" -eq 1
    check 'the first checkpoint is as it was' diff -r disk/run/checkpoints/ckpt-00000001 disk.before/checkpoints/ckpt-00000001
    for file in disk/run/model.safetensors disk/run/checkpoints/ckpt-*[0-9]/*.safetensors; do
        expect 0 '' info "$file"
    done
    check 'no half file is left' test -z "$(find disk -name '*.tmp')"
    cp -r disk/run room
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
