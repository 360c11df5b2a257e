#!/usr/bin/env bash
# `list`: the runs there are, a line each, whatever is wrong with some of them.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6

expect 0 "there is no run in 'runs'" list
check 'and nothing is said to machines' test ! -s out.txt
refuse 3 "'nix' is not there" list nix
refuse 3 'not a directory' list data/train-labels-idx1-ubyte
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out runs/b --epochs 2 --sample-every 0 >out.txt 2>err.txt || fail 'no model'
"$SDLORA" finetune --model runs/b/model.safetensors --data data --steps 4 --batch-size 8 --progress none --sample-every 0 \
    --out runs/b/lora >out.txt 2>err.txt || fail 'no adapter'
line() { # line NAME CELL...: its line, whatever the columns' widths
    local name=$1
    shift
    check "$name: $*, not $(grep "^$name " list.txt)" test "$(grep "^$name " list.txt | tr -s ' ')" = "$name $*"
}
list() { "$SDLORA" list "$@" >list.txt 2>err.txt || fail "list $*: $(cat err.txt)"; }
loss() { printf '%.4f' "$(sed -n 's/.*"val_loss": \([0-9.e+-]*\).*/\1/p' "$1/metrics.jsonl" | $2 | head -n 1)"; }
kb() { echo "$((($(find "$1" -type f -printf '%s\n' | awk '{ n += $1 } END { print n }') + 500) / 1000)) KB"; }

list
check 'a heading and a line each' test "$(wc -l <list.txt)" -eq 3
line runs/b "train tiny data 10/10 $(loss runs/b tac) $(loss runs/b 'sort -g') finished $(kb runs/b)"
line runs/b/lora "finetune b data 4/4 $(loss runs/b/lora tac) $(loss runs/b/lora 'sort -g') finished $(kb runs/b/lora)"

# the order of names, and what is none or no more a run
cp -r runs/b runs/a
sed -i '$d' runs/a/metrics.jsonl && rm -r runs/a/checkpoints/ckpt-00000010 runs/a/lora
sed -i 's/"data": "data"/"data": "some\/where\/digits\/"/' runs/a/run.json
cp -r runs/a runs/c && echo '{"sdlora' >runs/c/run.json
cp -r runs/a runs/d && rm runs/d/run.json
mkdir -p runs/e runs/nothing && echo '{"sdlora": "0", "command": "train", "options": {}}' >runs/e/run.json
mkdir -p runs/1/2/3/4 && cp runs/a/run.json runs/1/2/3/4/run.json # the fourth level; and the next is too deep:
mkdir -p runs/1/2/3/4/5 && cp runs/a/run.json runs/1/2/3/4/5/run.json
mkdir -p runs/.hidden && cp runs/a/run.json runs/.hidden/run.json
ln -s ../runs runs/link && ln -s b runs/other
mkdir runs/f && ln -s ../a/run.json runs/f/run.json
list
check "sorted, through no link: $(tail -n +2 list.txt | cut -d' ' -f1 | tr '\n' ' ')" \
    test "$(tail -n +2 list.txt | cut -d' ' -f1 | tr '\n' ' ')" = 'runs/1/2/3/4 runs/a runs/b runs/b/lora runs/c runs/d runs/e '
steps=$(sed -n 's/.*"step": \([0-9]*\).*/\1/p' runs/a/metrics.jsonl | tail -n 1)
check 'a stopped one' grep -q "^runs/a  *train .* digits  *$steps/10 .* stopped " list.txt
check 'a damaged run.json' grep -q "^runs/c  *damaged: 'runs/c/run.json' is damaged" list.txt
check 'a missing one' grep -q '^runs/d  *damaged: run.json is missing$' list.txt
check 'one that has only begun' grep -q '^runs/e  *train .* 0/? *- *- *unknown ' list.txt
check 'columns stand under each other' awk 'NR == 1 { at = index($0, "state") }
    NR > 1 && !/damaged/ && substr($0, at) !~ /^(unknown|stopped|finished) / { exit 1 }' list.txt
flock runs/a/lock "$SDLORA" list >list.txt
check 'one that runs' grep -q '^runs/a .* running ' list.txt
if [ "$(id -u)" -ne 0 ]; then
    mkdir runs/locked && chmod 0 runs/locked
    list
    check 'one that cannot be read' grep -q '^runs/locked  *damaged: Permission denied$' list.txt
    chmod 755 runs/locked
fi

# other places
list runs/b
check 'a run itself, and what is in it' test "$(tail -n +2 list.txt | cut -d' ' -f1 | tr '\n' ' ')" = 'runs/b runs/b/lora '
(cd runs && list . && mv list.txt ..)
check 'names from here' grep -q '^b/lora ' list.txt
list runs/other
check 'a link that was named' grep -q '^runs/other/lora ' list.txt

# the earlier run of a directory is one of its own
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out runs/b --steps 3 --sample-every 0 >out.txt 2>err.txt
list runs/b
check 'what was set aside' grep -q '^runs/b/previous-1 .* 10/10 .* finished ' list.txt
check 'and what is there now' grep -q '^runs/b  .* 3/3 .* finished ' list.txt

# names that speak to the terminal, and machines
odd=$(printf 'runs/\033[31mred')
cp -r runs/a "$odd"
sed -i 's/some\/where\/digits/\\u001b]0;t\\u0007\\u202e/' "$odd/run.json"
list
check 'an odd name' grep -q '^runs/.x1b.31mred ' list.txt
check 'does not speak to the terminal' test -z "$(LC_ALL=C tr -dc '\033\007' <list.txt)"
list --json
check 'as JSON' test "$(grep -c '"state"' list.txt)" -eq "$(grep -c '"command"' list.txt)" -a "$(grep -c '"damaged"' list.txt)" -eq 2
check 'in ASCII' test -z "$(LC_ALL=C tr -d '\n -~' <list.txt)"
rm -r runs
list --json
check 'none' test "$(tr -d ' \n' <list.txt)" = '{"runs":[]}'

finish
