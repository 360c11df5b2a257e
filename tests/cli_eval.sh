#!/usr/bin/env bash
# sdlora eval: models, images and their figures; the judge that is kept; pictures; what is refused.
. "$(dirname "$0")/lib_cli.sh"
export XDG_CACHE_HOME=$WORK/cache
idx_data data train 48
idx_data data t10k 30
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --steps 30 -q >/dev/null || fail 'a model is trained'
"$SDLORA" sample --model run -n 10 --steps 4 --seed 3 --format idx -o drawn -q >/dev/null || fail 'images are drawn'
score() { # score ARGS...: the JSON without spaces into out.txt; few steps of a small judge
    "$SDLORA" eval --data data --judge-epochs 40 --progress none --json "$@" 2>err.txt >json.txt
    local rc=$?
    tr -d ' \n' <json.txt >out.txt
    return $rc
}
says() { grep -qF -- "$1" out.txt; }
figures() { sed 's/.*"floor_images"/"floor_images"/' out.txt; } # without what was scored and by whom

# ---- a model, and its images in files: the same figures, at any number of threads ----
check 'a model' score run -n 30 --steps 4 --seed 3
check 'what was scored' says '{"source":"run","kind":"model","images":30,"sampler":"unipc","steps":4,"cfg_scale":1.5,"seed":3,"lora":[],"trained_steps":30}'
check 'the judge' says '"images":42,"epochs":40,"features":128,"cached":false'
check 'its judge knows the classes' says '"accuracy":1.0}'
for key in accuracy frechet precision recall copies nearest_pixels nearest_features class_accuracy; do
    check "$key and its floor" grep -qE "\"$key\":\{\"value\":[^,]+.*\"floor\":" out.txt
