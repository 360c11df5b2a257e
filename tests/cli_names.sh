#!/usr/bin/env bash
# Classes by name: classes.txt and folders, training, adapters of other classes, sample --class cat, what stands beside rows.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 48
idx_data data t10k 6
printf '%s\n' cat 'wild dog' 'rock, paper' >data/classes.txt
# shellcheck disable=SC2086
train() { "$SDLORA" train $SMALL --sample-every 0 "$@" >out.txt 2>err.txt </dev/null; }
tune() { # tune MODEL OUT ARGS...
    "$SDLORA" finetune --model "$1" --out "$2" --batch-size 8 --threads 1 --progress none --sample-every 0 "${@:3}" \
        >out.txt 2>err.txt </dev/null
}
sample() { "$SDLORA" sample --model run --steps 2 -q "$@" >out.txt 2>err.txt </dev/null; }
says() { grep -qF -- "$1" err.txt; }
names_in() { # names_in FILE: as JSON has them
    "$SDLORA" info --json "$1" | tr -d '\n' | grep -o '"class_names": \[[^]]*\]' | head -n 1 | tr -s ' '
}
pixels() { gzip -dc "$1-images-idx3-ubyte.gz" | tail -c +17 | cksum; }
labels() { gzip -dc "$1-labels-idx1-ubyte.gz" | tail -c +9 | od -An -v -tu1 -w1 | tr -d ' \n'; }
size() { od -An -tu1 -j16 -N8 "$1" | awk '{ print $3 * 256 + $4 "x" $7 * 256 + $8 }'; } # of a PNG

# ---- in the model ----
check 'a model of named classes' train --data data --out run --steps 6
check 'which are told' says 'classes: cat, wild dog, rock, paper'
check 'are in its file' test "$(names_in run/model.safetensors)" = '"class_names": [ "cat", "wild dog", "rock, paper" ]'
check 'in its checkpoint' test "$(names_in run/checkpoints/ckpt-00000006/model.safetensors)" = "$(names_in run/model.safetensors)"
expect 0 'cat, wild dog, rock, paper' info run/model.safetensors
expect 0 'cat, wild dog, rock, paper' info data
expect 0 'cat, wild dog, rock, paper' info run
check 'a run is resumed' train --data data --out run --steps 8 --resume
check 'and still has them' test "$(names_in run/model.safetensors)" = '"class_names": [ "cat", "wild dog", "rock, paper" ]'
cp -r data renamed
printf '%s\n' cat mouse 'rock, paper' >renamed/classes.txt
refuse 2 'class_names' train --data renamed --out run --resume --steps 9
check 'by force it goes on with other names' train --data renamed --out run --resume --steps 9 --force
check 'of which the file has' grep -q mouse <<<"$(names_in run/model.safetensors)"
check 'once more, as it was' train --data data --out run --steps 6

# ---- by name, by number ----
check 'a name' sample --class 'wild dog' -n 4 --format idx -o name
check 'a number' sample --class 1 -n 4 --format idx -o number
check 'the other spelling' sample --digit 1 -n 4 --format idx -o digit
check 'the same class' test "$(labels name)$(labels number)$(labels digit)" = 111111111111
check 'the same images' test "$(pixels name)" = "$(pixels number)"
check 'several, with a comma in one' sample --class 'rock\, paper,cat,2,none' -n 1 --format idx -o several
check 'in this order' test "$(labels several)" = 2023
check 'all' sample --class all -n 1 --format idx -o all
check 'are three' test "$(labels all)" = 012
refuse 2 "there is no class 'dog': the model 'run/model.safetensors' knows cat, wild dog, rock, paper; did you mean 'wild dog'?" \
    sample --model run --class dog
refuse 2 "did you mean 'cat'?" sample --model run --class CAT
refuse 2 "did you mean 'cat'?" sample --model run --class 0,cta
refuse 2 "there is no class 'rock': " sample --model run --class 'rock, paper'
refuse 2 "there is no class '3': " sample --model run --class 3
refuse 2 "there is no class '1': " sample --model run --class '\1' # a name and no number
refuse 2 "there is no class 'none': " sample --model run --class '\none'
refuse 2 "there is no class '': " sample --model run --class cat,,cat
refuse 2 'names of up to 127 bytes' sample --model run --class "$(printf '%0128d' 0)"

