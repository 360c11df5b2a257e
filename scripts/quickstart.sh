#!/usr/bin/env bash
# From a fresh checkout to figure/quickstart.png: install what is missing, build, train a small model on MNIST, fine-tune a
# LoRA adapter, draw the same noise without and with it. Takes minutes on two cores; everything goes to runs/quickstart.
#
#   scripts/quickstart.sh            SDLORA_THREADS and the like are passed on by the environment
set -euo pipefail
cd "$(dirname "$0")/.."

run=runs/quickstart
figure=figure/quickstart.png
apt=(build-essential pkg-config libopenblas-dev zlib1g-dev libstb-dev libjansson-dev libmd-dev libpcre2-dev)

say() {
    printf '\n== %s\n' "$*" >&2
}
have() {
    command -v "$1" >/dev/null 2>&1
}

# What the build needs, asked for as the build will ask. Prints what is missing, nothing when all is there.
missing() {
    local cc=${CC:-cc} lib
    have make || echo "make"
    if ! have "$cc"; then
        echo "a C compiler"
    else
        # shellcheck disable=SC2086  # CPPFLAGS may be several flags
        echo '#include <stb_image_write.h>' | "$cc" -E -isystem /usr/include/stb ${CPPFLAGS-} - >/dev/null 2>&1 ||
            echo "stb_image_write.h"
    fi
    if ! have pkg-config; then
        echo "pkg-config"
        return
    fi
    for lib in openblas zlib jansson libmd libpcre2-8; do
        pkg-config --exists "$lib" || echo "$lib"
    done
}

install_with_apt() {
    local root=()
    if [ "$(id -u)" != 0 ]; then
        if ! have sudo; then
            cat >&2 <<END
quickstart: installing packages needs root. Run this as root, then start again:

    apt-get update && apt-get install ${apt[*]}
END
            exit 1
        fi
        root=(sudo)
    fi
    "${root[@]}" apt-get -q update
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${apt[@]}"
}

# Elsewhere names of packages change too often to install them unasked: print the command and stop.
tell() {
    local command
    if have dnf; then
        command="sudo dnf install gcc make pkgconf-pkg-config openblas-devel zlib-devel stb-devel jansson-devel libmd-devel pcre2-devel"
    elif have pacman; then
        command="sudo pacman -S --needed base-devel openblas zlib stb jansson libmd pcre2"
    elif have brew; then
        command="brew install gcc make pkg-config openblas zlib jansson libmd pcre2
    export CC=gcc-14      (or what it installed: Apple's clang has no OpenMP)
    export PKG_CONFIG_PATH=\"\$(brew --prefix openblas)/lib/pkgconfig\"
    (stb_image_write.h, of the stb library, goes anywhere that CPPFLAGS=-I... names)"
    else
        command="install: a C compiler, make, pkg-config, OpenBLAS, zlib, stb, jansson, libmd and pcre2 with their headers"
    fi
    cat >&2 <<END
quickstart: some things are missing and this system has no apt-get. Run this, then start again:

    $command
END
    exit 1
}

absent=$(missing)
if [ -n "$absent" ]; then
    say "missing: $(echo "$absent" | paste -sd, - | sed 's/,/, /g')"
    if have apt-get; then install_with_apt; else tell; fi
    absent=$(missing)
    if [ -n "$absent" ]; then
        echo "quickstart: still missing after the installation: $(echo "$absent" | paste -sd, -)" >&2
        exit 1
    fi
fi

say "building ./sdlora"
make -j "$(nproc 2>/dev/null || echo 2)"

scripts/get_data.sh mnist

say "training: preset tiny on MNIST"
./sdlora train --preset tiny --epochs 2 --out "$run"

say "fine-tuning: LoRA, rank 8"
./sdlora finetune --rank 8 --model "$run/model.safetensors" --out "$run/lora"

say "drawing: the same noise without and with the adapter"
mkdir -p "$(dirname "$figure")"
./sdlora sample --model "$run/model.safetensors" --lora="$run/lora" --compare -o "$figure"

say "done: $figure"
cat >&2 <<END

Try next:
    ./sdlora sample --model $run/model.safetensors --digit 5
    ./sdlora train                                   (the full model, preset mnist)
    ./sdlora --help
END
