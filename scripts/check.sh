#!/usr/bin/env bash
# make check: format, layers, words that must not occur, shell scripts, cppcheck, clang-tidy. Every step runs; the exit
# status is 1 when any of them failed. A tool that is not installed is a failure, unless CHECK_LENIENT=1.
#
#   scripts/check.sh [STEP...]       the named steps only: format layers words shell cppcheck tidy
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# Tracked files and new ones that are not ignored; everything where there is no git.
files() { # PATTERN...
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done
    else
        local p
        for p in "$@"; do find . -path ./build -prune -o -path "./$p" -type f -print; done | sed 's|^\./||' | sort -u
    fi
}
tool() {
    command -v "$1" >/dev/null 2>&1 && return 0
    echo "$1 is not installed"
    return 1
}
missing() { # after tool failed
    [ "${CHECK_LENIENT-}" = 1 ]
}
jobs=$(nproc 2>/dev/null || echo 2)

step_format() {
    tool clang-format || { missing; return; }
    files '*.c' '*.h' | xargs clang-format --dry-run -Werror 2>&1 | awk -F: '
        /error:/ { places[$1]++ }
        END { for (f in places) { print f ": " places[f] " places, run make format"; bad = 1 } exit bad }'
}

step_layers() {
    scripts/check_layers.sh
}

# deny WHAT REGEX FILE...: no line matches. Comments may say these words: they are cut off first.
deny() {
    local what=$1 regex=$2 found
    shift 2
    [ $# -gt 0 ] || return 0
    found=$(for f in "$@"; do
        sed -E 's|//.*$||; s|/\*([^*]\|\*[^/])*\*/||g; s|/\*.*$||; s|^[[:space:]]*\*.*$||' "$f" | grep -nE "$regex" | sed "s|^|$f:|"
    done)
    [ -z "$found" ] && return 0
    printf '%s:\n%s\n' "$what" "$found"
    return 1
}

step_words() {
    local rc=0 src lib all
    mapfile -t src < <(files 'src/*.c' 'src/*.h' 'include/*.h')
    mapfile -t lib < <(printf '%s\n' "${src[@]}" | grep -v '^src/cli/')
    mapfile -t all < <(files '*.c' '*.h')
    deny "random numbers come from rng.h" '\b(s?rand|s?random|drand48|rand_r)[[:space:]]*\(' "${all[@]}" || rc=1
    deny "unbounded string functions" '\b(strcpy|strcat|sprintf|vsprintf|gets|alloca)[[:space:]]*\(' "${src[@]}" || rc=1
    deny "numbers are parsed to their end (strtol and its kin)" '\b(atoi|atol|atof)[[:space:]]*\(' "${src[@]}" || rc=1
    deny "the library never prints" '\b(v?f?printf|f?puts|f?putc|putchar|perror)[[:space:]]*\(|\bstderr\b' "${lib[@]}" || rc=1
    deny "the library names facts, the command line adds its options" \
        '"[^"]*(--[a-z]|sdlora (train|finetune|sample|predict|noise|data|info|bench))' "${lib[@]}" || rc=1
    deny "the library never exits" '\b(exit|_exit|abort)[[:space:]]*\(' "${lib[@]}" || rc=1
    if grep -nE $'\t|[[:space:]]$' "${all[@]}"; then
        echo "tabs or trailing blanks"
        rc=1
    fi
    if ! grep -q -- '-Wvla' Makefile; then
        echo "Makefile: -Wvla is gone"
        rc=1
    fi
    if grep -nE -- '-Ofast|-ffast-math' Makefile; then
        echo "Makefile: -Ofast and -ffast-math break the checks for NaN"
        rc=1
    fi
    return $rc
}

step_shell() {
    tool shellcheck || { missing; return; }
    files '*.sh' '.ci/run' | xargs shellcheck -S warning -e SC2046 # splitting a list of words is meant
}

step_cppcheck() {
    tool cppcheck || { missing; return; }
    cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 -j "$jobs" \
        --suppressions-list=.cppcheck -Iinclude -Isrc/backend/cpu -D_GNU_SOURCE -DSDLORA_VERSION='"0"' \
        -DISA=baseline -DVBYTES=16 src
}

step_tidy() {
    tool clang-tidy || { missing; return; }
    local flags found
    read -ra flags < <(pkg-config --cflags openblas zlib jansson libmd libpcre2-8 libzip)
    flags+=(-std=c11 -Iinclude -isystem /usr/include/stb -D_GNU_SOURCE -DISA=baseline -DVBYTES=16
        '-DSDLORA_VERSION="0"' -include scripts/analyzer.h)
    # only the findings in our own files, without the analyser's pages of notes: stb is read as part of png.c
    found=$(files 'src/*.c' | grep -v '^src/base/err\.c$' | xargs -P "$jobs" -I '{}' clang-tidy --quiet '{}' -- "${flags[@]}" 2>&1 |
        grep -E "^$PWD/.*(error|warning):" | sort -u | sed "s|^$PWD/||")
    [ -z "$found" ] || {
        echo "$found"
        return 1
    }
}

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(format layers words shell cppcheck tidy)
failed=()
for step in "${steps[@]}"; do
    if ! declare -F "step_$step" >/dev/null; then
        echo "check: no step '$step': format layers words shell cppcheck tidy" >&2
        exit 2
    fi
    start=$SECONDS
    if output=$("step_$step" 2>&1); then
        echo "check: $step ok ($((SECONDS - start)) s)"
    else
        printf '%s\ncheck: %s FAILED\n' "$output" "$step"
        failed+=("$step")
    fi
done
[ ${#failed[@]} -eq 0 ] || {
    echo "check: failed: ${failed[*]}" >&2
    exit 1
}
