#!/usr/bin/env bash
# The table under "What came out" in the README: trains the models that it speaks of, draws 10,000 images by each, judges them,
# and writes the table between its two marks in README.md. What is there already, in runs/results, is not done again.
#
#   scripts/results.sh            about an hour on two cores (make results)
set -euo pipefail
cd "$(dirname "$0")/.."

runs=runs/results
mkdir -p "$runs"

trained() { # NAME ARGS...: the model NAME, and how many seconds it took
    local name=$1 begin=$SECONDS
    shift
    [ -e "$runs/$name.seconds" ] && return
    ./sdlora train --out "$runs/$name" "$@"
    echo $((SECONDS - begin)) >"$runs/$name.seconds"
}
judged() { # NAME DATA ARGS...
    local name=$1 data=$2
    shift 2
    [ -e "$runs/$name.json" ] && return
    ./sdlora eval "$runs/$name" --data "$data" --json "$@" >"$runs/$name.part"
    mv "$runs/$name.part" "$runs/$name.json"
}

# figure NAME KEY value|floor: the number, of the object that KEY names
figure() {
    awk -v key="\"$2\":" -v part="\"$3\":" '
        $1 == key { inside = 1 }
        inside && $1 == part { sub(",", "", $2); print $2; exit }' "$runs/$1.json"
}
row() { # TITLE NAME
    local cas
    cas=$(figure "$2" cas value)
    awk -v title="$1" -v seconds="$(cat "$runs/$2.seconds")" -v cas="${cas:-null}" \
        -v accuracy="$(figure "$2" accuracy value)" -v real="$(figure "$2" accuracy floor)" \
        -v frechet="$(figure "$2" frechet value)" -v floor="$(figure "$2" frechet floor)" \
        -v precision="$(figure "$2" precision value)" -v real_precision="$(figure "$2" precision floor)" \
        -v recall="$(figure "$2" recall value)" -v real_recall="$(figure "$2" recall floor)" \
        -v copies="$(figure "$2" copies value)" 'BEGIN {
        printf "| %s | %d:%02d | %.2f % (%.2f) | %.2f (%.2f), %.2f x | %.0f / %.0f (%.0f / %.0f) | %s | %d |\n", title,
            seconds / 60, seconds % 60, 100 * accuracy, 100 * real, frechet, floor, frechet / floor, 100 * precision, 100 * recall,
            100 * real_precision, 100 * real_recall, cas == "null" ? "" : sprintf("%.2f %", 100 * cas), copies
    }'
}

scripts/get_data.sh fashion-mnist
trained mnist --preset mnist --data data/mnist
trained tiny --preset tiny --data data/mnist
trained fashion-mnist --preset mnist --data data/fashion-mnist
judged mnist data/mnist --cas
judged tiny data/mnist
judged fashion-mnist data/fashion-mnist

{
    echo "| | training, min | accuracy (real) | Fréchet (floor) | precision / recall (real) | CAS | copies |"
    echo "|---|---:|---:|---:|---:|---:|---:|"
    row 'MNIST, preset mnist' mnist
    row 'MNIST, preset tiny' tiny
    row 'Fashion-MNIST, preset mnist' fashion-mnist
} >"$runs/table.md"
cat "$runs/table.md"
awk -v table="$runs/table.md" '
    /^<!-- end of results -->/ { inside = 0 }
    !inside { print }
    /^<!-- results/ { inside = 1; while ((getline line < table) > 0) print line }' README.md >"$runs/README.md"
cp "$runs/README.md" README.md
echo "written into README.md"
