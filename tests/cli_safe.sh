#!/usr/bin/env bash
# What others do to a directory while the program works, and file systems that lack something: nothing of the user's is lost,
# nothing is written where it does not belong, no wrong result ends with 0. (cli_directory.sh has whose a directory is,
# cli_previous.sh the set-aside under faults.)
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
train() { # train OUT ARGS...
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --data data --out "$1" --sample-every 0 --lr-schedule constant "${@:2}" >out.txt 2>err.txt </dev/null
}
on() { "$SDLORA" train --data data "$@" >out.txt 2>err.txt </dev/null; } # a resumed run
fresh() { rm -rf w w2 && cp -r run w; }                                  # w: a run that has ended
list() { find "$1" ! -name lock -printf '%P %y %l ' \( -type f -exec cksum {} \; -o -print \) | sort; }
says() { check "says '$1' but: $(cat err.txt)" grep -qF -- "$1" err.txt; }
train run --steps 10 --save-every 5s --keep 0
train run.12 --steps 10 --save-every 5s --keep 0
on --resume --out run.12 --steps 12
M=run/model.safetensors
check 'two runs' test -s $M -a -s run.12/checkpoints/ckpt-00000012/state.safetensors

# ---- a set-aside that was killed is undone wherever the run is named ----
pending=.sdlora-previous.tmp
killed() { # all is on its way but run.json
    fresh
    mkdir w/$pending && mv w/checkpoints w/model.safetensors w/metrics.jsonl w/$pending && cp w/run.json w/$pending
}
for name in w w/ w/checkpoints w/checkpoints/best w/checkpoints/ckpt-00000010/; do
    killed
    check "--resume $name: $(cat err.txt)" on --resume $name --steps 12
    check "--resume $name goes on" cmp w/model.safetensors run.12/model.safetensors
    check "--resume $name leaves nothing" test ! -e w/$pending
done
killed
check 'for a run elsewhere' on --resume w --out w2 --steps 12
check 'which goes on' cmp w2/model.safetensors run.12/model.safetensors
fresh # one that goes back: its later checkpoint is on its way
mkdir -p w/$pending/checkpoints && mv w/checkpoints/ckpt-00000010 w/$pending/checkpoints && cp w/{run.json,metrics.jsonl} w/$pending
check 'its latest checkpoint' on --resume w --out w2 --steps 12
says 'after step 10'
# what somebody put there meanwhile is not ours to lose, and neither is what was moved
killed && mv w/$pending/{checkpoints,metrics.jsonl} w && echo restored >w/model.safetensors
before=$(list w)
for args in '--resume' '--resume w'; do
    # shellcheck disable=SC2086
    on --out w --steps 10 $args
    check "two results, '$args'" test $? -eq 1
    says 'move one of them away'
done
check 'both are left' test "$before" = "$(list w)"
mkdir docs && echo mine >docs/model.safetensors && fresh && rm w/model.safetensors && ln -s ../docs w/$pending
before=$(list w)
on --out w --resume --steps 12
check 'not through a link' test $? -eq 1 -a "$before" = "$(list w)" -a "$(cat docs/model.safetensors)" = mine
says 'is not a directory'

# ---- names of ours that are links to files of the user's ----
fresh
echo precious >precious
mkdir w/samples && ln -s ../../precious w/samples/epoch-0003.png
check 'a picture that is a link' on --resume --out w --steps 15 --sample-every 1
says 'epoch-0003.png'
check 'is left out' test "$(cat precious)" = precious -a -L w/samples/epoch-0003.png
fresh
mv w/checkpoints/best.json best.json && cp best.json kept && ln -s ../../best.json w/checkpoints/best.json
on --resume --out w --steps 15
check 'best.json is a link' test $? -eq 1
check 'it is as it was' cmp best.json kept

# ---- best ----
fresh && rm -r w/model.safetensors w/metrics.jsonl w/checkpoints/ckpt-*
printf '{"checkpoint": "ckpt-00000002", "step": 2, "val_loss": 1e-9}' >w/checkpoints/best.json
check 'best.json of a run that is gone' train w --steps 2
check 'says nothing of the next one' test "$(sed 's/.*"val_loss": \([0-9.e-]*\)}/\1/' w/checkpoints/best.json)" = \
    "$(sed -n 's/.*"val_loss": \([0-9.e-]*\)}/\1/p' w/metrics.jsonl)"
fresh && rm w/checkpoints/best*
before=$(list w)
on --resume best --out w --steps 12
check 'no best one: refused' test $? -eq 3 -a "$before" = "$(list w)"
says 'knows no best checkpoint'

