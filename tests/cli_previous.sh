#!/usr/bin/env bash
# shellcheck disable=SC2034 # variables that lib_fault.sh reads
# A run that begins where there was one: what was there is set aside whole, whichever call fails and wherever the program is
# killed, and the same command again goes on as if nothing had happened.
. "$(dirname "$0")/lib_cli.sh"
. "$TESTS/lib_fault.sh"
idx_data data train 40
idx_data data t10k 6
# shellcheck disable=SC2086
train() { "$SDLORA" train $SMALL --data data --lr-schedule constant --no-report -q "$@"; }
train --out old --steps 10 --save-every 2s --keep 3 >out.txt 2>err.txt
train --out other --steps 6 --save-every 2s --seed 3 --sample-every 0 >out.txt 2>err.txt
mkdir old/tensorboard old/eval && echo events >old/tensorboard/events.out.tfevents.1 && echo '{}' >old/eval/eval.json
"$SDLORA" report old >out.txt 2>err.txt
check 'two runs' test -s old/checkpoints/ckpt-00000010/state.safetensors -a -s other/checkpoints/ckpt-00000006/state.safetensors
check 'the old one has its best, not last, checkpoint' test -d old/checkpoints/ckpt-00000010

plain() { sed 's/"images_per_s": [0-9.]*/"images_per_s": 0/' "$1"; }
# whole DIR: DIR or a previous one in it is the old run, with everything that a run leaves
whole() {
    local at
    for at in "$1" "$1"/previous-*; do
        diff -r -x lock -x about.txt -x 'previous-*' -x '.sdlora-*' "$at" old >/dev/null 2>&1 && return
    done
    echo "the old run is nowhere whole: $(diff -r -x lock "$1" old | head -5)"
    ls -a "$1" "$1"/previous-* 2>/dev/null
}
scenario_files() { # EXPECTED: w is that run, apart from its lock and what was set aside
    diff -r -x lock -x 'previous-*' -x metrics.jsonl -x metrics.csv w "$1" || return
    [ "$(plain w/metrics.jsonl)" = "$(plain "$1/metrics.jsonl")" ] || echo 'other metrics'
    [ "$(cut -d, -f1-5,7 w/metrics.csv)" = "$(cut -d, -f1-5,7 "$1/metrics.csv")" ] || echo 'another table'
}
all_kinds() {
    local kind
    for kind in rename mkdir link unlink; do
        each $kind 99 1
        each kill@$kind 99 1
    done
    each fsync 2 5
    each kill@fsync 1 3
    each open 1 6
    each read 1 6
    each write 1 97
    each kill@write 1 97
    each malloc 1 2503
}
# At each kind of fault, before the second try, the old run is whole: as it was, or set aside; or it is put back
# together by the next command, which the second try is.
scenario='a new run'
train --out new --steps 2 --seed 5 >out.txt 2>err.txt
prepare() { cp -r old w; }
act() { train --out w --steps 2 --seed 5; }
verify() { whole w; scenario_files new; }
all_kinds

# a new run that was killed while it set the old one aside, and then the old one is to go on
cp -r old on && train --resume --out on --steps 12 >out.txt 2>err.txt
for k in 3 5 7; do
    faulty kill@rename:$k 2>/dev/null
    check "kill@rename:$k, a set-aside is under way" test -d w/.sdlora-previous.tmp
    train --resume --out w --steps 12 >out.txt 2>err.txt
    check "kill@rename:$k, resumed: $(cat err.txt)" cmp w/model.safetensors on/model.safetensors
    check "kill@rename:$k, nothing is set aside" test ! -e w/previous-1
done

scenario='back to an earlier checkpoint'
prepare() { cp -r old w; }
act() { train --resume w/checkpoints/ckpt-00000008 --steps 9; }
rm -rf w && cp -r old w && act >out.txt 2>err.txt
rm -rf back && cp -r w back && rm -rf back/previous-*
check 'its events stay, its page goes with what it showed' test -s back/tensorboard/events.out.tfevents.1 -a ! -e back/report.html
check 'it went on there' test "$(grep -o '"step": [0-9]*' back/metrics.jsonl | tr -dc '0-9\n' | tr '\n' ' ')" = '1 2 3 4 5 6 7 8 9 '
verify() { # what lay ahead of the checkpoint: in one of the places
    local found at
    for at in w w/previous-*; do
        diff -rq "$at/checkpoints/ckpt-00000010" old/checkpoints/ckpt-00000010 >/dev/null 2>&1 &&
            cmp -s "$at/model.safetensors" old/model.safetensors && cmp -s "$at/metrics.jsonl" old/metrics.jsonl && found=1
    done
    [ -n "${found-}" ] || echo "what lay ahead is lost: $(ls -a w w/previous-*)"
    scenario_files back
}
all_kinds

scenario="from another run's checkpoint"
prepare() { cp -r old w; }
act() { train --resume other --out w --steps 8; }
cp -r other straight && train --resume straight --steps 8 >out.txt 2>err.txt
rm -rf w && prepare && act >out.txt 2>err.txt
check 'to the bytes of the run that goes on' cmp w/model.safetensors straight/model.safetensors
check 'with its metrics' test "$(plain w/metrics.jsonl)" = "$(plain straight/metrics.jsonl)"
rm -rf imported && cp -r w imported && rm -rf imported/previous-*
verify() { whole w; scenario_files imported; }
all_kinds

finish
