#!/usr/bin/env bash
# The pictures of the README, from the model that is shipped and adapters of it under runs/figures (trained first where they
# are missing: minutes). `make figures` calls it.
#
#   adapters.png     digits become clothes: the model, an adapter on Fashion-MNIST, half of it
#   outlines.png     the same for 500 digits drawn as outlines
#   noise.png        forward noising                    trajectory.png  the reverse process, a row per class
#   base.png         digits                             loss.png        losses of runs/mnist, if that is there (gnuplot)
set -euo pipefail
cd "$(dirname "$0")/.."

model=data/models/mnist.safetensors
runs=runs/figures
adapter() { # NAME ARGS...: runs/figures/NAME, unless it is there
    local name=$1
    shift
    [ -e "$runs/$name/adapter_model.safetensors" ] || ./sdlora finetune --model "$model" --out "$runs/$name" "$@"
}
compare() { # NAME PICTURE
    ./sdlora sample --model "$model" --compare --lora "$runs/$1" --lora "$runs/$1:0.5" -n 8 -o "$2"
}

mkdir -p figure "$runs"
scripts/get_data.sh fashion-mnist
[ -e "$runs/data/outlines/about.json" ] || ./sdlora data --transform contour -n 500 -o "$runs/data/outlines"
adapter fashion-mnist --data data/fashion-mnist --epochs 2
adapter outlines --data "$runs/data/outlines" --steps 300
compare fashion-mnist figure/adapters.png
compare outlines figure/outlines.png

./sdlora noise -o figure/noise.png
./sdlora sample --model "$model" --scale 3 -o figure/base.png
./sdlora sample --model "$model" --trajectory 12 --sampler ddpm -o figure/trajectory.png

# The losses of a run: those of the model that is shipped, if runs/mnist is it (sdlora train --epochs 12)
run=${RUN:-runs/mnist}
if [ ! -e "$run/metrics.jsonl" ]; then
    echo "figures: there is no $run, figure/loss.png is left as it was (sdlora train)" >&2
    exit 0
fi
if ! command -v gnuplot >/dev/null; then
    echo "figures: gnuplot is missing, figure/loss.png is left as it was (apt-get install gnuplot-nox)" >&2
    exit 0
fi
points=$(mktemp -d)
trap 'rm -rf "$points"' EXIT
number() { # FIELD: "step value" for the lines that have it
    sed -n "s/.*\"step\": \([0-9]*\),.*\"$1\": \([-0-9.e+]*\).*/\1 \2/p" "$run/metrics.jsonl"
}
number loss >"$points/loss"
number val_loss >"$points/val"
low=$(sort -g -k2 "$points/loss" | awk 'NR == 1 { print 0.95 * $2 }') high=$(awk '{ v = $2 } END { print 1.6 * v }' "$points/val")
steps=$(tail -n 1 "$points/loss" | cut -d' ' -f1)
epochs=$(sed -n 's/.*"epoch": \([0-9]*\).*/\1/p' "$run/metrics.jsonl" | tail -n 1)
gnuplot <<END
set terminal pngcairo size 960,480 font 'sans,12'
set output 'figure/loss.png'
set xlabel 'optimiser step'
set x2label 'epoch'
set x2tics
set xtics nomirror
set xrange [0:$steps]
set x2range [0:$epochs]
set yrange [$low:$high]
set ylabel 'mean squared error of v'
set grid
plot '$points/loss' with lines lw 1 lc rgb '#9db8d8' title 'training, single batches (middle timesteps)', \
     '$points/loss' smooth sbezier lw 2 lc rgb '#2060a0' title 'training, smoothed', \
     '$points/val' with linespoints lw 2 pt 7 lc rgb '#c05000' title 'validation (all timesteps, averaged weights)'
END
echo figure/loss.png
