# shellcheck shell=bash
# For tests in which calls of the program fail (tests/fault/shim.c). Sourced after lib_cli.sh. A scenario is three functions:
#   prepare    makes what lies there before, as ./w (a directory)
#   act        runs the program, quietly, on ./w
#   verify     after another `act` without a fault: prints what is wrong
# and $scenario, its name, and $status_ok, the exit statuses that a fault may have besides 0.
if [ -z "${FAULT_SHIM-}" ]; then
    echo 'skipped: FAULT_SHIM names no library (the sanitizers have an allocator of their own)'
    finish
    exit
fi
scenario='' status_ok='1 3'
temporaries() { find w -name '.sdlora-*.tmp'; }

faulty() { # faulty ORDER: `act` under the fault, on a fresh ./w
    rm -rf w log
    prepare
    (
        export SDLORA_FAULT=$1 SDLORA_FAULT_LOG=log LD_PRELOAD=$FAULT_SHIM
        act
    ) >out.txt 2>err.txt </dev/null
}

# one ORDER: what must hold after one fault. An allocation that fails cannot always name a file, and some calls are tried only
# (cleaning up, where the machine says how much memory it has): then all must be as if nothing had happened.
one() {
    local order=$1 status
    { faulty "$order"; } 2>/dev/null
    status=$?
    case $order in
    kill@*) [ $status -eq 137 ] || ! grep -q '^hit' log 2>/dev/null || echo "$order: status $status" ;;
    *)
        if [ $status -ne 0 ]; then
            case " $status_ok " in *" $status "*) ;; *) echo "$order: status $status, $(cat err.txt)" ;; esac
            [ "$(wc -l <err.txt)" -eq 1 ] && grep -q '^sdlora: ' err.txt || echo "$order: says $(cat err.txt)"
            case $order in
            malloc* | unlink* | open*) ;; # what could not be removed now
            *) [ -z "$(temporaries)" ] || [[ $order = *+ ]] || echo "$order: leaves $(temporaries)" ;;
            esac
        fi
        ;;
    esac
    (act) >out.txt 2>err.txt </dev/null || echo "$order: afterwards $(cat err.txt)"
    verify "$order"
    [ -z "$(temporaries)" ] || echo "$order: leaves in the end $(temporaries)"
}

# each KIND EDGE STRIDE [SUFFIX]: the first and the last EDGE calls, and every STRIDE-th between them; FAULTS=all: every one.
# KIND may be kill@KIND.
each() {
    local kind=$1 edge=$2 stride=$3 suffix=${4-} n k tried=0 bad
    faulty count || fail "without a fault: $(cat err.txt)"
    n=$(sed -n "s/^${kind#kill@} //p" log)
    [ -n "${FAULTS-}" ] && stride=1
    for ((k = 1; k <= n; k++)); do
        [ $k -le "$edge" ] || [ $k -gt $((n - edge)) ] || [ $((k % stride)) -eq 0 ] || continue
        bad=$(one "$kind:$k$suffix" 2>&1)
        [ -z "$bad" ] || fail "$scenario: $bad"
        tried=$((tried + 1))
    done
    echo "$scenario, $kind${suffix:+ and all after it}: $tried of $n calls"
    passed=$((passed + tried))
}
