#!/usr/bin/env bash
# Does everything compile for arm64, without a warning? Builds the program and the tests with a cross compiler
# (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross). The libraries' headers are this machine's, and what would come
# from the libraries stays unresolved: nothing that is built here can run.
#
#   scripts/check_arm64.sh [BUILD]      CC=... another compiler
set -euo pipefail
cd "$(dirname "$0")/.."

build=${1:-build/arm64}
cc=${CC:-aarch64-linux-gnu-gcc}
command -v "${cc%% *}" >/dev/null || {
    echo "check_arm64: no $cc (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)" >&2
    exit 1
}

# only these headers: the others of /usr/include belong to this machine's libc
mkdir -p "$build/include" "$build/lib"
for header in "$(pkg-config --variable=includedir openblas)"/{cblas,openblas_config}.h \
    /usr/include/{jansson,jansson_config,zlib,zconf,sha2,pcre2,zip,zipconf,cmocka}.h; do
    ln -sf "$header" "$build/include/"
done
for lib in cmocka omp; do
    ar rcs "$build/lib/lib$lib.a"
done

targets=("$build/release/sdlora")
for test in tests/test_*.c; do
    targets+=("$build/release/$(dirname "$test")/$(basename "$test" .c)")
done
for test in tests/grad_*.c; do
    targets+=("$build/release-double/tests/$(basename "$test" .c)")
done

make -s -j "$(nproc)" CC="$cc" BUILD="$build" CFLAGS='-O2 -g -Werror' CPPFLAGS="-isystem $build/include" PKG_CONFIG=true \
    LDFLAGS="-L$build/lib" LDLIBS=-Wl,--unresolved-symbols=ignore-all "${targets[@]}"
echo "check_arm64: ${#targets[@]} programs, no warning"