# ---- copies that other systems made ----
fresh && rm w/checkpoints/best && printf ckpt-00000010 >w/checkpoints/best # an archive without links
check 'a link that became a file' on --resume --out w --steps 12
check 'is one again' test -L w/checkpoints/best
check 'the same bytes' cmp w/model.safetensors run.12/model.safetensors
fresh && sed -i 's/$/\r/' w/run.json w/metrics.jsonl w/checkpoints/best.json
find w -exec touch -d 1980-01-01 {} +
check 'lines that end in CRLF, another time' on --resume --out w --steps 12
check 'the same bytes again' cmp w/model.safetensors run.12/model.safetensors
for file in run.json checkpoints/best.json; do # a byte order mark is no JSON
    fresh && printf '\357\273\277' | cat - run/$file >w/$file
    before=$(list w)
    on --resume --out w --steps 12
    check "$file with a byte order mark is refused" test $? -eq 3 -a "$before" = "$(list w)"
    says "w/$file' is damaged"
done

# ---- what run.json cannot hold is refused before anything moves ----
fresh
before=$(list w)
latin=$(printf 'd\351ta')
if cp -r data "$latin" 2>/dev/null; then # not every file system has such names
    # shellcheck disable=SC2086
    refuse 2 "the value of '--data' is not UTF-8" train $SMALL --data "$latin" --out w --steps 1
    check 'nothing was moved' test "$before" = "$(list w)"
