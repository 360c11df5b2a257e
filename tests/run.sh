#!/bin/sh
# Runs the test programs given as arguments, then every tests/cli_*.sh, or those in $SCRIPTS (executables, with the program in
# $SDLORA), all of them even after a failure. A program that passes gets one line and those of its own that begin with 'note: '; those that fail are shown
# in full at the end. The last line is always "N passed, M failed", counting single tests; exit status 1 when a test failed, or when none ran.
cd "$(dirname "$0")/.." || exit 1
export CMOCKA_MESSAGE_OUTPUT=stdout
log=$(mktemp) || exit 1
failures=$(mktemp) || exit 1
trap 'rm -f "$log" "$failures"' EXIT
trap 'exit 130' INT TERM
passed=0
failed=0

# run NAME COMMAND...: counts cmocka's lines, or the last "N passed, M failed" of a script, or else the exit status.
run() {
    name=$1
    shift
    "$@" >"$log" 2>&1 </dev/null
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
    passed=$((passed + good))
    failed=$((failed + bad))
    if [ "$status" -eq 0 ] && [ "$bad" -eq 0 ]; then
        echo "ok    $name ($good)"
        sed -n 's/^note: /          /p' "$log"
    else
        echo "FAIL  $name"
        {
            echo "FAIL  $name (exit status $status)"
            sed 's/^/    /' "$log"
        } >>"$failures"
    fi
}

for program in "$@"; do
    run "$(basename "$program")" "$program"
done
for script in ${SCRIPTS:-tests/cli_*.sh}; do
    [ -f "$script" ] && run "$(basename "$script")" "$script"
done
cat "$failures"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
