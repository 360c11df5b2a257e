#!/bin/sh
# Runs the test programs given as arguments, then every tests/cli_*.sh, or those in $SCRIPTS (executables, with the program in
# $SDLORA), $JOBS at a time [1], all of them even after a failure. A program that passes gets one line and those of its own that
# begin with 'note: '; those that fail are shown in full at the end. The last line is always "N passed, M failed", counting
# single tests; exit status 1 when a test failed, or when none ran.

# one DIR PROGRAM: counts cmocka's lines, or the last "N passed, M failed" of a script, or else the exit status. Leaves a line
# "GOOD BAD" in DIR/counts, and where it failed DIR/NAME.failed.
one() {
    dir=$1
    name=$(basename "$2")
    log=$dir/$name.log
    "$2" >"$log" 2>&1 </dev/null
    status=$?
    if grep -q '^\[==========\] Running' "$log"; then
        good=$(grep -c '^\[       OK \]' "$log")
        # cmocka names each failure twice (once in its summary), unless the program died
        bad=$(grep '^\[  FAILED  \]' "$log" | grep -v 'test(s)' | sort -u | wc -l)
    else
        set -- $(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$log" | tail -n 1)
        good=${1:-$((status == 0))}
        bad=${2:-0}
    fi
    [ "$status" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    echo "$good $bad" >>"$dir/counts"
    if [ "$status" -eq 0 ] && [ "$bad" -eq 0 ]; then
        {
            echo "ok    $name ($good)"
            sed -n 's/^note: /          /p' "$log"
        } >"$dir/$name.said" # at once, as others speak too
        cat "$dir/$name.said"
    else
        echo "FAIL  $name"
        {
            echo "FAIL  $name (exit status $status)"
            sed 's/^/    /' "$log"
        } >"$dir/$name.failed"
    fi
}

if [ "$1" = --one ]; then
    one "$2" "$3"
    exit 0
fi
cd "$(dirname "$0")/.." || exit 1
export CMOCKA_MESSAGE_OUTPUT=stdout
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
: >"$dir/counts"
{
    for program in "$@"; do echo "$program"; done
    for script in ${SCRIPTS:-tests/cli_*.sh}; do [ -f "$script" ] && echo "$script"; done
} >"$dir/list"
xargs -r -P "${JOBS:-1}" -n 1 tests/run.sh --one "$dir" <"$dir/list"
for failed in "$dir"/*.failed; do [ -f "$failed" ] && cat "$failed"; done
awk -v listed="$(wc -l <"$dir/list")" '{ good += $1; bad += $2 } END {
    if (NR != listed) { print listed - NR " programs left no result"; bad += listed - NR }
    printf "%d passed, %d failed\n", good, bad; exit bad > 0 || good == 0 }' "$dir/counts"
