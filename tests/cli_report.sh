#!/usr/bin/env bash
# sdlora report, and the page that a run writes while it trains: what is on it, that it asks nothing of a network, and
# whose file it takes the place of. metrics.csv and TensorBoard's files beside it.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
train() { # train OUT ARGS...
    # shellcheck disable=SC2086
    "$SDLORA" train $SMALL --data data --out "$@" >out.txt 2>err.txt </dev/null
}
page=run/report.html
on() { grep -qF -- "$1" "$page"; } # on TEXT: it is on the page
# balanced PAGE: every element that is opened is closed
balanced() {
    local tag
    for tag in html head body main header section div figure figcaption table tr th td p ol li svg text title h1 h2 h3 style script code span; do
        [ "$(grep -oE "<${tag}[ >]" "$1" | wc -l)" -eq "$(grep -oF "</$tag>" "$1" | wc -l)" ] || { echo "$1: <$tag>" >&2; return 1; }
    done
}
# alone PAGE: what it shows is in it. (xmlns is an address too, but none is needed in HTML.)
alone() {
    ! sed 's/base64,[^"]*//g' "$1" | grep -qE 'https?:|//[a-z]|<link [^>]*href="[^d]|@import|url\(|<iframe|<object' &&
        [ "$(grep -o '<img ' "$1" | wc -l)" -eq "$(grep -o ' src="data:image/png;base64,' "$1" | wc -l)" ] &&
        grep -qF "content=\"default-src 'none'; img-src data:;" "$1"
}
# picture PAGE N: the N-th picture, as bytes
picture() { grep -oE 'base64,[^"]*' "$1" | sed -n "$2s/base64,//p" | base64 -d; }

# ---- a run leaves its page ----
check 'a run' train run --steps 12 --threads 1
check 'has a page' test -s $page
check 'that is one' test "$(head -n 1 $page)" = '<!DOCTYPE html>' -a "$(tail -n 1 $page)" = '</html>'
check 'whole' balanced $page
check 'by itself' alone $page
for text in '<title>run - finished</title>' 'name="viewport"' 'prefers-color-scheme:dark' '<code>tiny</code>' '<code>data</code>' \
    'of 12, epoch 3' '<span>batch-size</span><code>8</code>' '<h2>Loss</h2>' 'Learning rate' 'Norm of the gradient' 'images/s' \
    '<th>training images</th><td class="value">40</td>' '<th>threads</th><td class="value">1</td>' 'sdlora eval run --data data -o run/eval'; do
    check "says $text" on "$text"
done
check 'does not load itself again' test "$(grep -c 'http-equiv="refresh"' $page)" -eq 0
ls run/samples >names.txt
check 'a grid of each milestone' test "$(grep -o '<figcaption>' $page | wc -l)" -eq "$(wc -l <names.txt)"
i=0
while read -r name; do
    i=$((i + 1))
    check "$name is in it" cmp -s "run/samples/$name" <(picture $page $i)
done <names.txt
check 'with step and epoch' on '<figcaption>step 5, epoch 1</figcaption>'
check 'the last by itself' on '<figcaption>step 12, epoch 3</figcaption>'
check 'a slider over all of them' on "max=\"$((i - 1))\" value=\"$((i - 1))\""
check 'the SHA-256 of the data' on "$("$SDLORA" info --json run/model.safetensors | sed -n 's/.*"data_sha256": "\(.*\)".*/\1/p' | head -n 1)"
sum=$(cksum <run/metrics.jsonl)
cp $page before.html && rm $page
expect 0 'run/report.html' report run
check 'the command writes the same' cmp -s <(grep -v '^<p class="soft foot">Written' $page | sed 's/[0-9.]* MB//') \
    <(grep -v '^<p class="soft foot">Written' before.html | sed 's/[0-9.]* MB//')
check 'and only the page' test "$sum" = "$(cksum <run/metrics.jsonl)"

# ---- whose file ----
echo mine >$page
refuse 2 "'run/report.html' is there already, and this program did not write it" report run
check 'a run goes on without' train run --steps 13 --resume
check 'and says so' grep -qF "there is no page of this run: 'run/report.html' is there already" err.txt
check 'it is still there' test "$(cat $page)" = mine
expect 0 'page.html' report run -o page.html
expect 0 'page.html' report run -o page.html
check 'a named place' alone page.html
refuse 2 'is read by this command' report run -o run/metrics.jsonl
"$SDLORA" report run -o - >page2.html
check 'standard output' balanced page2.html
refuse 3 "'nix' is not there" report nix
refuse 3 "'data' holds no run.json" report data
refuse 3 "'runs/mnist' is not there" report
rm $page
check 'no page is wanted' train none --steps 2 --no-report
check 'none is there' test ! -e none/report.html
check 'resumed' train none --steps 4 --resume
check 'it is remembered' test ! -e none/report.html
check 'until one is wanted' train none --steps 6 --resume --report
check 'then it is there' test -s none/report.html
check 'a run that begins anew' train none --steps 1
check 'sets the page aside' test -s none/previous-1/report.html -a -s none/previous-1/metrics.csv

# ---- hand-made: curves by their formula, states, what is damaged ----
made() { # made OPTIONS-JSON: a run.json
    mkdir -p made && echo "{\"sdlora\": \"0\", \"command\": \"train\", \"options\": $1}" >made/run.json
    rm -f made/report.html
}
page=made/report.html
made '{"preset": "p", "data": "d", "steps": "200", "batch-size": "10"}'
cat >made/metrics.jsonl <<'END'
{"step": 100, "epoch": 1, "loss": 0.8, "lr": 0.001, "grad_norm": 2, "images_per_s": 50, "val_loss": 0.4}
{"step": 200, "epoch": 2, "loss": 0.05, "lr": 0.0005, "grad_norm": 1, "images_per_s": 100, "val_loss": 0.1}
END
expect 0 "$page" report made
check 'finished' on '<title>made - finished</title>'
# 100 steps of 10 images at 50 a second, then at 100: 20 s + 10 s, 2000 images in 30 s
check 'images per second' on '<b>67</b><small>30 seconds of training</small>'
check 'the best loss' on '<b>0.1</b><small>best 0.1, at step 200</small>'
# The wide drawing is 960x340: across from 58 to 944, up from 298 to 26 with a row of epochs. Linear, from 0 to 0.8 (ticks at
# 0.2); logarithmic, 0.05 to 0.8 with 4 % of room at both ends.
point() { # point X Y: as a path says it
    awk -v x="$1" -v y="$2" -v log_axis="$3" 'BEGIN {
        low = log(0.05); high = log(0.8); room = 0.04 * (high - low)
        part = log_axis ? (log(y) - low + room) / (high - low + 2 * room) : y / 0.8
        printf "%.1f %.1f", 58 + x / 200 * 886, 298 - part * 272 }'
}
check 'the curve, logarithmic' on "<path class=\"line raw\" d=\"M$(point 100 0.8 1)L$(point 200 0.05 1)\"/>"
check 'the curve, linear' on "<path class=\"line raw\" d=\"M$(point 100 0.8 0)L$(point 200 0.05 0)\"/>"
check 'its average, which begins as it is' on "<path class=\"line train\" d=\"M$(point 100 0.8 0)L$(point 200 "$(
    awk 'BEGIN { b = exp(-1); print (b * 0.8 + 0.05) / (b + 1) }')" 0)\"/>"
