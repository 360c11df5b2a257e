#!/usr/bin/env bash
# The pictures of the README, from the models under runs/ (trained first where they are missing). `make figures` calls it.
#
#   noise.png        forward noising                    trajectory.png  the reverse process, a row per class
#   base.png         digits of runs/mnist
#   lora_before.png  digits of a briefly trained model  lora_after.png  the same noise, with an adapter
#   loss.png         training and validation loss of runs/mnist (needs gnuplot)
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p figure
if [ ! -e runs/mnist/model.safetensors ]; then
    ./sdlora train
fi
if [ ! -e runs/brief/lora/adapter_model.safetensors ]; then
    ./sdlora train --preset tiny --epochs 1 --out runs/brief
    ./sdlora finetune --model runs/brief/model.safetensors --rank 8 --out runs/brief/lora
fi

./sdlora noise -o figure/noise.png
./sdlora sample -o figure/base.png
./sdlora sample --trajectory 12 --sampler ddpm -o figure/trajectory.png
./sdlora sample --model runs/brief/model.safetensors -o figure/lora_before.png
./sdlora sample --model runs/brief/model.safetensors --lora=runs/brief/lora -o figure/lora_after.png

if ! command -v gnuplot >/dev/null; then
    echo "figures: gnuplot is missing, figure/loss.png is left as it was (apt-get install gnuplot-nox)" >&2
    exit 0
fi
points=$(mktemp -d)
trap 'rm -rf "$points"' EXIT
number() { # FIELD: "step value" for the lines that have it
    sed -n "s/.*\"step\": \([0-9]*\),.*\"$1\": \([-0-9.e+]*\).*/\1 \2/p" runs/mnist/metrics.jsonl
}
number loss >"$points/loss"
number val_loss >"$points/val"
gnuplot <<END
set terminal pngcairo size 720,360
set output 'figure/loss.png'
set logscale y
set xlabel 'step'
set ylabel 'loss (v, squared)'
set grid
plot '$points/loss' with lines lw 1 title 'training', '$points/val' with linespoints lw 2 title 'validation'
END
echo figure/loss.png
