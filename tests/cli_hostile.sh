#!/usr/bin/env bash
# Files that lie: damaged, contradicting themselves, of another kind, or not files at all. Each is refused with one
# sentence that names it and with status 3, before anything is written. (tests/badfiles holds what the safetensors reader
# alone must refuse; here it is what reads a whole model, an adapter, a data set, a run.)
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 24
idx_data data t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --steps 3 --save-every 1s -q >out.txt 2>err.txt
M=run/model.safetensors
"$SDLORA" finetune --model $M --data data --out tuned --rank 2 --batch-size 8 --steps 2 --save-every 1s -q \
    >out.txt 2>err.txt
check 'an adapter to begin with' test -s tuned/adapter_model.safetensors

le64() {
    local i
    for i in 0 8 16 24 32 40 48 56; do printf '%b' "$(printf '\\0%o' $((($1 >> i) & 255)))"; done
}
safetensors() { # safetensors HEADER [ZEROS]
    le64 ${#1}
    printf %s "$1"
    head -c "${2:-0}" /dev/zero
}
header_size() { od -An -tu8 -N8 "$1" | tr -d ' '; }
edit() { # edit FILE SED-EXPRESSION: the same data under another header
    local n header
    n=$(header_size "$1")
    header=$(tail -c +9 "$1" | head -c "$n" | sed -E "$2")
    if [ "$(le64 ${#header} | od -An -tx1)" = "$(head -c 8 "$1" | od -An -tx1)" ] && printf %s "$header" |
        cmp -s - <(tail -c +9 "$1" | head -c "$n"); then fail "the expression '$2' changes nothing in '$1'"; fi
    le64 ${#header}
    printf %s "$header"
    tail -c +$((9 + n)) "$1"
}
value() { # value FILE HEX: the first value of the data becomes this pattern of bits
    printf '%b' "$2" | dd of="$1" bs=1 seek=$((8 + $(header_size "$1"))) conv=notrunc 2>/dev/null
}
limit() { # of memory; a sanitizer (no shim, then) needs more addresses than that
    if [ -n "${FAULT_SHIM-}" ]; then ulimit -v 1000000; fi
}
settings='s/\\"channels\\":\[4,8\]/\\"channels\\":'
NAN='\000\000\0300\0177'
INF='\000\000\0200\0377'

# ---- models ----
model() { # model TEXT FILE: every command that opens a model
    refuse 3 "$1" sample --model "$2" -n 1 -o out.png
    refuse 3 "'$2'" finetune --model "$2" --data data --batch-size 8 --steps 1 --out written
    refuse 3 "'$2'" predict --model "$2" --input $M --output out.safetensors
}
: >empty
model '0 bytes' empty
mkdir folder
model 'without a model.safetensors' folder
ln -s nowhere dangling
model 'No such file' dangling
ln -s other_end one_end && ln -s one_end other_end
model 'symbolic links' one_end
(le64 $((1 << 62)) && echo '{}') >giant
model '4611686018427387904 bytes is announced' giant
head -c 3000 $M >short
model 'cut short' short
(cat $M && echo) >long
model 'stray' long
safetensors '{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}' 24 >foreign
model "lacks tensor 'encoder_convs.0.seq1.0.weight'" foreign
safetensors '{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}' 8 >negative
model "'shape' holds something else" negative
safetensors '{"a":{"dtype":"U8","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}}' >product
model 'overflows' product
safetensors '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}' 6 >overlap
model 'they overlap' overlap
safetensors '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}' 2 >twice
model 'duplicate' twice
edit $M 's/F32/F64/' >wider
model 'its type and shape make' wider
edit $M 's/F32/I32/' >integers
model 'is I32' integers
edit $M 's/"decoder_convs\.0\.skip\.bias"/"decoder_convs.0.skip.gone"/' >renamed
model "missing 'decoder_convs.0.skip.bias', surplus 'decoder_convs.0.skip.gone'" renamed
check 'both in one sentence' grep -q . err.txt
edit $M "${settings}[8,8]/" >contradicts
model 'does not hold the model that its configuration describes' contradicts
check 'some names, and the number of the others' grep -q "' and [0-9]* more$" err.txt
edit $M "${settings}[16384,16384,16384,16384,16384,16384,16384,16384]/; s/(image_size[^0-9]*)8/\\1128/" >boundless
(failed=0 && limit && refuse 3 'does not hold the model' sample --model boundless -n 1 -o out.png && [ "$failed" -eq 0 ])
check 'a configuration cannot ask for memory' test $? -eq 0
edit $M "${settings}[65536,65536]/" >many
model 'the number of channels must be 1 to 16384, not 65536' many
edit $M "$settings\"4,8\"/; s/\"4,8\"/\\\\\"4,8\\\\\"/" >text
model "an impossible value for 'channels'" text
edit $M 's/\\"qsize\\"/\\"qsizes\\"/' >unknown
model "the unknown key 'qsizes'" unknown
edit $M 's/\\"qsize\\"/\\"vsize\\"/' >again
model 'duplicate' again
edit $M 's/(image_size[^0-9]*)8/\11e400/' >huge
model 'overflow' huge
cp $M nan && value nan "$NAN"
model 'not finite' nan
cp $M inf && value inf "$INF"
model 'not finite' inf
expect 0 'not finite' info nan
safetensors '{"bad\u001b[31m":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8 >colour
check 'a name cannot speak to the terminal' test -z "$("$SDLORA" sample --model colour 2>&1 | tr -dc '\033')"
if [ "$(id -u)" -ne 0 ]; then
    cp $M locked && chmod 0 locked
    model 'Permission denied' locked
fi
mkfifo pipe
refuse 3 "'pipe': it is a named pipe" info pipe
refuse 3 "'folder' is a directory without" info folder
for file in empty giant short long negative product overlap twice wider; do
    refuse 3 "'$file'" info $file
done

# ---- adapters ----
adapter() { # adapter TEXT DIR
    refuse 3 "$1" sample --model $M --lora "$2" -n 1 -o out.png
    refuse 3 "$1" predict --model $M --lora "$2" --input $M --output out.safetensors
}
A=adapter_model.safetensors
copy() {
    cp -r tuned "$1"
    rm -r "$1/checkpoints"
}
copy cut && head -c 900 tuned/$A >cut/$A
adapter "'cut/$A' is cut short" cut
copy gone && rm gone/$A
adapter "'gone/$A'" gone
copy sick && value sick/$A "$NAN"
adapter 'not finite' sick
copy alone && edit tuned/$A 's/w_q\.lora_A/w_q.lora_C/g' >alone/$A
adapter 'match no layer' alone
copy half && edit tuned/$A '0,/w_q\.lora_B/s/0\.cross_attention\.w_q\.lora_B/0.cross_attention.w_k.lora_B/' >half/$A
adapter "'half/$A'" half
copy config && edit tuned/$A 's/"sdlora\.lora"/"other.lora"/' >config/$A # or what that says would count
echo '{"lora_alpha": "two"}' >config/adapter_config.json
adapter 'lora_alpha is not a number' config
echo '{"lora_alpha": 2,' >config/adapter_config.json
adapter "'config/adapter_config.json'" config
adapter 'is a model, no adapter' $M

# ---- data ----
data() { # data TEXT DIR: training on it, and its file of images
    # shellcheck disable=SC2086
    refuse 3 "$1" train $SMALL --data "$2" --steps 1 --out written
}
I=train-images-idx3-ubyte L=train-labels-idx1-ubyte
images() { # images DIR HEX...: a directory with these bytes for the images
    cp -r data "$1"
    printf '%b' "$2" >"$1/$I"
}
images d_empty ''
data "'d_empty/$I' is empty" d_empty
images d_type '\0\0\015\03\0\0\0\01\0\0\0\01\0\0\0\01\01\01\01\01'
data 'type 0x0d' d_type
images d_rank '\0\0\010\01\0\0\0\01\01'
data '1 dimension, 3 needed' d_rank
images d_zero '\0\0\010\03\0\0\0\0\0\0\0\01\0\0\0\01'
data 'dimension 1 of 3 is 0' d_zero
images d_product '\0\0\010\03\0377\0377\0377\0377\0377\0377\0377\0377\0377\0377\0377\0377'
data "'d_product/$I': its header announces more" d_product
images d_long '\0\0\010\03\0\0\0\01\0\0\0\01\0\0\0\01\01\02'
data 'goes on after' d_long
cp -r data d_swapped && cp data/$L d_swapped/$I
data "'d_swapped/$I'" d_swapped
cp -r data d_html && rm d_html/$I && echo '<html>' >d_html/$I.gz
data "'d_html/$I.gz' is a text or HTML page" d_html
cp -r data d_crc && gzip d_crc/$I && printf '\0' | dd of=d_crc/$I.gz bs=1 seek=$(($(stat -c %s d_crc/$I.gz) - 6)) conv=notrunc 2>/dev/null
data "'d_crc/$I.gz' is damaged" d_crc
cp -r data d_bomb && rm d_bomb/$I && (head -c 16 data/$I && head -c 60000000 /dev/zero) | gzip >d_bomb/$I.gz
(failed=0 && limit && data 'goes on after' d_bomb && [ "$failed" -eq 0 ])
check 'no more is unpacked than the header announces' test $? -eq 0
cp -r data d_folder && rm d_folder/$I && mkdir d_folder/$I
data 'it is a directory' d_folder
data 'not a directory' $M

# ---- runs ----
C=checkpoints/ckpt-00000003
resume() { # resume TEXT PREPARATION [ARGS...]: in a copy of the run, called w; it stays as it is
    local text=$1 before
    rm -rf w
    cp -r run w
    rm -r w/checkpoints/ckpt-00000002 # or that one would serve
    (cd w && eval "$2") || fail "cannot prepare: $2"
    before=$(list)
    refuse 3 "$text" train --resume --data data --out w --steps 4 -q "${@:3}"
    check "nothing changed by: $2" test "$before" = "$(list)"
}
list() { find w ! -type d ! -name lock -exec cksum {} + 2>/dev/null | sort; }
# shellcheck disable=SC2034
state=$(realpath run)/$C/state.safetensors
resume "'w/$C/state.safetensors'" "rm $C/state.safetensors"
resume 'cut short' "head -c 1000 \$state >$C/state.safetensors"
resume '0 bytes' ": >$C/state.safetensors"
resume 'is a directory' "rm $C/state.safetensors; mkdir $C/state.safetensors"
resume 'No such file' "ln -sf nowhere $C/state.safetensors"
resume 'is not the state of a run' "cp model.safetensors $C/state.safetensors"
resume 'not finite' "value $C/state.safetensors '$NAN'"
resume 'is not the state of a run' "edit \$state 's/(step[^0-9]*)3/\1-3/' >$C/state.safetensors"
resume 'is not the state of a run' "edit \$state 's/(step[^0-9]*)3/\11e9/' >$C/state.safetensors"
resume "lacks tensor 'adam_v.class_embedding.weight'" \
    "edit \$state 's/adam_v\.class_embedding\.weight/adam_v.class_embedding.wait/' >$C/state.safetensors"
resume "'w/run.json', which holds the run's options, is missing" 'rm run.json'
resume "'w/run.json' is damaged" 'head -c 40 run.json >x; mv x run.json'
resume "'w/run.json' is damaged" 'echo [] >run.json'
resume "'w/run.json' is damaged: option '--channels'" "sed -i 's/\"4,8\"/\"-4\"/' run.json"
resume "'w/checkpoints/best.json' is damaged" 'head -c 9 checkpoints/best.json >x; mv x checkpoints/best.json'
resume 'remove it to go on' 'echo {}x >checkpoints/best.json'
resume "'w/checkpoints/best.json' is damaged; remove it to go on" 'sed -i "s/: 3/: -3/" checkpoints/best.json'
resume "'w/checkpoints/ckpt-00000002' is gone" 'sed -i "s/: 3/: 2/" checkpoints/best.json' --resume best
resume "'w/checkpoints'" 'rm -r checkpoints; echo >checkpoints'

check 'refusals wrote nothing' test ! -e written -a ! -e out.png -a ! -e out.safetensors -a ! -e runs
finish
