#!/usr/bin/env bash
# sdlora against PyTorch on this machine: the same models, the same cores, measured in turns; prints Markdown tables.
#
#   scripts/bench_vs_torch.sh [--quick] [--rounds N] [--threads 1,2,4] [--only ROW,ROW,...] [--budget SECONDS]
#                             [--precision fp32|bf16|auto]
#
#   --only     train, train-seed, sample, latency, start: against PyTorch; scaling, convs: of sdlora alone; all.
#              By default all but train-seed, which takes long
#   --budget   seconds that one measurement may take, start-up and torch.compile apart [60]
#   --precision  of sdlora's products [fp32]; with bf16 or auto PyTorch also runs under autocast to bf16, and the table
#              says which of its variants was the best
#   --quick    fewer steps and a budget of 8 s
#
# PYTHON names the interpreter that has PyTorch (Debian: apt install python3-torch); SDLORA another program than ./sdlora, which
# is built otherwise. Takes 10 to 20 minutes per thread count; run nothing else meanwhile. What exactly is timed stands at the
# top of bench_torch.py.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON-}
if [ -z "$python" ]; then
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -c 'import torch' >/dev/null 2>&1; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "bench_vs_torch: no Python with PyTorch; install it (Debian: apt install python3-torch) or set PYTHON" >&2
    exit 1
fi
if [ -z "${SDLORA-}" ]; then
    make -s -j "$(nproc 2>/dev/null || echo 2)" sdlora >&2
    SDLORA=./sdlora
fi
exec "$python" scripts/bench_torch.py compare --sdlora "$SDLORA" "$@"
