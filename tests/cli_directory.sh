#!/usr/bin/env bash
# A user's directory: what a run may take, and what of the user's it leaves alone. (cli_previous.sh has the set-aside under
# faults.)
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
list() { find "$1" -mindepth 1 ! -path '*/lock' ! -path './*.txt' -printf '%P %y %l %m ' \( -type f -exec cksum {} \; -o -print \) | sort; }
train() { # train OUT ARGS...
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --data data --out "$1" --sample-every 0 --lr-schedule constant "${@:2}" >out.txt 2>err.txt </dev/null
}
tune() {
    "$SDLORA" finetune --data data --rank 2 --batch-size 8 --sample-every 0 --progress none --threads 1 "$@" \
        >out.txt 2>err.txt </dev/null
}
refused() { # refused DIR TEXT COMMAND...: the command fails with one sentence, DIR is as it was
    local dir=$1 text=$2 before status
    before=$(list "$dir")
    "${@:3}"
    status=$?
    [ $status -ne 0 ] || fail "'${*:3}' ended with 0"
    grep -qF -- "$text" err.txt && [ "$(grep -c '^sdlora: ' err.txt)" -eq 1 ] || fail "'${*:3}' says: $(cat err.txt)"
    check "'${*:3}' changes nothing" test "$before" = "$(list "$dir")"
}
plain() { sed 's/"images_per_s": [0-9.]*/"images_per_s": 0/' "$1/metrics.jsonl"; }
steps() { grep -o '"step": [0-9]*' "$1/metrics.jsonl" | tr -dc '0-9\n' | tr '\n' ' '; }

# ---- a directory is not ours because it was named ----
mkdir home home/x.tmp home/samples home/checkpoints home/keep.tmp
echo letter >home/keep.tmp/letter
echo precious >target
ln -s ../target home/lock
for file in run.json metrics.jsonl adapter_config.json model.safetensors samples/cat.png best.tmp; do echo "my $file" >home/$file; done
refused home 'is not empty' train home --steps 1
refused home 'is not empty' tune --model nix --out home --steps 1
refused . 'is not empty' train . --steps 1
check 'what a link points to' test "$(cat target)" = precious
for file in lock run.json metrics.jsonl model.safetensors notes.txt .hidden; do
    mkdir one && echo mine >one/$file
    refused one 'is not empty' train one --steps 1
    refused one 'is not empty' train one --steps 1 --resume
    rm -r one
done
mkdir one && echo '{"name": "another tool", "options": {}, "command": "train"}' >one/run.json
refused one 'is not empty' train one --steps 1
rm -r one
refused data 'is not empty' train data --steps 1
refused . 'is not a directory' train target --steps 1
mkdir empty && ln -s empty link
check 'an empty directory, by way of a link' train link --steps 1
check 'is taken' test -s empty/model.safetensors

# ---- inside, nothing through a link; files that we did not make stay ----
train run --steps 10 --save-every 5s
cp -r run linked && mv linked/samples linked/moved 2>/dev/null
for part in lock model.safetensors metrics.jsonl checkpoints run.json; do
    rm -rf linked elsewhere && cp -r run linked && mv linked/$part elsewhere && ln -s ../elsewhere linked/$part
    before=$(list . | grep elsewhere)
    train linked --steps 2
    status=$?
    check "$part is a link: $(cat err.txt)" test $status -ne 0
    train linked --steps 12 --resume
    check "$part is a link, resumed" test $? -ne 0
    check "$part is a link: what it points to" test "$before" = "$(list . | grep elsewhere)"
done
rm -rf linked elsewhere
cp -r run mine
mkdir mine/notes mine/checkpoints/old.tmp
echo note | tee mine/a.tmp mine/notes/x.tmp mine/checkpoints/old.tmp/x mine/checkpoints/ckpt-00000005/why.txt mine/lora.txt >/dev/null
check 'files of the user in a run' train mine --steps 25 --resume --save-every 5s --keep 1
check 'stay' test "$(cat mine/a.tmp mine/notes/x.tmp mine/checkpoints/old.tmp/x mine/checkpoints/ckpt-00000005/why.txt mine/lora.txt | sort -u)" = note
check 'and the checkpoint with them' cmp mine/checkpoints/ckpt-00000005/state.safetensors run/checkpoints/ckpt-00000005/state.safetensors
check 'the others go' test ! -e mine/checkpoints/ckpt-00000010 -a ! -e mine/checkpoints/ckpt-00000015
check 'a new run there' train mine --steps 1
check 'leaves them too' test "$(cat mine/a.tmp mine/notes/x.tmp mine/lora.txt mine/previous-1/checkpoints/ckpt-00000005/why.txt | sort -u)" = note

# ---- reruns ----
cp -r run again
for i in 1 2 3; do
    check "rerun $i" train again --steps $i --seed $i
done
check 'the first model' diff -r -x lock -x about.txt run again/previous-1
check 'the second' test "$(steps again/previous-2)" = '1 '
check 'the third' test "$(steps again/previous-3)" = '1 2 '
check 'what they are' grep -q '^sdlora train, 10 steps, validation loss [0-9.]*, of 20..-..-.. ..:..$' again/previous-1/about.txt
check 'is said' grep -q "again/previous-3': sdlora train, 2 steps" err.txt
rm -r again/checkpoints again/model.safetensors
: >again/metrics.jsonl # as a run that was stopped before its first step
check 'after a run without a step' train again --steps 1
check 'nothing is set aside' test ! -e again/previous-4
check 'an earlier one can be resumed' train again/previous-1 --steps 12 --resume
check 'to its bytes' train run.12 --steps 10 --save-every 5s
train run.12 --steps 12 --resume
check 'as it was' cmp again/previous-1/model.safetensors run.12/model.safetensors

