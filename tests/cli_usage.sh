#!/usr/bin/env bash
# The command line: help, version, options and their refusals. Nothing here needs data or a model.
. "$(dirname "$0")/lib_cli.sh"

expect 0 'Usage: sdlora COMMAND' --help
check 'help goes to standard output' test -s out.txt -a ! -s err.txt
expect 0 'Usage: sdlora COMMAND' help
expect 2 'Usage: sdlora COMMAND'
check 'without a command usage goes to standard error' test -s err.txt -a ! -s out.txt
expect 0 'sdlora 0.' --version
check 'the first line is name and version' test "$(head -n 1 out.txt | cut -d' ' -f1)" = sdlora
expect 0 'OpenBLAS core' --version --verbose
refuse 2 "unknown command 'trian'; did you mean 'train'" trian
refuse 2 "unknown option '--hepl'" --hepl
for command in train finetune sample eval predict merge extract resize noise data info list bench; do
    expect 0 "Usage: sdlora $command" $command --help
    expect 0 "Usage: sdlora $command" help $command
    expect 0 "Usage: sdlora $command" $command -h --no-such-option
    refuse 2 "unknown option '--no-such-option'" $command --no-such-option
    check "refusal of $command names its help" grep -q "Try 'sdlora $command --help'" err.txt
done

# names
refuse 2 "did you mean '--batch-size'" train --batchsize 8
refuse 2 "did you mean '--epochs'" train --epcohs=8
refuse 2 "did you mean '--channels'" train --chan 8
refuse 2 "unknown option '-z'" train -z
refuse 2 "unexpected argument 'data/mnist'" train data/mnist
refuse 2 "option '--lr' needs a value" train --lr
refuse 2 "option '--lr' needs a value" train --lr --epochs 3
refuse 2 "takes no value" train --skip=1
refuse 2 "unknown option '--no-lr'" train --no-lr
refuse 2 "'info' needs a PATH" info
refuse 2 "takes one DIR" list a b
refuse 2 "'train' takes options only" train a

# numbers: to the end, in range, finite
refuse 2 "'--batch-size' needs a whole number, got '8x'" train --batch-size 8x
refuse 2 "'--batch-size' needs a whole number, got ''" train --batch-size=
refuse 2 "'--batch-size' needs a whole number, got ' 8'" train --batch-size ' 8'
refuse 2 "'--batch-size' needs a whole number, got '1e3'" train --batch_size=1e3
refuse 2 "'--batch-size' must be 1 to 1000000" train --batch-size 0
refuse 2 "'--batch-size' must be 1 to 1000000" train --batch-size 99999999999999999999
refuse 2 "'--rank' must be 1 to 65536, got '0'" finetune --rank 0
refuse 2 "'--rank' must be 1 to 65536, got '-3'" finetune --rank -3
for bad in nan inf -inf 1e999 0x 1,5 '' abc; do
    refuse 2 "'--lr' needs a number" train --lr="$bad"
done
refuse 2 "'--lr' must be 1e-30 to 1e+30" train --lr 0
refuse 2 "'--lr' must be 1e-30 to 1e+30" train --lr=-1e-3
refuse 2 "'--seed' needs a whole number" train --seed -1
refuse 2 "'--seed' needs a whole number" train --seed 18446744073709551616
refuse 2 "'--mem' needs a size with its unit" train --mem 512
refuse 2 "'--mem' needs a size with its unit" train --mem 512MBs
refuse 2 "'--mem' needs a size with its unit" train --mem -1GB
refuse 2 "'--save-every' needs a number of steps or epochs" train --save-every 5x
refuse 2 "'--channels' needs a whole number" train --channels 32,,64
refuse 2 "'--channels' takes at most 8" train --channels 1,2,3,4,5,6,7,8,9
refuse 2 "'--norm' must be one of group, batch, got 'layer'" train --norm layer
refuse 2 "'--preset' must be one of mnist, tiny, photo, seed" train --preset huge
refuse 2 "'--eta' must be 0 to 1" sample --eta 1.5

# Both ends of each range, and what lies beyond: what is accepted goes on to the data, which is not there.
accept() { expect 3 "'nix'" train --data nix --channels 4 "$@"; }
while read -r option low high below above; do
    accept "--$option=$low"
    accept "--$option=$high"
    for value in $below $above; do
        refuse 2 "option '--$option' must be ${low#*,} to ${high#*,}, got '" train --data nix "--$option=$value"
    done
