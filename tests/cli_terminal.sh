#!/usr/bin/env bash
# What people see: the progress line, the pictures between, text out of files.
. "$(dirname "$0")/lib_cli.sh"

six_classes() { # six_classes SPLIT N: as many as a row of pictures needs
    idx_data data "$1" "$2"
    {
        printf '\000\000\010\001'
        be32 "$2"
        for ((i = 0; i < $2; i++)); do printf '%b' "\\0$((i % 6))"; done
    } >"data/$1-labels-idx1-ubyte"
}
six_classes train 48
six_classes t10k 6

# ---- the loss is near the current one from the first line on: keep min(0.98, (1+k)/(10+k)) of the mean of k steps ----
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --progress plain --data data --out run --steps 20 --sample-every 0 >out.txt 2>err.txt
shown=$(sed -n 's/^step .*loss \([0-9.]*\) .*/\1/p' err.txt | tail -n 1)
formula=$(sed 's/.*"loss": \([0-9.e+-]*\).*/\1/' run/metrics.jsonl | awk '
    { k = NR - 1; keep = (1 + k) / (10 + k); if (keep > 0.98) keep = 0.98; mean = k ? keep * mean + (1 - keep) * $1 : $1 }
    END { if (NR == 20) print mean }')
check "the loss shown, '$shown', is the mean of the metrics, '$formula'" \
    awk -v a="$shown" -v b="$formula" 'BEGIN { exit !(a != "" && b != "" && a - b < 6e-5 && b - a < 6e-5) }'

# ---- a colour terminal ----
# What stays on the screen: of each line, what follows its last return to the first column.
screen() { sed 's/\r*$//; s/.*\r//; s/\x1b\[K//g'; }
if command -v script >/dev/null; then
    # shellcheck disable=SC2086
    env TERM=xterm-256color LANG=C.UTF-8 LC_ALL= LC_CTYPE= NO_COLOR= COLUMNS=120 script -qec \
        "$(printf '%q ' "$SDLORA" train $SMALL --progress auto --data data --out bar --epochs 2)" /dev/null \
        </dev/null 2>&1 | screen >seen.txt
    kinds=$(sed -n 's/^epoch \([12]\)\/2 .* loss [0-9.]*  val [0-9.]*  [0-9]* images\/s.*/\1/p; s/.*▀.*/p/p' seen.txt | uniq | tr -d '\n')
    check "each epoch leaves its line, then its picture, not '$kinds'" test "$kinds" = 1p2p
else
    echo 'note: script is missing (util-linux): nothing was seen on a terminal'
fi
finish
