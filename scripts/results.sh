#!/usr/bin/env bash
# The table under "What came out" in the README: trains the models that it speaks of, draws 10,000 images by each, judges them,
# and writes the table between its two marks in README.md. What is there already, in runs/results, is not done again.
#
#   scripts/results.sh            about 45 minutes on two cores (make results)
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
judged() { # NAME MODEL DATA ARGS...
    local name=$1 model=$2 data=$3
    shift 3
    [ -e "$runs/$name.json" ] && return
    ./sdlora eval "$model" --data "$data" --json "$@" >"$runs/$name.part"
    mv "$runs/$name.part" "$runs/$name.json"
}

# figure NAME KEY value|floor: the number, of the object that KEY names
figure() {
    awk -v key="\"$2\":" -v part="\"$3\":" '
        $1 == key { inside = 1 }
        inside && $1 == part { sub(",", "", $2); print $2; exit }' "$runs/$1.json"
}
row() { # TITLE NAME
    local value=("$1")
    for key in accuracy frechet precision recall cas copies; do
        value+=("$(figure "$2" "$key" value)" "$(figure "$2" "$key" floor)")
    done
    # shellcheck disable=SC2016
    printf '%s\n' "${value[@]}" "$(cat "$runs/$2.seconds" 2>/dev/null)" | awk '
        { v[NR] = $0 }
        END {
            printf "| %s | %s | %.2f %% (%.2f) | %.2f (%.2f), %.2f x | %.0f / %.0f (%.0f / %.0f) | %s | %d |\n", v[1],
                v[14] == "" ? "" : sprintf("%d:%02d min", v[14] / 60, v[14] % 60), 100 * v[2], 100 * v[3], v[4], v[5],
                v[4] / v[5], 100 * v[6], 100 * v[8], 100 * v[7], 100 * v[9],
                v[10] == "" ? "" : sprintf("%.2f %% (%.2f)", 100 * v[10], 100 * v[11]), v[12]
        }'
}

scripts/get_data.sh fashion-mnist
trained mnist --preset mnist --data data/mnist
trained tiny --preset tiny --data data/mnist
trained fashion-mnist --preset mnist --data data/fashion-mnist
judged shipped data/models/mnist.safetensors data/mnist --cas
judged mnist "$runs/mnist" data/mnist --cas
judged tiny "$runs/tiny" data/mnist
judged fashion-mnist "$runs/fashion-mnist" data/fashion-mnist

{
    echo "| | training | accuracy (real) | Fréchet (floor) | precision / recall (real) | CAS (real) | copies of 2,000 |"
    echo "|---|---:|---:|---:|---:|---:|---:|"
    row 'the shipped model: preset mnist, 12 epochs' shipped
    row '`train`: preset mnist, 5 epochs' mnist
    row '`train --preset tiny`' tiny
    row 'Fashion-MNIST: preset mnist' fashion-mnist
} >"$runs/table.md"
cat "$runs/table.md"
awk -v table="$runs/table.md" '
    /^<!-- end of results -->/ { inside = 0 }
    !inside { print }
    /^<!-- results/ { inside = 1; while ((getline line < table) > 0) print line }' README.md >"$runs/README.md"
cp "$runs/README.md" README.md
echo "written into README.md"