done <<'END'
channels 1 16384 0 16385
image-size 1 1024 0 1025
time-dim 4 4096 3 4097
qsize 1 4096 0 4097
vsize 1 4096 0 4097
fsize 1 65536 0 65537
context-tokens 1 256 0 257
context-dim 1 4096 0 4097
groups 1 65536 0 65537
timesteps 2 100000 1 100001
epochs 1 1000000 0 1000001
steps 0 1000000000000 -1 1000000000001
batch-size 1 1000000 0 1000001
micro-batch 0 1000000 -1 1000001
lr 1e-30 1e+30 0.9e-30 1.001e30
lr-end 0 1 -1e-9 1.000001
warmup 0 1000000000 -1 1000000001
cond-drop 0 1 -0.001 1.001
beta1 0 0.9999999 -1e-9 0.99999991
beta2 0 0.9999999 -1e-9 0.99999991
adam-eps 1e-30 1 0 1.001
weight-decay 0 1000 -1 1001
grad-clip 0 1e+30 -1 1.001e30
ema 0 0.9999999 -1e-9 0.99999991
val-images 0 1000000000 -1 1000000001
END
refuse 2 "'--rank' must be 1 to 65536" finetune --rank 65537
expect 3 'train one with' finetune --rank 65536
refuse 2 "'--image-size' must be 1 to 1024" noise --image-size 0

# contradictions
refuse 2 'give --epochs or --steps, not both' train --epochs 2 --steps 5
refuse 2 'needs a null class, which --no-null-class leaves out' train --cond-drop 0.1 --no-null-class
refuse 2 'belongs to --norm group' train --norm batch --groups 4
refuse 2 'multiple of' train --image-size 27 --channels 4,8
refuse 2 '--compare needs an adapter' sample --compare
refuse 2 'belongs to --sampler ddim' sample --sampler ddpm --eta 0.5
refuse 2 'leave out' sample --trajectory 5 --rows 3
refuse 2 'not as a GIF' sample --trajectory 5 -o moving.gif
refuse 2 'leave out --compare' sample --trajectory 5 --compare --lora -o moving.apng
refuse 2 "'--sampler' must be one of ddpm, ddim, unipc, euler, euler-a, heun, dpm++2m, or" sample --sampler plms
refuse 2 'leave out --rows' sample --interpolate 1:2 --rows 3
refuse 2 '2 images in a row at least' sample --interpolate 1:2 --cols 1
refuse 2 'leave out --class' sample --interpolate 1:2 --class 3
refuse 2 'leave out --format' sample --interpolate 1:2 --format npy
refuse 2 "'--cfg-rescale' must be 0 to 1" sample --cfg-rescale 1.1
refuse 2 'leave out' sample --format idx --rows 3
refuse 2 "'predict' needs --input" predict
check 'refusals wrote nothing' test ! -e runs

# ---- the instruction set ----
simd=$("$SDLORA" --version --verbose | sed -n 's/.*SIMD: //p')
for command in train finetune sample predict bench '--version --verbose'; do
    # shellcheck disable=SC2086
    SDLORA_SIMD=garbage refuse 2 "SDLORA_SIMD is 'garbage'; this program on this processor has" $command
    check "$command: what there is, is listed" grep -q "has.* $simd" err.txt
done
listed=$(sed 's/.* has //; s/,//g' err.txt)
check 'the reference is there, and not by itself' test "$simd" != ref -a "${listed##* }" = ref
for level in avx512 avx2 neon baseline ref; do # what is listed runs, what is not is refused
    case " $listed " in
    *" $level "*) SDLORA_SIMD=$level expect 0 "SIMD: $level" --version --verbose ;;
    *) SDLORA_SIMD=$level refuse 2 "SDLORA_SIMD is '$level'" --version --verbose ;;
    esac
done
SDLORA_SIMD='' expect 0 "SIMD: $simd" --version --verbose

# ---- threads: no more than cores ----
threads_of() { "$@" --version --verbose | sed -n 's/^threads: //p'; }
cores=$(threads_of "$SDLORA")
one=$(taskset -pc $$ | sed 's/.*: \([0-9]*\).*/\1/') # the first core that there is
check 'as many as cores that it may use' \
    test "$(threads_of taskset -c "$one" "$SDLORA")" = 1
expect 0 "--threads 1000: this process may use $cores core" bench --preset tiny --runs 1 --batch-size 8 --eval-size 8 \
    --threads 1000
check 'and so many work' grep -q "$cores thread" out.txt
expect 0 '' bench --preset tiny --runs 1 --batch-size 8 --eval-size 8 --threads 1
check 'of fewer nothing is said' test "$(grep -c 'may use' err.txt)" = 0
case $(LD_DEBUG=bindings "$SDLORA" --version 2>&1 | grep 'symbol .openblas_num_threads_env') in
    '') ;; # another dynamic linker, or an OpenBLAS that does not ask
    *libopenblas*' to '*sdlora*) check 'OpenBLAS starts no threads' true ;;
    *) check 'OpenBLAS starts no threads' false ;;
esac

finish