# ---- names that look like something else ----
mkdir odd
cp data/*ubyte odd
printf '%s\n' all 2 'a\b' >odd/classes.txt
check 'a model of odd names' train --data odd --out odd.run --steps 2
odd() { "$SDLORA" sample --model odd.run --steps 1 -n 1 -q --format idx -o odd.out --class "$1" >out.txt 2>err.txt && labels odd.out; }
check 'all is all' test "$(odd all)" = 012
check 'unless it is a name' test "$(odd '\all')" = 0
check 'in a list it is one' test "$(odd 'all,none')" = 03
check 'a class that is called 2' test "$(odd 2)" = 1
check 'a backslash' test "$(odd 'a\\b')" = 2
check 'a number that none is called' test "$(odd 0)" = 0

# ---- files and recipes ----
check 'a file called after the class' sample --class cat -n 2
check 'is' test "$(cat out.txt)" = sample-cat.png
check 'what is no letter is a hyphen' sample --class 'rock\, paper' -n 2
check 'so' test "$(cat out.txt)" = sample-rock--paper.png
check 'a trajectory' sample --class 'wild dog' --trajectory 2
check 'so' test "$(cat out.txt)" = trajectory-wild-dog.png
expect 0 "--class 'rock\\, paper' " info sample-rock--paper.png
check 'by number it is written by name' sample --class 2,none -n 2 -o two.png
command=$("$SDLORA" info --json two.png | grep '"command"' | sed -e 's/^[^:]*: "//' -e 's/",*$//' -e 's/\\\\/\\/g')
check 'in its recipe' grep -qF -- "--class 'rock\\, paper,none'" <<<"$command"
cp two.png was.png
check 'drawn again as that says' bash -c "${command/sdlora/\"$SDLORA\"} -o two.png -q" >out.txt
check 'it is the same' cmp two.png was.png
"$SDLORA" sample --model odd.run --steps 1 -n 1 -q --class '\all' -o odd.png >out.txt 2>&1
expect 0 "--class '\\all' " info odd.png

# ---- beside rows ----
idx_data plain train 48
idx_data plain t10k 6
check 'a model without names' train --data plain --out plain.run --steps 6
check 'is not told any' test "$(grep -c '^classes' err.txt)" = 0
expect 0 'plain.png' sample --model plain.run --steps 2 -q -n 4 -o plain.png
width=$(size plain.png)
check 'names of classes' sample -n 4 -o rows.png
check 'take room' test "$(size rows.png)" != "$width"
check 'none' sample -n 4 -o no.png --no-captions
check 'take none' test "$(size no.png)" = "$width"
check 'a longer name' sample -n 4 --class cat -o short.png
check 'takes more' test "$(size short.png | cut -dx -f1)" -lt "$(size rows.png | cut -dx -f1)"
check 'rows of two classes' sample -n 4 --cols 8 -o mixed.png
check 'one of one class is named' test "$(size mixed.png | cut -dx -f1)" -gt "$(size short.png | cut -dx -f1)"
check 'no row of one class' sample -n 2 --class cat,2,0,1 --cols 8 -o mix.png
check 'has no name' sample -n 2 --class cat,2,0,1 --cols 8 --no-captions -o mix.no.png
check 'so that they are alike in size' test "$(size mix.png)" = "$(size mix.no.png)"

# ---- many ----
cp -r data many
for i in $(seq 100 199); do echo "kind $i"; done >many/classes.txt
check 'a model of a hundred classes' train --data many --out many.run --steps 1
check 'tells some of them' grep -q '^classes: kind 100, kind 101, .* and [0-9]* more$' err.txt
expect 0 'more' info many.run/model.safetensors
check 'in some columns' test "$(awk '{ if (length > most) most = length } END { print most }' out.txt)" -lt 110
check 'and has all' test "$(names_in many.run/model.safetensors | grep -o kind | wc -l)" = 100
refuse 2 "and" sample --model many.run --class 'Kind 177x'
check 'which it knows' grep -q "more; did you mean 'kind 1[0-9]7'?" err.txt

# ---- an adapter: the same classes in another order are the same ----
mkdir turned
for split in train t10k; do
    cp "data/$split-images-idx3-ubyte" turned
    head -c 8 "data/$split-labels-idx1-ubyte" >"turned/$split-labels-idx1-ubyte"
    tail -c +9 "data/$split-labels-idx1-ubyte" | tr '\000\001\002' '\002\000\001' >>"turned/$split-labels-idx1-ubyte"
done
printf '%s\n' 'wild dog' 'rock, paper' cat >turned/classes.txt
check 'straight' tune run straight --data data --steps 4 --target w_v,class_embedding --lr 0.05
check 'and turned' tune run turned.ad --data turned --steps 4 --target w_v,class_embedding --lr 0.05
check 'with the names of the model' test "$(names_in turned.ad/adapter_model.safetensors)" = "$(names_in run/model.safetensors)"
sample --lora straight --format idx -n 3 -o a
sample --lora turned.ad --format idx -n 3 -o b
sample --format idx -n 3 -o c
check 'give the same images' test "$(pixels a)" = "$(pixels b)"
check 'and not those of the model' test "$(pixels a)" != "$(pixels c)"
val() { grep -o '"val_loss": *[0-9.e-]*' "$1/metrics.jsonl" | tail -n 1; }
check 'and the same validation loss' test "$(val straight)" = "$(val turned.ad)"
check 'a model that goes on is turned, too' "$SDLORA" train --init run --data turned --out init --steps 2 --batch-size 8 -q \
    --sample-every 0 --threads 1 >out.txt
check 'than straight' "$SDLORA" train --init run --data data --out init.straight --steps 2 --batch-size 8 -q \
    --sample-every 0 --threads 1 >out.txt
sums() { "$SDLORA" info --tensors --json "$1" | grep -e '"mean"' -e '"max"' | cksum; }
check 'the same' test "$(sums init/model.safetensors)" = "$(sums init.straight/model.safetensors)"

# ---- new classes ----
mkdir more
cp data/*ubyte more
printf '%s\n' bird cat fish >more/classes.txt
check 'other classes' tune run new --data more --steps 4 --target w_v
check 'the new ones are told' says 'note: the model does not know bird, fish: the adapter carries the class table of 5 classes'
all='"class_names": [ "cat", "wild dog", "rock, paper", "bird", "fish" ]'
check 'they come last' test "$(names_in new/adapter_model.safetensors)" = "$all"
check 'and stay when it is resumed' tune run new --steps 6 --resume
check 'where they are' test "$(names_in new/adapter_model.safetensors)" = "$all"
check 'drawn by name' sample --lora new --class fish,cat -n 1 --format idx -o new.idx
check 'with their numbers' test "$(labels new.idx)" = 40
refuse 2 "knows cat, wild dog, rock, paper" sample --model run --class fish
check 'both pictures' sample --lora new --class fish,cat -n 2 --compare
check 'merged' "$SDLORA" merge run new -o merged.safetensors -q >out.txt
check 'the model has them' test "$(names_in merged.safetensors)" = "$all"
check 'taken out again' "$SDLORA" extract run/model.safetensors merged.safetensors -o out.ad --rank 2 -q >out.txt
check 'the adapter has them' test "$(names_in out.ad/adapter_model.safetensors)" = "$all"
check 'of a lower rank' "$SDLORA" resize new --model run --rank 2 -o low -q >out.txt
check 'it has them' test "$(names_in low/adapter_model.safetensors)" = "$all"
check 'of linear layers' tune run linear --data data --steps 1 --target w_v
check 'in the spelling of others' "$SDLORA" convert linear --model run --to kohya -o k.safetensors >out.txt
check 'it has them, too' test "$(names_in k.safetensors)" = "$(names_in run/model.safetensors)"

# ---- a model without names calls its classes by their numbers ----
mkdir numbers
cp turned/*ubyte numbers
printf '%s\n' 1 2 0 >numbers/classes.txt
check 'numbers for names' tune plain.run numbers.ad --data numbers --steps 4 --target w_v,class_embedding --lr 0.05
check 'none' tune plain.run plain.ad --data plain --steps 4 --target w_v,class_embedding --lr 0.05
"$SDLORA" sample --model plain.run --lora numbers.ad --steps 2 -q -n 3 --format idx -o n >out.txt
"$SDLORA" sample --model plain.run --lora plain.ad --steps 2 -q -n 3 --format idx -o p >out.txt
check 'are the same' test "$(pixels n)" = "$(pixels p)"
check 'names' tune plain.run named.ad --data more --steps 1 --target w_v
check 'are new ones' test "$(names_in named.ad/adapter_model.safetensors)" = '"class_names": [ "0", "1", "2", "bird", "cat", "fish" ]'
check 'a model that goes on takes them' "$SDLORA" train --init plain.run --data more --out init.named --steps 1 --batch-size 8 -q \
    --sample-every 0 >out.txt
check 'in place of its numbers' test "$(names_in init.named/model.safetensors)" = '"class_names": [ "bird", "cat", "fish" ]'
printf '%s\n' bird cat fish ant >more/classes.txt
refuse 2 "the data have 4 classes, and 'run' knows 3" train --init run --data more --out x
printf '%s\n' 1 2 0 >numbers/classes.txt
check 'a model whose names are numbers' train --data numbers --out numbers.run --steps 1
printf '%s\n' 3 2 4 >numbers/classes.txt
check 'and an adapter of others' tune numbers.run others --data numbers --steps 1 --target w_v
check 'has those' test "$(names_in others/adapter_model.safetensors)" = '"class_names": [ "1", "2", "0", "3", "4" ]'
"$SDLORA" sample --model numbers.run --lora others --steps 1 -q -n 1 --format idx -o n --class 4,3,1 >out.txt 2>err.txt
check 'which are drawn, and nothing to tell' test "$(labels n) $(cat err.txt)" = '430 '

# ---- adapters that disagree ----
check 'an adapter without names' tune plain.run bare --data plain --steps 1
"$SDLORA" sample --model run --lora bare --steps 1 -q --class cat -n 1 -o x.png >out.txt 2>err.txt
check 'leaves the model its own' test -e x.png
mkdir other
cp data/*ubyte other
printf '%s\n' 'rock, paper' cat dog >other/classes.txt
check 'a model of other names' train --data other --out other.run --steps 2
check 'an adapter of it' tune other.run other.ad --data other --steps 1
"$SDLORA" sample --model run --lora other.ad --steps 1 -q -n 1 --class dog -o x.png >out.txt 2>err.txt
check 'on this model' says "note: the adapter 'other.ad' calls class 0 'rock, paper', and not 'cat'"
printf '%s\n' cat 'wild dog' 'rock, paper' dog >more/classes.txt
check 'two that are called the same' tune run four --data more --steps 1 --target w_v --train-embedding
expect 2 "classes 2 and 3 are both called 'dog'; give the number" \
    sample --model run --lora four --lora other.ad --class dog -q
expect 0 'x.png' sample --model run --lora four --lora other.ad --class 3 -q -o x.png --steps 1
expect 0 '--class 3 ' info x.png

# ---- what is wrong with the data ----
printf '%s\n' cat 'wild dog' >renamed/classes.txt
refuse 3 "'renamed/classes.txt' names 2 classes, and label 2" train --data renamed --out x
check 'nothing is begun' test ! -e x
expect 0 'copy' data data --transform bold -o copy
check 'has the names' cmp copy/classes.txt data/classes.txt

# ---- one class ----
mkdir one
cp data/*ubyte one
for split in train t10k; do
    head -c 8 "data/$split-labels-idx1-ubyte" >"one/$split-labels-idx1-ubyte"
    tail -c +9 "data/$split-labels-idx1-ubyte" | tr '\001\002' '\000\000' >>"one/$split-labels-idx1-ubyte"
done
echo thing >one/classes.txt
check 'a model of one class' train --data one --out one.run --steps 4
expect 0 'sample-thing.png' sample --model one.run --steps 2 -n 2
expect 0 'sample-thing.png' sample --model one.run --steps 2 -n 2 --cfg-scale 3
expect 0 'sample-none.png' sample --model one.run --steps 2 -n 2 --class none
check 'without the null class' train --data one --out one.plain --steps 4 --cond-drop 0
expect 0 'sample-thing.png' sample --model one.plain --steps 2 -n 2
refuse 2 '--cfg-scale needs a null class' sample --model one.plain --steps 2 --cfg-scale 2

# ---- folders of pictures ----
for i in 1 2 3 4 5 6 7 8 9 10; do
    mkdir -p sorted/cat sorted/lion flat
    sample --class cat -n 1 --seed $i --scale 1 --no-captions -o sorted/cat/$i.png
    sample --class 2 -n 1 --seed $i --scale 1 --no-captions -o sorted/lion/$i.png
    cp sorted/lion/$i.png flat
done
check 'folders are classes' tune run folders --data sorted --steps 1 --target w_v
check 'by name' test "$(names_in folders/adapter_model.safetensors)" = '"class_names": [ "cat", "wild dog", "rock, paper", "lion" ]'
check 'a flat folder' train --data flat --out flat.run --steps 1
check 'is a class called after it' test "$(names_in flat.run/model.safetensors)" = '"class_names": [ "flat" ]'
cp -r flat level
check 'another one' tune flat.run level.ad --data level --steps 1 --target w_v
check 'is the same class' test "$(names_in level.ad/adapter_model.safetensors)" = '"class_names": [ "flat" ]'
check 'as is told' says "taken for those of the model's only class, 'flat'"

# ---- a part of the classes ----
echo 'rock, paper' >one/classes.txt
check 'pictures of one of three classes' tune run few --data one --steps 2
check 'are told to be' says "note: the data have 1 of the model's 3 classes"
check 'the adapter has all' test "$(names_in few/adapter_model.safetensors)" = "$(names_in run/model.safetensors)"

finish