check 'validation, linear' on "<path class=\"line val\" d=\"M$(point 100 0.4 0)L$(point 200 0.1 0)\"/>"
check 'what a dot is' on '<title>step 100: 0.4</title>'
check 'epochs below' on '<text x="944.0" y="333" class="mid">2</text>'
check 'ticks' on 'class="end">0.6</text>'

echo '{"sdlora": "0", "command": "train", "options": {"data": "nowhere", "epochs": "30", "steps": "0", "batch-size": "10"}, "data": {"images": 109}}' >made/run.json
sed -i 's/"epoch": 2/"epoch": 1/' made/metrics.jsonl && sed -i '$d' made/metrics.jsonl && sed -i 's/, "val_loss": 0.4//' made/metrics.jsonl
expect 0 "$page" report made
check 'the length of a pass, as noted: 10 steps' on 'of 300, epoch 1'
made '{"steps": "500", "batch-size": "10"}'
expect 0 "$page" report made
check 'interrupted' on '<title>made - interrupted</title>'
check 'no evaluation is asked for yet' test "$(grep -c '<h2>Evaluation' $page)" -eq 0
printf '{"step": 1, "epoch": 1, "loss": 0.5, "lr": 0.1, "grad_norm": 1, "images_per_s": 10}\n' >made/metrics.jsonl
expect 0 "$page" report made
check 'one step is a dot' on '<circle class="raw" '
check 'no validation' on '<b>-</b><small>not measured</small>'
: >made/metrics.jsonl
expect 0 "$page" report made
check 'nothing yet' on 'Nothing has been measured yet'
{
    printf '{"step": 1, "epoch": 1, "loss": -1, "lr": null}\ngarbage <b>\n{"step": 2, "epoch": 1, "loss": 1e999}\n'
    printf '{"step": 3, "loss": 0, "images_per_s": 0, "val_loss": "x"}\n{"step": 4, "loss": 0.5, "lr": 1e-300, "grad_norm": 1e300}\n'
    printf '{"step": 5, "loss": 1.7e308}\n{"step": 6, "loss": -1.7e308}\n{"step": 7, "lr": 1e-320}\n{"step": 8'
} >made/metrics.jsonl
expect 0 "$page" report made
check 'damaged metrics' balanced $page
check 'no such number is on it' test "$(grep -ciE '[^a-z](nan|inf)[^a-z]' <(grep '<svg' $page))" -eq 0
check 'zero is not on a logarithmic axis' test "$(grep -oE '<div class="log">.*' $page | grep -c '<title>step 3')" -eq 0
rm made/metrics.jsonl
mkdir -p made/samples && cp run/samples/epoch-0001.png made/samples/epoch-0003.png
cp run/samples/epoch-0001.png secret.png && ln -s ../../secret.png made/samples/epoch-0004.png
head -c 10 secret.png >made/samples/step-00000009.png && cp secret.png made/samples/cat.png && cp secret.png made/samples/epoch-1x.png
expect 0 "$page" report made
check 'a grid without metrics' on '<figcaption>epoch 3</figcaption>'
check 'one that cannot be read, and one through a link' test "$(grep -o 'This picture is not shown' $page | wc -l)" -eq 2
check 'no other files' test "$(grep -o '<img ' $page | wc -l)" -eq 1
rm -r made/samples