# ---- what a command reads is not moved ----
cp -r run base
refused base "holds a run of 'sdlora train'" tune --model base/model.safetensors --out base --steps 1
check 'an adapter' tune --model base/model.safetensors --out base/lora --steps 3 --lr-schedule constant
refused base "holds a run of 'sdlora finetune'" train base/lora --steps 1
cp -r base/lora tuned
cp base/model.safetensors tuned/checkpoints/base.safetensors
refused tuned 'which a new run there would move away' tune --model tuned/checkpoints/base.safetensors --out tuned --steps 1
ln -s tuned/checkpoints/base.safetensors alias
refused tuned 'which a new run there would move away' tune --model alias --out tuned --steps 1
cp -r data run/samples.data && cp -r run moving && mkdir moving/samples && cp data/* moving/samples
refused moving 'which a new run there would move away' "$SDLORA" train --preset tiny --data moving/samples --out moving \
    --batch-size 8 --steps 1 2>err.txt
# a base that is gone or another while the adapter is trained: previews are drawn with it
cp run/model.safetensors base.safetensors
"$SDLORA" finetune --model base.safetensors --data data --out gone --rank 2 --batch-size 8 --steps 20 --lr-schedule constant \
    --sample-every 1 --log-every 1 --progress none --threads 1 >out.txt 2>err.txt &
pid=$!
for _ in $(seq 3000); do [ -s gone/metrics.jsonl ] && break; sleep 0.01; done
rm -f base.safetensors
wait $pid
check 'a base that is gone ends no training' test $? -eq 0
cp run/model.safetensors base.safetensors
check 'the same' tune --model base.safetensors --out there --steps 20 --lr-schedule constant --sample-every 1
check 'pictures' diff -r gone/samples there/samples
check 'adapters' cmp gone/adapter_model.safetensors there/adapter_model.safetensors

# ---- copies ----
cp -rL run copy
check 'a copy without links' train copy --resume --steps 12
check 'goes on to the same bytes' cmp copy/model.safetensors run.12/model.safetensors
check 'and has its link again' test -L copy/checkpoints/best -o ! -e copy/checkpoints/best
rm -rf copy && cp -r run copy && rm copy/checkpoints/best
check 'a copy that lost them' train copy --resume best --steps 12
check 'knows its best' test -L copy/checkpoints/best

# ---- metrics that somebody edited ----
broken() { # broken WHAT SCRIPT: all 12 steps are there after resuming
    rm -rf broken && cp -r run broken
    sh -c "cd broken && $2"
    check "$1" train broken --resume --steps 12
    check "$1: every step once, but: $(steps broken)" test "$(steps broken)" = '1 2 3 4 5 6 7 8 9 10 11 12 '
}
broken 'garbage' "sed -i '3i garbage {' metrics.jsonl"
check 'which stays' grep -q '^garbage {$' broken/metrics.jsonl
broken 'a blank line' "sed -i '1i\\\\' metrics.jsonl"
broken 'a byte order mark' "printf '\\357\\273\\277' | cat - metrics.jsonl >x; mv x metrics.jsonl"
broken 'no last newline' "head -c -1 metrics.jsonl >x; mv x metrics.jsonl"
broken 'half a line' "printf '{\"step\": 11, \"ep' >>metrics.jsonl"
broken 'steps of the future' "printf '{\"step\": 11}\\n{\"step\": 12}\\n' >>metrics.jsonl"

# ---- states and results that are not what they seem ----
cp -r run junk && echo junk >junk/model.safetensors
check 'a finished run' train junk --resume --steps 10
check 'writes its model again' cmp junk/model.safetensors run/model.safetensors
check 'and keeps what was there' test "$(cat junk/previous-1/model.safetensors)" = junk
rm junk/model.safetensors
check 'also one that is missing' train junk --resume --steps 10
check 'is there again' cmp junk/model.safetensors run/model.safetensors
cp -r run renamed && mv renamed/checkpoints/ckpt-000000{10,20}
refused renamed 'holds the state of step 10' train renamed --resume --steps 30
cp -r data other && printf '\002' | dd of=other/t10k-labels-idx1-ubyte bs=1 seek=8 conv=notrunc 2>/dev/null
refused run val_sha256 "$SDLORA" train --resume --data other --out run --steps 12 -q 2>err.txt

# ---- two at once ----
draw() { "$SDLORA" sample --model run/model.safetensors -n 4 --steps "$1" --seed "$1" -q -o same.png >/dev/null 2>>errors; }
: >errors
echo mine >same.png.tmp
for seed in 2 3; do draw $seed && cp same.png same.$seed; done
for round in 1 2 3 4 5 6 7 8 9 10; do
    draw 2 &
    draw 3 &
    wait -n && wait -n || echo "round $round fails" >>errors
    cmp -s same.png same.2 || cmp same.png same.3 2>>errors
done
check "one output, written twice at once: $(head -3 errors)" test ! -s errors
check "the user's same.png.tmp" test "$(cat same.png.tmp)" = mine

# ---- modes ----
cp -r run private && chmod 600 private/model.safetensors private/checkpoints/best.json
check 'a private model' train private --resume --steps 15
check 'stays private' test "$(stat -c %a private/model.safetensors private/checkpoints/best.json | sort -u)" = 600

finish
