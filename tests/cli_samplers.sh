#!/usr/bin/env bash
# Samplers and what goes with them on the command line: names, steps, guidance, rows between classes and seeds, animations.
. "$(dirname "$0")/lib_cli.sh"
idx_data data train 40
idx_data data t10k 6
# shellcheck disable=SC2086
"$SDLORA" train $SMALL --data data --out run --steps 10 --sample-every 0 >/dev/null 2>&1 || fail 'no model'

sample() { "$SDLORA" sample --model run/model.safetensors "$@" >out.txt 2>err.txt </dev/null; }
draw() { sample --format npy -n 3 -o "$@"; } # draw NAME OPTION...

# each by each of its names, in as many steps as asked for, and again the same in other batches and threads
while read -r name alias; do
    check "$name" draw "$name" --sampler "$name" --steps 7
    check 'what is said' grep -q -F "$name in 7 steps" err.txt
    check "$alias" draw alias --sampler "$alias" --steps 7
    check "is $name" cmp "${name}_images.npy" alias_images.npy
    check "$name in batches" draw alias --sampler "$name" --steps 7 --batch-size 8 --threads 2
    check 'is the same' cmp "${name}_images.npy" alias_images.npy
done <<'END'
ddpm DDPMScheduler
ddim DDIMScheduler
euler EulerDiscreteScheduler
euler-a k_euler_a
heun k_heun
dpm++2m DPMSolverMultistepScheduler
unipc UniPCMultistepScheduler
END
check 'Euler is DDIM without noise' cmp euler_images.npy ddim_images.npy
check 'DDPM takes all steps where no number is given' draw all --sampler ddpm
check 'what is said' grep -q 'ddpm in 20 steps' err.txt
for spacing in leading karras logsnr; do
    check "$spacing" draw $spacing --steps 7 --spacing $spacing
    check 'is another' test "$(cmp ddim_images.npy ${spacing}_images.npy | wc -l)" -eq 1
done
check 'trailing' draw trailing --steps 7 --sampler ddim --spacing trailing
check 'is the default' cmp ddim_images.npy trailing_images.npy
check "Heun's is karras" draw karras --sampler heun --steps 7 --spacing karras
check 'so it is' cmp heun_images.npy karras_images.npy

# guidance
check 'guided' draw guided --steps 7 --cfg-scale 3
check 'not guided' draw plain --steps 7 --cfg-scale 1
check 'guided nowhere' draw nowhere --steps 7 --cfg-scale 3 --cfg-interval 1e20:1e21
check 'is not guided' cmp plain_images.npy nowhere_images.npy
check 'guided where it is unless told' draw told --steps 7 --cfg-scale 3 --cfg-interval 0.3:5
check 'is guided' cmp guided_images.npy told_images.npy
check 'guided everywhere' draw everywhere --steps 7 --cfg-scale 3 --cfg-interval 0:1e30
check 'is another' test "$(cmp guided_images.npy everywhere_images.npy | wc -l)" -eq 1
check 'rescaled' draw rescaled --steps 7 --cfg-scale 3 --cfg-rescale 0.7
check 'is another' test "$(cmp guided_images.npy rescaled_images.npy | wc -l)" -eq 1
check 'away from no class' draw none --steps 7 --cfg-scale 3 --negative none
check 'is what it is' cmp guided_images.npy none_images.npy
check 'away from a class' draw negative --steps 7 --cfg-scale 3 --negative 1
check 'is another' test "$(cmp guided_images.npy negative_images.npy | wc -l)" -eq 1
# shellcheck disable=SC2086
expect 0 '' train ${SMALL/--groups 2/} --preset seed --data data --out seed --steps 6
expect 2 'or add --negative' sample --model seed/model.safetensors --cfg-scale 2 -o x.png
expect 0 '' sample --model seed/model.safetensors --cfg-scale 2 --negative 1 --steps 2 -n 1 -o x.png
expect 2 '--negative belongs to guidance, and --cfg-scale is 1' sample --model run/model.safetensors --cfg-scale 1 --negative 1
for bad in 3 3: :3 3:3 3:2 x:3 1:y 1:2:3 -1:2; do
    expect 2 "'--cfg-interval'" sample --model run/model.safetensors "--cfg-interval=$bad" -o x.png
done
expect 2 'there is no class 3' sample --model run/model.safetensors --negative 3 -o x.png
expect 2 "'--negative' takes one class" sample --model run/model.safetensors --negative 0,1 -o x.png

# rows
pixel_rows() { "$SDLORA" info "$1" | sed -n 's/  size *//p'; }
check 'between classes' sample --interpolate 0:2 -n 2 --cols 4 --scale 1 --steps 3 -o row.png
check 'two rows of four' test "$(pixel_rows row.png)" = '42 x 22 pixels'
check 'its name' sample --interpolate 0:2 --steps 3
check 'says so' test "$(cat out.txt)" = interpolate-0.png
check 'one row of ten' test "$(size interpolate-0.png)" = 182x20
check 'between seeds' sample --interpolate seed:3:4 --scale 1 --steps 3 -o seeds.png
check 'one row for each class' test "$(size seeds.png)" = 102x32
check 'moments on the way' sample --interpolate seed:3:4 --class 1 --trajectory 3 --steps 3 --scale 1 -o moments.png
check 'a row for each image' test "$(size moments.png)" = 32x102
for bad in 1 1: :1 seed:1 seed:1: seed:a:1 seed:1:b; do
    expect 2 "'--interpolate'" sample --model run/model.safetensors --interpolate $bad -o x.png
done
expect 2 'there is no class 9' sample --model run/model.safetensors --interpolate 0:9 -o x.png
expect 2 "'--interpolate' takes one class" sample --model run/model.safetensors --interpolate 0,1:2 -o x.png

# an animation: frames of the whole grid
check 'a trajectory that moves' sample --trajectory 5 --steps 6 --class 1 -n 6 --cols 3 --scale 1 -o moving.apng
check 'is a grid' test "$(size moving.apng)" = 32x22
check 'five times' test "$(grep -ao fcTL moving.apng | wc -l)" -eq 5
check 'and knows how it was made' grep -qa trajectory moving.apng
expect 0 '32 x 22 pixels' info moving.apng
check 'two moments' sample --trajectory 2 --steps 6 --class 1 -n 1 --scale 1 -o two.apng
frame() { # frame TYPE SKIP: the data of the first such chunk
    local at n
    at=$(grep -abo "$1" two.apng | head -n 1 | cut -d : -f 1)
    n=$(od -An -tu1 -j $((at - 4)) -N 4 two.apng | awk '{ print $1 * 16777216 + $2 * 65536 + $3 * 256 + $4 }')
    tail -c +$((at + 5 + $2)) two.apng | head -c $((n - $2)) | cksum
}
check 'which are not the same' test "$(frame IDAT 0)" != "$(frame fdAT 4)"
check 'other names are pictures' sample --trajectory 5 --steps 6 --class 1 -n 2 --scale 1 -o still.png
check 'of all moments' test "$(size still.png)" = 52x22

finish