# ---- thousands of lines: no more points than can be seen, and no spike is lost ----
awk 'BEGIN { for (i = 1; i <= 20000; i++)
    printf "{\"step\": %d, \"epoch\": 1, \"loss\": %s, \"images_per_s\": 5}\n", i, i == 12345 ? 9 : 0.5 + (i % 7) / 100 }' >made/metrics.jsonl
expect 0 "$page" report made
check 'a page of some size' test "$(wc -c <$page)" -lt 200000
spike=$(awk 'BEGIN { printf "%.1f", 58 + 12345 / 20000 * 886 }')
check 'the spike, below 4 % of room: 26 + 290 * 0.04 / 1.08' grep -qE "class=\"line raw\" d=\"[^\"]*L$spike 36\.7L" <(sed 's/<path/\n<path/g' $page)
check 'its average is less' test "$(grep -oE 'class="line train" d="[^"]*' $page | head -n 1 | tr 'ML' '\n\n' | wc -l)" -le 603

# ---- text from anywhere is text ----
mkdir 'odd<b>&"x' && cp data/* 'odd<b>&"x' && printf '<script>alert(1)</script>\na&b\n"c'"'"'\n' >'odd<b>&"x/classes.txt'
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data 'odd<b>&"x' --out 'o<i>' --steps 2 -q >/dev/null || fail 'odd names'
page='o<i>/report.html'
check 'escaped' on '<title>o&lt;i&gt; - finished</title>'
check 'the data' on 'odd&lt;b&gt;&amp;&quot;x'
check 'a class' on '&lt;script&gt;alert(1)&lt;/script&gt;, a&amp;b, &quot;c&#39;'
check 'nothing of it is markup' balanced "$page"
check 'one script only' test "$(grep -c '<script>' "$page")" -eq 1
page=made/report.html
made '{"data": "\u001b[31m\u202ex", "k<i>": "v</code><i>"}'
expect 0 "$page" report made
check 'what lies about text' on '\x1b[31m\xe2\x80\xaex'
check 'names of options too' on '<span>k&lt;i&gt;</span><code>v&lt;/code&gt;&lt;i&gt;</code>'

# ---- one that diverged ----
train wild --steps 40 --lr 1e30 --grad-clip 0 --warmup 0
check 'it diverges' test $? -eq 4
page=wild/report.html
check 'its page says so' on '<span class="state diverged">diverged</span>'
check 'and where, and why' grep -qE 'It diverged after step [0-9]+: the .*not finite' $page
"$SDLORA" list wild >list.txt
check 'the list too' grep -q ' diverged ' list.txt

# ---- an adapter: before and after ----
# shellcheck disable=SC2086
"$SDLORA" finetune --model run --data data --out run/lora --steps 4 --batch-size 8 --milestone-steps 0 --threads 1 -q >/dev/null ||
    fail 'an adapter'
page=run/lora/report.html
check 'before' cmp -s run/lora/before.png <(picture $page 1)
check 'is what the model itself drew of the same noise' cmp -s <(pixels run/lora/before.png) <(pixels run/samples/step-00000013.png)
check 'after' cmp -s run/lora/samples/step-00000004.png <(picture $page 2)
check 'both are named' on '<figcaption>before: the model alone</figcaption>'
check 'its base' on 'the model alone 0.'
check 'a level in the chart' on '<path class="level"'
check 'how to score it' on 'sdlora eval run --lora run/lora --data data -o run/lora/eval'
check 'whole' balanced $page
"$SDLORA" finetune --model run --data data --out bare --steps 1 --batch-size 8 --sample-every 0 -q >/dev/null
check 'without grids nothing is drawn before' test ! -e bare/before.png -a -s bare/report.html

# ---- with an evaluation ----
score() { "$SDLORA" eval run --data data --judge-epochs 5 --steps 2 --progress none -q "$@" >out.txt 2>err.txt; }
page=run/report.html
check 'scored' score -n 6 -o run/eval
score -n 6 -o run/eval --json && mv out.txt said.txt
check 'the figures are kept' cmp -s run/eval/eval.json said.txt
expect 0 "$page" report run
figure() { tr -d ' \n' <run/eval/eval.json | grep -oE "\"$1\":\{\"value\":[^,]+,\"floor\":[^,}]+" | sed 's/.*"value":\([^,]*\),"floor":\(.*\)/\1 \2/'; }
read -r value floor <<<"$(figure frechet)"
check 'a figure beside its floor' on "$(printf '<td class="num">%.2f</td><td class="num">%.2f</td>' "$value" "$floor")"
read -r value floor <<<"$(figure accuracy)"
check 'in per cent' on "$(awk -v a="$value" -v b="$floor" 'BEGIN { printf "<td class=\"num\">%.2f %%</td><td class=\"num\">%.2f %%</td>", 100 * a, 100 * b }')"
check 'the matrix' test "$(grep -o '<table class="confusion">' $page | wc -l)" -eq 1
row=$(tr -d ' \n' <run/eval/eval.json | grep -oE '"confusion":\[\[[0-9,]+' | grep -oE '[0-9]+' | awk '{ n += $1 } END { print n }')
check 'a row of as many images as were drawn of a class' test "$row" -eq 2
n=$(ls run/samples | wc -l)
check 'the worst' cmp -s run/eval/worst.png <(picture $page $((n + 1)))
check 'the nearest' cmp -s run/eval/neighbours.png <(picture $page $((n + 2)))
check 'whole' balanced $page
check 'nobody trained since' test "$(grep -c 'has gone on since' $page)" -eq 0
check 'a step more' train run --steps 14 --resume
check 'and the figures are old' on 'This was after step 13; the run has gone on since.'
echo '{"mine": 1}' >run/eval/eval.json
score -n 6 -o run/eval
check 'what somebody else wrote stays' test $? -eq 2 -a "$(cat run/eval/eval.json)" = '{"mine": 1}'
expect 0 "$page" report run
check 'and shows nothing' balanced $page
echo '{' >run/eval/eval.json
expect 0 "$page" report run
check 'damaged figures' on 'Not scored yet'

# ---- metrics.csv says what metrics.jsonl says ----
same_metrics() {
    cmp -s "$1/metrics.csv" <(
        echo step,epoch,loss,lr,grad_norm,images_per_s,val_loss
        sed -E 's/[{}" ]//g; s/step:|,epoch:|,loss:|,lr:|,grad_norm:|,images_per_s:/,/g; s/^,//; s/,val_loss:/,/; t x; :x; /^([^,]*,){5}[^,]*$/s/$/,/' "$1/metrics.jsonl"
    )
}
check 'the table' same_metrics run
check 'of an adapter too' same_metrics run/lora
head -c 60 run/metrics.csv >x && mv x run/metrics.csv
check 'cut short, resumed' train run --steps 16 --resume
check 'it is whole again' same_metrics run

# ---- TensorBoard ----
check 'events' train board --steps 4 --save-every 2s --tensorboard
check 'one file' test "$(ls board/tensorboard | wc -l)" -eq 1
check 'its pictures' test "$(grep -c 'samples' board/tensorboard/*)" -ge 1
for tag in loss/train loss/validation training/lr training/grad_norm training/images_per_s samples 'brain.Event:2'; do
    check "$tag" grep -qaF "$tag" board/tensorboard/events.out.tfevents.*
done
first=$(cat board/tensorboard/* | cksum)
check 'resumed' train board --steps 6 --resume
check 'the wish is remembered: another file' test "$(ls board/tensorboard | wc -l)" -eq 2
check 'the first is as it was' test "$first" = "$(head -n 1 <(cat "board/tensorboard/$(ls board/tensorboard | head -n 1)") >/dev/null; cksum <"board/tensorboard/$(ls board/tensorboard | head -n 1)")"
check 'nobody asked for it' test ! -e run/tensorboard
finish