fi
deep=$WORK/deep
while [ ${#deep} -lt 3800 ]; do deep=$deep/$(printf '%200s' '' | tr ' ' d); done
deep=$deep/$(printf "%$((4096 - 78 - ${#deep}))s" '' | tr ' ' d)
train "$deep" --steps 1
check "a path that is too long for what comes below it ends with $?" test "$(grep -c 'is too long' err.txt)" -eq 1 -a ! -e deep

# ---- an adapter whose model is another by now ----
"$SDLORA" finetune --model $M --data data --out tuned --rank 2 --batch-size 8 --steps 2 --sample-every 0 -q >out.txt 2>err.txt
note='was trained on another model than'
expect 0 '' sample --model $M --lora=tuned -n 1 --steps 1 -o a.png
check 'its own model' test -z "$(grep -F "$note" err.txt)"
for adapter in tuned tuned/adapter_model.safetensors; do
    expect 0 "'$adapter' $note 'run.12/model.safetensors'" sample --model run.12/model.safetensors --lora=$adapter -n 1 --steps 1 -o a.png
done

# ---- outputs ----
ln -s nowhere/at/all.png link.png
refuse 1 'a link to a file that is not there' sample --model $M -n 1 --steps 1 -o link.png
check 'the link is left' test -L link.png
ln -s p-images-idx3-ubyte.gz p-labels-idx1-ubyte.gz
touch p-images-idx3-ubyte.gz
refuse 2 'are one file' sample --model $M -n 1 --steps 1 --format idx -o p
echo mine >protected.png
chmod 444 protected.png
# Root may do everything: the rest as somebody else, who owns the directory h.
if [ "$(id -u)" != 0 ]; then
    as() { (cd h && bash -c "$1"); }
elif command -v setpriv >/dev/null && (chmod 755 "$WORK" && setpriv --reuid=65534 --clear-groups sh -c "cd $WORK && test -x $SDLORA") 2>/dev/null; then
    as() { (cd h && setpriv --reuid=65534 --clear-groups bash -c "$1") }
else
    as() { :; }
    echo 'note: this user cannot become another one; permissions are not tried'
fi
mkdir h && mv protected.png h && chown -R 65534 h 2>/dev/null
refused_as() { # refused_as TEXT COMMAND: one sentence, nothing changes
    local status
    as : && [ "$(as 'echo yes')" = yes ] || return
    as "$2" >out.txt 2>err.txt
    status=$?
    check "'$2' ends with $status: $(cat err.txt)" test $status -ne 0 -a "$(grep -c '^sdlora: ' err.txt)" -eq 1
    says "$1"
}
# shellcheck disable=SC2086
quiet=$(echo $SMALL --data ../data --sample-every 0 -q)
refused_as "'protected.png': Permission denied" "$SDLORA sample --model ../$M -n 1 --steps 1 -q -o protected.png"
check 'a protected file is as it was' test "$(cat h/protected.png)" = mine
as "$SDLORA train $quiet --out r --steps 2 >r.txt && chmod 500 r/checkpoints"
refused_as "directory in 'r/checkpoints': Permission denied" "$SDLORA train --data ../data --out r --resume --steps 3 -q"
as 'chmod 0 r'
refused_as "cannot open the directory 'r': Permission denied" "$SDLORA train $quiet --out r --steps 1"
as 'chmod -R u+rwx r; mkdir x'
refused_as 'Permission denied' "umask 0777; $SDLORA train $quiet --out x/u --steps 1"

[ -n "${FAULT_SHIM-}" ] || {
    echo 'note: FAULT_SHIM names no library: the rest was not tried'
    finish
    exit
}

# ---- things that happen while a run is at work: it stops at a call, and goes on when they have ----
stopped() { # stopped ORDER ARGS...: the program, in the background, until it stops at that call; $pid is its process
    local state=R
    rm -f log
    SDLORA_FAULT=stop@$1 SDLORA_FAULT_LOG=$WORK/log LD_PRELOAD=$FAULT_SHIM "$SDLORA" "${@:2}" >out.txt 2>err.txt </dev/null &
    pid=$!
    until [ "$state" = T ] || [ "$state" = Z ] || [ -z "$state" ]; do
        state=$(sed 's/.*) \(.\).*/\1/' /proc/$pid/stat 2>/dev/null)
    done
    check "'${*:2}' stops at $1" test "$state" = T
}
at_call() { # at_call ORDER COMMAND ARGS...: COMMAND comes between; $status and err.txt are the program's
    stopped "$1" "${@:3}"
    "$2"
    kill -CONT "$pid" 2>/dev/null
    wait "$pid"
    status=$?
}
moved_away() { mv w moved; }
replaced() { mv w moved && cp -r run w; }
for what in moved_away replaced; do
    for call in write:4 write:6 mkdir:3; do # lines of metrics, a checkpoint
        [ $what$call != replacedmkdir:3 ] || continue # between the look and the save: too late
        rm -rf moved && fresh
        at_call $call $what train --data data --resume --out w --steps 30 --save-every 5s
        check "$what at $call: status $status, $(cat err.txt)" test "$status" -eq 1
        if [ $what = replaced ]; then
            check "$what at $call: the other run" diff -r w run
        else
            check "$what at $call: not made anew" test ! -e w/metrics.jsonl
        fi
        check "$what at $call: goes on" on --resume --out moved --steps 12
        check "$what at $call: with its bytes" cmp moved/model.safetensors run.12/model.safetensors
    done
done
loses_its_state() { rm w/checkpoints/ckpt-00000010/state.safetensors; }
fresh
at_call mkdir:2 loses_its_state train --data data --resume w/checkpoints/ckpt-00000010 --out w2 --steps 12 # w2/checkpoints, before the copy
check "a checkpoint that vanishes while it is copied: status $status" test "$status" -ne 0
rm -f log sample-1.png
draw="sample --model $M -d 1 -n 1 --steps 1 -q"
# shellcheck disable=SC2086
SDLORA_FAULT=count SDLORA_FAULT_LOG=$WORK/log LD_PRELOAD=$FAULT_SHIM "$SDLORA" $draw >out.txt 2>err.txt
n=$(sed -n 's/^open //p' log)
rm -f sample-1.png
somebody_saves() { echo mine >sample-1.png; }
# shellcheck disable=SC2086
at_call open:$((n - 2)) somebody_saves $draw # the name was looked at, and the picture is not begun
check 'a file that somebody saves under a name that nobody gave' test "$(cat sample-1.png)" = mine

# ---- no room for a directory: the message says so ----
fresh
for ((k = 1; k <= 3; k++)); do
    SDLORA_FAULT=mkdir:$k+ LD_PRELOAD=$FAULT_SHIM on --resume --out w --steps 15
    says 'No space left on device'
    rm -rf w && cp -r run w
done

# ---- file systems that lack something: EPERM, EACCES, EINVAL, EROFS, ENOSYS, EOPNOTSUPP ----
for call in symlink link exchange dirsync chmod; do
    for error in 1 13 22 30 38 95; do
        case $call:$error in link:13 | link:22 | link:30 | chmod:13 | chmod:22 | chmod:30) continue ;; esac
        fresh
        export SDLORA_LACKS=$call:$error LD_PRELOAD=$FAULT_SHIM
        check "no $call ($error): resumed: $(cat err.txt)" on --resume --out w --steps 12
        check "no $call ($error): a new run" train w2 --steps 2
        check "no $call ($error): again" train w --steps 2
        unset SDLORA_LACKS LD_PRELOAD
        check "no $call ($error): what was there" cmp w/previous-1/model.safetensors run.12/model.safetensors
    done
done
for error in 1 22 37 38 95; do
    fresh
    before=$(list w)
    for args in '--resume --steps 12' '--steps 2'; do
        export SDLORA_LACKS=flock:$error LD_PRELOAD=$FAULT_SHIM
        # shellcheck disable=SC2086
        train w $args
        status=$?
        unset SDLORA_LACKS LD_PRELOAD
        check "no locks ($error): status $status" test $status -eq 1 -a "$(grep -c '^sdlora: ' err.txt)" -eq 1
        says 'cannot lock'
    done
    check "no locks ($error): nothing changes" test "$before" = "$(list w)"
done

finish
