#!/usr/bin/env bash
# Includes go strictly downwards: base < backend < core < nn < model < store < train < run < cli, store < judge < cli; io uses base only, data uses io.
# A file belongs to the layer of its folder, a public header to the layer named here. Prints every violation; exit 1.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A header_layer=(
    [clock]=base [cores]=base [err]=base [facts]=base [fields]=base [file]=base [mem]=base [names]=base [rng]=base [text]=base [threads]=base
    [data]=data [idx]=data [npy]=data
    [events]=io [image]=io [json]=io [safetensors]=io
    [tensor]=backend [backend]=backend # tensor.h: the types that kernels and graphs share
    [graph]=core [ops]=core [param]=core
    [adapter]=adapter
    [judge]=judge [measures]=judge [scores]=judge
    [nn]=nn
    [diffusion]=model [model]=model [sampler]=model
    [store]=store [store_file]=store
    [train]=train
    [loop]=run [rundir]=run
)
declare -A may_use=(
    [base]="base"
    [io]="io base"
    [backend]="backend base"
    [core]="core backend base"
    [adapter]="adapter core backend base"
    [nn]="nn core backend base"
    [model]="model nn core backend base"
    [data]="data io base"
    [store]="store adapter model nn core backend base io"
    [judge]="judge store adapter model nn core backend base data io"
    [train]="train store adapter model nn core backend base data io"
    [run]="run train store adapter model nn core backend base data io"
    [cli]="cli judge run train store adapter model nn core backend base data io"
)
# Foreign headers that only some layers may know.
declare -A foreign=(
    [cblas.h]="backend" [omp.h]="base backend" [immintrin.h]="base backend" [xmmintrin.h]="base backend"
    [arm_neon.h]="base backend" [zlib.h]="io data cli" [zip.h]="data" [stb_image_write.h]="io" [stb_image.h]="io" [stb_easy_font.h]="io"
)

failures=0
complain() { # FILE:LINE MESSAGE
    echo "$1: $2" >&2
    failures=$((failures + 1))
}

layer_of_header() { # sdlora/NAME.h
    local name=${1#sdlora/}
    echo "${header_layer[${name%.h}]-}"
}
layer_of_file() {
    case $1 in
    include/sdlora/*) layer_of_header "${1#include/}" ;;
    src/*) echo "$1" | cut -d/ -f2 ;;
    esac
}
allowed() { # LAYER LIST
    case " $2 " in *" $1 "*) return 0 ;; esac
    return 1
}

check_own() { # FILE:LINE LAYER INCLUDED: "..." includes
    local file=${1%%:*} target
    case $3 in
    *.c)
        complain "$1" "includes the source file '$3'"
        return
        ;;
    sdlora/*)
        target=$(layer_of_header "$3")
        if [ -z "$target" ]; then
            complain "$1" "'$3' has no layer in scripts/check_layers.sh"
            return
        fi
        ;;
    *) # a private header: beside the file, or further up within the same layer
        if [ ! -f "$(dirname "$file")/$3" ] && [ ! -f "src/$2/$3" ]; then
            complain "$1" "'$3' is no header of layer '$2'"
        fi
        return
        ;;
    esac
    allowed "$target" "${may_use[$2]}" || complain "$1" "layer '$2' may not use '$3' of layer '$target'"
}

while IFS=: read -r file line text; do
    layer=$(layer_of_file "$file")
    if [ -z "$layer" ] || [ -z "${may_use[$layer]-}" ]; then
        complain "$file" "belongs to no layer in scripts/check_layers.sh"
        continue
    fi
    if [[ $text =~ \"([^\"]+)\" ]]; then
        check_own "$file:$line" "$layer" "${BASH_REMATCH[1]}"
    elif [[ $text =~ \<([^>]+)\> ]]; then
        only=${foreign[${BASH_REMATCH[1]}]-}
        [ -z "$only" ] || allowed "$layer" "$only" ||
            complain "$file:$line" "layer '$layer' may not use <${BASH_REMATCH[1]}>, only: $only"
    fi
done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include' --include='*.c' --include='*.h' include src)

# Tests link the library; they never include its sources.
while IFS=: read -r file line text; do
    complain "$file:$line" "includes a source file:$text"
done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include.*\.c"' --include='*.c' --include='*.h' tests || true)

if [ $failures -gt 0 ]; then
    echo "check_layers: $failures violations" >&2
    exit 1
fi