done
check 'nobody asked for CAS' test "$(grep -c '"cas"' out.txt)" -eq 0
check 'the floor' says '"floor_images":6' # of 48, every sixth of each class
figures >model.txt
check 'images in files' score drawn
check 'their kind' says '{"source":"drawn","kind":"images","images":30}'
check 'the judge was kept' says '"cached":true'
check 'the same figures' cmp -s model.txt <(figures)
rm -r cache
check 'one thread' score drawn --threads 1
check 'the judge is made anew' says '"cached":false'
check 'the same figures with one thread' cmp -s model.txt <(figures)
sum=$(sha256sum cache/sdlora/* | cut -d' ' -f1)
rm -r cache
check 'two threads' score drawn --threads 2
check 'the same judge' test "$sum" = "$(sha256sum cache/sdlora/* | cut -d' ' -f1)"

# ---- with an adapter; a model of other images ----
"$SDLORA" finetune --model run --data data --out tuned --steps 2 --batch-size 8 --log-every 1 --milestone-steps 0 \
    --sample-every 0 --threads 1 -q >/dev/null || fail 'an adapter is trained'
check 'an adapter' score run -n 6 --steps 2 --lora tuned:0.5 --neighbours 0
check 'is named' says '"lora":["tuned:0.5"]'
expect 0 ', --lora tuned:0.5' eval run --data data --judge-epochs 1 -n 6 --steps 2 --lora tuned:0.5
cp -r data others && tr '\340' '\341' <data/train-images-idx3-ubyte >others/train-images-idx3-ubyte
expect 0 'note: the model was trained on other images (data)' eval run --data others --judge-epochs 1 -n 6 --steps 1
expect 0 '' eval run --data data --judge-epochs 1 -n 6 --steps 1
check 'no note where they are the same' test "$(grep -c '^note' err.txt)" -eq 0
rm -r cache && score drawn

# ---- images whose figures are known ----
check 'the test images themselves' score data/t10k
check 'no distance' grep -qE '"frechet":\{"value":[0-9.]+e-|"frechet":\{"value":0\.0' out.txt
check 'all within reach' says '"recall":{"value":1.0'
check 'all recognised' says '"accuracy":{"value":1.0'
check 'the training images' score data
check 'all are copies' says '"copies":{"value":48,"of":48'
cp data/t10k-images-idx3-ubyte wrong-images-idx3-ubyte
{
    head -c 8 data/t10k-labels-idx1-ubyte
    printf '%30s' '' | tr ' ' '\001'
} >wrong-labels-idx1-ubyte
check 'labels that are wrong' score wrong
check 'a third is right' says '"accuracy":{"value":0.333333333'
check 'the matrix' says '"confusion":[[0,0,0],[10,10,10],[0,0,0]]'
cp data/t10k-images-idx3-ubyte bare
check 'images without labels' score bare
check 'have no accuracy' says '"accuracy":{"value":null,'
check 'and no classes' test "$(grep -c '"confusion"' out.txt)" -eq 0
check 'some of them' score bare -n 10
check 'ten' says '"kind":"images","images":10}'
{
    head -c 4 bare && be32 8 && be32 16 && be32 15
    tail -c +17 bare
} >other
check 'another size' score other
check 'no neighbours' score drawn --neighbours 0
check 'none are searched' test "$(grep -c '"copies"' out.txt)" -eq 0
check 'CAS' score data --cas --neighbours 0
check 'is 1 where it must be' grep -qE '"cas":\{"value":1\.0,"floor":[0-9.]+\}' out.txt

# ---- the table ----
expect 0 'accuracy of a judge trained on them' eval drawn --data data --judge-epochs 40 --neighbours 5 --cas -q
check 'nothing else on standard error' test ! -s err.txt
check 'a floor beside each figure' grep -qE '^Frechet distance +[0-9.]+ +[0-9.]+$' out.txt
check 'copies of how many' grep -qE '^copies of training images +[0-9]+ of 5 +[0-9]+ of 5$' out.txt
check 'a line for each class' test "$(grep -cE '^[012]  ' out.txt)" -eq 3
expect 0 '1         ' eval wrong --data data --judge-epochs 40 -q
check 'what a class is taken for' grep -qE '^1 +33.33 % +[0-9.]+ %  0 \(10\), 2 \(10\)$' out.txt

# ---- classes by name: those of the images may stand in another order ----
cp -r data named && printf 'up\ndown\nacross\n' >named/classes.txt
mkdir turned && cp data/train-images-idx3-ubyte turned/ && printf 'down\nacross\nup\n' >turned/classes.txt
{
    head -c 8 data/train-labels-idx1-ubyte
    tail -c +9 data/train-labels-idx1-ubyte | tr '\000\001\002' '\002\000\001'
} >turned/train-labels-idx1-ubyte
check 'named classes' score turned --data named
check 'matched by name' says '"accuracy":{"value":1.0'
check 'and told' says '"classes":["up","down","across"]'
expect 0 'across' eval turned --data named --judge-epochs 40 -q
refuse 3 'none of' eval turned --data data --judge-epochs 1

# ---- where the judge is kept ----
file=$(echo cache/sdlora/*)
check 'one file' test -f "$file"
score drawn && figures >model.txt
head -c 5000 "$file" >short && mv short "$file"
check 'a damaged judge' score drawn
check 'is made anew' says '"cached":false'
check 'with the same figures' cmp -s model.txt <(figures)
check 'and kept' test "$(sha256sum "$file" | cut -d' ' -f1)" = "$sum"
rm -r cache
check 'no cache is wanted' score drawn --no-cache
check 'none is made' test ! -e cache
(unset XDG_CACHE_HOME HOME && score drawn)
check 'no home, no cache' cmp -s model.txt <(figures)
(unset XDG_CACHE_HOME && HOME=$WORK/home score drawn)
check 'a home' test -d home/.cache/sdlora
touch cache # a file where a directory is wanted
expect 0 'the judge is not kept for the next time' eval drawn --data data --judge-epochs 1
rm cache

# ---- pictures ----
expect 0 'pics/worst.png' eval drawn --data data --judge-epochs 1 -o pics
for name in confusion worst neighbours; do check "$name.png" test "$(head -c 4 pics/$name.png | tail -c 3)" = PNG; done
expect 0 '"pics/confusion.png"' eval drawn --data data --judge-epochs 1 -o pics --json
mkdir theirs && echo notes >theirs/worst.png
refuse 2 "'theirs/worst.png' is there already, and this program did not draw it" eval drawn --data data -o theirs
check 'it is still there' test "$(cat theirs/worst.png)" = notes
refuse 2 "'bare' is no directory" eval drawn --data data -o bare
mkdir -p folder/a
"$SDLORA" sample --model run -n 1 --steps 1 -o folder/a/1.png -q >/dev/null
refuse 2 "'folder/report/confusion.png' would be one of the pictures in 'folder'" eval drawn --data folder -o folder/report
expect 0 'bare-pics/worst.png' eval bare --data data --judge-epochs 1 --neighbours 0 -o bare-pics
check 'nothing to confuse, no neighbours' test "$(echo bare-pics/*)" = 'bare-pics/eval.json bare-pics/worst.png'

# ---- refusals ----
refuse 3 "there is no 'nix', and no 'nix-images-idx3-ubyte.gz'" eval nix --data data
refuse 2 '--steps is for models' eval drawn --data data --steps 3
refuse 2 '--cas needs images with labels' eval bare --data data --cas
refuse 3 'no data: ' eval drawn --data nowhere
idx_data two train 24 && idx_data two t10k 12
sed 's/\x02/\x01/g' two/train-labels-idx1-ubyte >l && mv l two/train-labels-idx1-ubyte
refuse 3 "label 2, of image 2" eval drawn --data two
printf '\000\000\010\001\000\000\000\003\001\001\001' >wrong-labels-idx1-ubyte
refuse 3 "has 30 images, but 'wrong-labels-idx1-ubyte' has 3 labels" eval wrong --data data
printf '\000\000\010\001\000\000\000\014\000\001\000\001\000\001\000\001\000\001\000\001' >two/t10k-labels-idx1-ubyte
refuse 3 "draws 3 classes, and 'two' has 2" eval run --data two
refuse 3 'label 2' eval drawn --data two
refuse 2 "--judge-epochs" eval drawn --judge-epochs 1001
expect 0 'Beside each figure stands' eval --help
finish
