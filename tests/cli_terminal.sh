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
    kinds=$(sed -n 's/^epoch \([12]\)\/2 .* loss [0-9.]*  val [0-9.]*  [0-9]* images\/s  ETA [0-9:]*$/\1/p; s/.*▀.*/p/p' seen.txt | uniq | tr -d '\n')
    check "each epoch leaves its line, then its picture, not '$kinds'" test "$kinds" = 1p2p
else
    echo 'note: script is missing (util-linux): nothing was seen on a terminal'
fi

# ---- names out of files: controls (an escape, DEL, C1), a turn of direction, beside names in UTF-8 ----
safetensors() { # safetensors FILE NAME VALUE: a tensor x, one of that name in JSON's spelling, and metadata
    local header
    header="{\"__metadata__\":{\"$2\":\"$3\"},\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"$2\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}"
    {
        printf '%b' "$(printf '\\0%o' $(($(printf %s "$header" | wc -c) % 256)))$(printf '\\0%o' $(($(printf %s "$header" | wc -c) / 256)))\0\0\0\0\0\0"
        printf '%s\0\0' "$header"
    } >"$1"
}
quiet() { # quiet FILE...: nothing in it that a terminal obeys
    ! LC_ALL=C grep -q $'[\x01-\x09\x0b-\x1f\x7f]\|\xc2[\x80-\x9f]\|\xe2\x80[\xa8-\xae]\|\xe2\x81[\xa6-\xa9]' "$@"
}
for name in '\u001b]0;t\u0007' '\u007f' $'\x7f' '\u0080' '\u009b31m' $'\xc2\x9b31m' '\u202etxt' '\u2066' '\u2028'; do
    safetensors named "a$name" "v$name"
    expect 0 '\x' info named
    check "info of '$name'" quiet out.txt err.txt
    expect 0 '\x' info --tensors named
    check "info --tensors of '$name'" quiet out.txt err.txt
    expect 0 '\u' info --json named
    check "info --json of '$name'" quiet out.txt err.txt
    check 'is ASCII' test -z "$(LC_ALL=C tr -d '\n -~' <out.txt)"
    sed 's/\[1,2\]/[1,3]/' named >damaged
    expect 3 '\x' info damaged
    check "an error about '$name'" quiet out.txt err.txt
done
for name in $'\xc2\x9b31m' $'\xe2\x80\xae' $'\xff\xc0\xaf' $'\xed\xa0\x80' $'\xf4\x90\x80\x80' $'cut\xe2\x82'; do
    expect 3 '\x' info "$name"
    check "the path '$name'" quiet err.txt
    LC_ALL=C.UTF-8 check 'is valid UTF-8' iconv -f UTF-8 -t UTF-8 -o iconv.txt err.txt
    refuse 2 '\x' "$name"
done
cp named $'path\xff'
expect 0 '"file": "path\\xff"' info --json $'path\xff'

# columns stand under each other, whatever a character's length
safetensors umlaut 'äöü€é' 'ü'
"$SDLORA" info --tensors umlaut >out.txt
check 'columns' test "$(grep -c '^  x      U8 \|^  äöü€é  U8 ' out.txt)" -eq 2
safetensors wide '权重' 'ü'
"$SDLORA" info --tensors wide >out.txt
check 'columns of Chinese names' test "$(grep -c '^  x     U8 \|^  权重  U8 ' out.txt)" -eq 2
# a resumed run's data directory is a text out of run.json
odd=$(printf 'da\033[31mta')
idx_data "$odd" train 24
idx_data "$odd" t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data "$odd" --out odd --steps 1 --sample-every 0 >out.txt 2>err.txt
check 'a data directory with a control character' test -s odd/model.safetensors
"$SDLORA" train --resume --out odd --steps 2 --threads 1 --progress none >out.txt 2>err.txt
check 'can be resumed' grep -q "^data: 'da.x1b.31mta'" err.txt
check 'and does not speak to the terminal' test -z "$(tr -dc '\033' <err.txt)"

finish
