#!/usr/bin/env bash
# Files that are missing, damaged or do not fit, and disks that are full.
. "$(dirname "$0")/lib_cli.sh"

# no model, no data
refuse 3 "cannot open 'runs/mnist/model.safetensors': No such file or directory; train one with 'sdlora train'" sample
refuse 3 'train one with' finetune
refuse 3 "cannot open 'm'" predict --model m --input i --output o
refuse 3 "data/mnist" train
refuse 3 "'nix'" train --data nix
refuse 3 "cannot open 'nix'" info nix

# data
idx_data good train 24
idx_data good t10k 6
cp -r good short && head -c 1000 good/train-images-idx3-ubyte >short/train-images-idx3-ubyte
refuse 3 'short/train-images-idx3-ubyte' train --data short
refuse 3 'short/train-images-idx3-ubyte' info short/train-images-idx3-ubyte
cp -r good zipped && gzip zipped/*
expect 0 '"shape"' info --json zipped/train-images-idx3-ubyte.gz
cp -r zipped cut && head -c 60 zipped/train-images-idx3-ubyte.gz >cut/train-images-idx3-ubyte.gz
refuse 3 'cut/train-images-idx3-ubyte.gz' train --data cut
refuse 3 'cut/train-images-idx3-ubyte.gz' info cut/train-images-idx3-ubyte.gz
echo '<html>not found</html>' >page.gz
refuse 3 'page.gz' info page.gz
cp -r good counts && idx_data other train 23 && cp other/train-labels-idx1-ubyte counts/
refuse 3 '23' train --data counts
mkdir alone && cp good/train-* alone/
refuse 3 '--val-images 0' train --data alone
refuse 2 'the batch size (--batch-size) 25 is more than the number of images, 24' train --data good --batch-size 25
refuse 2 'the image size (--image-size) 9 must be a multiple of 4' train --data good --image-size 9
check 'refusals wrote nothing' test ! -e runs

# shellcheck disable=SC2086
expect 0 runs/good/model.safetensors train $SMALL --data good --steps 3 --save-every 0
M=runs/good/model.safetensors
check 'no data beyond standard output' test "$(cat out.txt)" = "$M"
refuse 2 "there is no class 3: the model '$M' knows 0 to 2" sample --model $M --digit 3
for bad in x 1,,2 '1,' -1 1x ''; do
    refuse 2 '--class' sample --model $M --digit="$bad"
done
refuse 2 '--steps must lie in 1..20' sample --model $M --steps 21
refuse 2 'no room' sample --model $M --rows 2 --cols 2 -n 5
refuse 2 'BatchNorm' sample --model $M --bn batch
cp $M 'of the number of steps'
refuse 2 "and 'of the number of steps' has GroupNorm" sample --model 'of the number of steps' --bn batch
refuse 3 "cannot open adapter 'runs/good/lora'" sample --model $M --lora
refuse 3 "cannot open adapter 'nix'" sample --model $M --lora nix:0.5
refuse 2 "no layer is called 'w_x'" finetune --model $M --data good --target w_q,w_x
check 'the names that exist are listed' grep -q "'w_v'" err.txt
head -c 700 $M >half.safetensors
refuse 3 half.safetensors sample --model half.safetensors
refuse 3 half.safetensors info half.safetensors
cp -r good wide
printf '\007' | dd of=wide/train-labels-idx1-ubyte bs=1 seek=8 conv=notrunc 2>/dev/null
refuse 2 "the data have 8 classes, and '$M' knows 3" train --init $M --data wide
cp -r good above
printf '\003' | dd of=above/t10k-labels-idx1-ubyte bs=1 seek=12 conv=notrunc 2>/dev/null
# shellcheck disable=SC2086
refuse 3 "'above/t10k-labels-idx1-ubyte': label 3, of image 4," train $SMALL --data above

# full disks
"$SDLORA" --help >/dev/full 2>err.txt
check 'standard output on a full disk is an error' test $? -eq 1
check 'and named' grep -q 'cannot write to standard output: No space left' err.txt
"$SDLORA" sample --model $M -n 1 --steps 1 -o - >/dev/full 2>err.txt
check 'also for a picture' test $? -eq 1
refuse 1 "cannot write 'nix/a.png'" sample --model $M -o nix/a.png
refuse 1 'is a directory' sample --model $M -o good

finish
