#!/usr/bin/env bash
# sdlora data: what a data set holds, NumPy's files from end to end, styled copies; no file of the user's is lost.
. "$(dirname "$0")/lib_cli.sh"
idx_data src train 24
idx_data src t10k 7
cp -r src spare
train() { # train DATA NAME: three steps; SMALL is a list of words
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --data "$1" --out "$2" --steps 3 -q >out.txt 2>err.txt
}
raw() { gzip -dc "$1" | tail -c +17; } # the pixels of an IDX file of images

# ---- what there is ----
expect 0 '' data src
cat >wanted <<'END'
                   train        test
images                24           7
size                 8x8         8x8
channels               1           1
classes                3           3
class 0                8           3
class 1                8           2
class 2                8           2

END
check 'a table' cmp -s <(head -n 9 out.txt) wanted
sum=$(cat <(tail -c +17 src/train-images-idx3-ubyte) <(tail -c +9 src/train-labels-idx1-ubyte) | sha256sum | cut -d' ' -f1)
check 'the sum of images and labels' grep -qx "train, IDX, SHA-256 $sum" out.txt
for file in src/*; do check "$file is named" grep -qx "  $file" out.txt; done
expect 0 "\"sha256\": \"$sum\"" data --json src
check 'nothing else on either stream' test ! -s err.txt -a "$(tr -d ' \n' <out.txt | head -c 32)" = '{"path":"src","splits":{"train":'
mkdir alone && cp src/train-* alone/
expect 0 'images                24' data alone
check 'one split, one column' test "$(head -n 1 out.txt)" = '                   train'
cp -r src "$(printf 'odd\033name')"
expect 0 'odd\x1bname/train-images' data "$(printf 'odd\033name')"
check 'no escape reaches the terminal' test "$(grep -c "$(printf '\033')" out.txt)" -eq 0
mkdir empty
refuse 3 "no data: 'nix' is not there: run 'scripts/get_data.sh mnist'" data nix
refuse 3 "no 'train-images-idx3-ubyte' (or .gz) in 'empty', nor 'emnist-*-train-images-idx3-ubyte', nor 'train_images.npy'" data empty
refuse 3 "no data: 'wanted' is not a directory" data wanted
cp -r src half && rm half/t10k-labels-idx1-ubyte
refuse 3 "no 't10k-labels-idx1-ubyte' (or .gz) in 'half', but 'half/t10k-images-idx3-ubyte'" data half
cp -r src short && truncate -s 300 short/t10k-images-idx3-ubyte
refuse 3 "'short/t10k-images-idx3-ubyte' is cut short" data short
refuse 3 'data/mnist' data

# ---- NumPy ----
npy() { # npy DESCR SHAPE: a header before what comes on standard input
    local text="{'descr': '$1', 'fortran_order': False, 'shape': $2, }"
    printf '\223NUMPY\001\000v\000%-117s\n' "$text"
    cat
}
mkdir np
tail -c +17 src/train-images-idx3-ubyte | npy '|u1' '(24, 8, 8)' >np/train_images.npy
tail -c +9 src/train-labels-idx1-ubyte | npy '|u1' '(24,)' >np/train_labels.npy
tail -c +17 src/t10k-images-idx3-ubyte | npy '|u1' '(7, 8, 8, 1)' >np/test_images.npy
for label in 0 1 2 0 1 2 0; do printf '%b' "\\0$label\\0\\0\\0\\0\\0\\0\\0"; done | npy '<i8' '(7, 1)' >np/test_labels.npy
expect 0 "train, NumPy, SHA-256 $sum" data np
check 'the same set' cmp -s <(sed '/^ *$/,$d' out.txt) <("$SDLORA" data src | sed '/^ *$/,$d')
mkdir one two && cp -r src one/set && cp -r np two/set
(cd one && train set ../a) && (cd two && train set ../b) # a model's file knows the name of its data
check 'trains to the same bytes' cmp -s a/model.safetensors b/model.safetensors
check 'validated' grep -q 'val_loss' a/metrics.jsonl
check 'with the same validation' cmp -s <(grep -o '"val_loss[^,}]*' a/metrics.jsonl) <(grep -o '"val_loss[^,}]*' b/metrics.jsonl)
expect 0 noise.png noise --data np --image-size 8
refuse 2 "'np/test_labels.npy' is read by this command" noise --data np -o np/test_labels.npy
cp -r np colour
head -c 384 src/train-images-idx3-ubyte | npy '|u1' '(8, 4, 4, 3)' >colour/train_images.npy
tail -c +9 src/train-labels-idx1-ubyte | head -c 8 | npy '|u1' '(8,)' >colour/train_labels.npy
expect 0 'channels               3           1' data colour
expect 0 negative data -t invert -o negative colour
check 'a copy in colour' cmp <(tail -c +129 negative/train_images.npy | od -An -v -tu1 -w1) \
    <(tail -c +129 colour/train_images.npy | od -An -v -tu1 -w1 | awk '{ printf "%4d\n", 255 - $1 }')
expect 0 'channels               3           3' data negative
cp -r np bad && printf 'x' >>bad/train_images.npy
refuse 3 "'bad/train_images.npy' goes on after the 1536 bytes" train --data bad
cp np/train_images.npy bad && printf 'x' >>bad/test_labels.npy
refuse 3 "'bad/test_labels.npy' goes on" data -t bold -o nothing bad
check 'refusals wrote nothing' test ! -e nothing -a ! -e runs

# ---- copies ----
expect 0 '' data src --transform invert -o copies/inverted/
check 'prints where' test "$(cat out.txt)" = copies/inverted
names='about.json t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz'
check 'what it holds' test "$(cd copies/inverted && echo *)" = "$names"
check 'nothing beside it' test "$(ls -A copies)" = inverted
for split in train t10k; do
    check "$split: 255 - p" cmp -s <(tail -c +17 src/$split-images-idx3-ubyte | od -An -v -tu1 -w1 | awk '{print 255 - $1}') \
        <(raw copies/inverted/$split-images-idx3-ubyte.gz | od -An -v -tu1 -w1 | awk '{print $1}')
    check "$split: the labels" cmp -s src/$split-labels-idx1-ubyte <(gzip -dc copies/inverted/$split-labels-idx1-ubyte.gz)
done
expect 0 '' data copies/inverted -t invert -o back
check 'twice is the original' cmp -s src/train-images-idx3-ubyte <(gzip -dc back/train-images-idx3-ubyte.gz)
expect 0 '' data src --transform invert -o again
check 'the same bytes again' diff -r copies/inverted again
train again c
check 'train reads it' test -s c/model.safetensors
for style in outline contour bold thin slant; do
    expect 0 "$style" data np -t $style -o $style
    check "$style is another set" test "$(raw $style/train-images-idx3-ubyte.gz | cksum)" != "$(raw again/train-images-idx3-ubyte.gz | cksum)"
    check "$style: as many" test "$(raw $style/train-images-idx3-ubyte.gz | wc -c)" -eq 1536
done
expect 0 '' data src -t thin -n 4 -o few
expect 0 'images                 4           7' data few
check 'all classes are there' grep -q 'classes                3           3' out.txt
check 'the first of each' cmp -s <(gzip -dc few/train-labels-idx1-ubyte.gz | tail -c +9) <(printf '\000\001\002\000')
refuse 2 'the limit (--limit) of 2 images is less than the 3 classes' data src -t thin -n 2 -o nothing
expect 0 alone2 data alone -t bold -o alone2
check 'no test split, none made' test ! -e alone2/t10k-images-idx3-ubyte.gz
check 'about.json says what it is' grep -q '"transform": "bold"' alone2/about.json
check 'the source is as it was' diff -r src spare

# ---- options ----
refuse 2 "'--transform' must be one of outline, contour, bold, thin, slant, invert, got 'blur'" data -t blur -o nothing
refuse 2 '--transform needs --output' data src -t bold
for option in '-o nothing' '-n 5' '--force'; do
    # shellcheck disable=SC2086
    refuse 2 'it needs --transform' data src $option
done
refuse 2 'leave out --transform' data src -t bold -o nothing --json
refuse 2 'takes one DIR' data src np
refuse 2 "'--limit' must be 0 to" data src -t bold -o nothing -n -1
refuse 3 "no data: 'nix' is not there" data nix -t bold -o nothing
refuse 3 "cut short" data short -t bold -o nothing
check 'refusals wrote nothing' test ! -e nothing -a -z "$(find . -name '.sdlora*')"

# ---- nobody's files are lost ----
ln -s src link
for output in src src/ ./src link link/; do
    refuse 2 'is read by this command' data src -t bold --force -o $output
done
cp -r src mine && gzip mine/* && cp -r mine kept # the names that this command gives, but not made by it
for output in mine half wanted empty/../spare; do
    refuse 2 "with --output" data src -t bold -o $output
    refuse 2 "with --output" data src -t bold --force -o $output
done
check 'of the same names' diff -r mine kept
echo '{"made_by": "somebody"}' >mine/about.json
refuse 2 'holds files that this command did not make' data src -t bold --force -o mine
refuse 2 "'again' holds an earlier copy; --force replaces it" data src -t bold -o again
check 'not replaced' diff -r copies/inverted again
echo dear >again/letter
refuse 2 'holds files that this command did not make' data src -t bold --force -o again
rm again/letter && mkdir again/sub
refuse 2 'holds files that this command did not make' data src -t bold --force -o again
rmdir again/sub
ln -s again other
refuse 2 'is no directory' data src -t bold --force -o other
ln -s nowhere dangling
refuse 2 'is no directory' data src -t bold -o dangling
expect 0 again data src -t bold --force -o again
check 'replaced' diff -r <(raw again/train-images-idx3-ubyte.gz) <(raw bold/train-images-idx3-ubyte.gz)
check 'whole' test "$(cd again && echo *)" = "$names"
expect 0 empty data src -t bold -o empty
check 'an empty directory is taken' test -s empty/about.json
refuse 1 'Not a directory' data src -t bold -o wanted/copy
[ "$(id -u)" -eq 0 ] || {
    mkdir locked && chmod 555 locked
    refuse 1 'Permission denied' data src -t bold -o locked/copy
    refuse 1 'Permission denied' data src -t bold -o locked
}
mkdir .sdlora-0123456789abcdef.tmp && touch .sdlora-0123456789abcdef.tmp/about.json # left by one that was killed
full=$( (ulimit -f 0 && exec "$SDLORA" data src -t bold -o nothing) 2>&1 | cat)
check "a full disk: $full" test "${full#sdlora: cannot write }" != "$full"
check 'nothing of a failed one stays, nor of a killed one' test ! -e nothing -a -z "$(find . -name '.sdlora*')"

finish
