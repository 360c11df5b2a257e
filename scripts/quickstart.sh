#!/usr/bin/env bash
# From a fresh checkout to a picture of what adapters do: install what is missing, build, draw digits with the model that is
# shipped, train an adapter that draws outlines and, where Fashion-MNIST can be fetched, one that draws clothes. Some
# minutes on two cores; everything goes to runs/quickstart (and Fashion-MNIST to data/). Started again it goes on where it
# was stopped, and draws the pictures anew.
#
#   scripts/quickstart.sh            SDLORA_SIMD and the like are passed on by the environment
set -euo pipefail
cd "$(dirname "$0")/.."

run=runs/quickstart
model=data/models/mnist.safetensors
figure=$run/adapters.png
apt=(build-essential pkg-config libopenblas-dev zlib1g-dev libstb-dev libjansson-dev libmd-dev libpcre2-dev libzip-dev)

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
        printf '#include <%s>\n' stb_image.h stb_image_write.h stb_easy_font.h | "$cc" -E -isystem /usr/include/stb ${CPPFLAGS-} - >/dev/null 2>&1 ||
            echo "stb_image.h, stb_image_write.h and stb_easy_font.h"
    fi
    if ! have pkg-config; then
        echo "pkg-config"
        return
    fi
    for lib in openblas zlib jansson libmd libpcre2-8 libzip; do
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
        command="sudo dnf install gcc make pkgconf-pkg-config openblas-devel zlib-devel stb-devel jansson-devel libmd-devel pcre2-devel libzip-devel"
    elif have pacman; then
        command="sudo pacman -S --needed base-devel openblas zlib stb jansson libmd pcre2 libzip"
    elif have brew; then
        command="brew install gcc make pkg-config openblas zlib jansson libmd pcre2 libzip
    export CC=gcc-14      (or what it installed)
    export PKG_CONFIG_PATH=\"\$(brew --prefix openblas)/lib/pkgconfig\"
    (stb_image.h, stb_image_write.h and stb_easy_font.h, of the stb library, go anywhere that CPPFLAGS=-I... names)"
    else
        command="install: a C compiler, make, pkg-config, OpenBLAS, zlib, stb, jansson, libmd, pcre2 and libzip with their headers"
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

# adapter NAME STEPS DATA: train it; one that was begun is finished. One of another model or other data is set aside first.
adapter() {
    local command=(./sdlora finetune --model "$model" --data "$3" --steps "$2" --out "$run/$1") status=0
    "${command[@]}" --resume || status=$?
    case $status in
    0) ;;
    2 | 3) "${command[@]}" ;;
    *) exit "$status" ;; # interrupted, above all
    esac
}

say "drawing digits with the model that is shipped"
mkdir -p "$run"
./sdlora sample --model "$model" -o "$run/digits.png"

scripts/get_data.sh mnist

say "training: an adapter that draws outlines, from 500 images"
./sdlora data --transform contour -n 500 --force -o "$run/data/outlines"
adapter outlines 150 "$run/data/outlines"
loras=(--lora "$run/outlines" --lora "$run/outlines:0.5")

say "fetching Fashion-MNIST"
if scripts/get_data.sh fashion-mnist; then
    say "training: an adapter that draws clothes"
    adapter fashion-mnist 300 data/fashion-mnist
    loras+=(--lora "$run/fashion-mnist" --lora "$run/fashion-mnist:0.5")
else
    echo "quickstart: without Fashion-MNIST there is no adapter for clothes" >&2
fi

say "drawing: the model, and each adapter at its full and at half its strength, from the same noise"
./sdlora sample --model "$model" --compare "${loras[@]}" -n 6 -o "$figure"

say "done: $figure"
cat >&2 <<END

Try next:
    ./sdlora sample --model $model --lora $run/outlines --digit 5
    ./sdlora info $run/outlines
    ./sdlora train                                   (a model of your own, preset mnist)
    ./sdlora --help
END
