#!/bin/bash
# Do the tests notice? Each line of the table below is a sabotage of one line of the library: it is applied to a copy of the
# tree, the tests named beside it are built and run there, and one of them must fail. Prints "NAME: caught by TEST" or
# "NAME: SURVIVED"; exit status 1 when one survived, changed nothing, or did not compile.
#   scripts/mutants.sh [PATTERN]     only sabotages whose name matches the shell pattern
# The copy is compiled for one instruction set and without much optimisation: what is tested is the tests. Names that
# begin with "bf16 rows" are of AVX-512, and left out where there is none.
set -u
cd "$(dirname "$0")/.." || exit 1
pattern=${1:-*}
root=$(mktemp -d) || exit 1
chmod 755 "$root" # for tests that give up the rights of root
export TMPDIR=$root # failing tests leave their files
trap 'rm -rf "$root"' EXIT
trap 'exit 130' INT TERM

# name | file | sed expression (without '|') | tests
table=$(cat <<'END'
attention backward: sign|src/backend/cpu/sublayer_middle.h|s/(vload(a->dh + i \* w + j) - sum)/(vload(a->dh + i * w + j) + sum)/|test_golden_ops
layer norm backward: average forgotten|src/backend/cpu/sublayer_middle.h|s/ \* sum_gxh\[j\] - sum_g\[j\];/ * sum_gxh[j];/|test_golden_ops
adapter: not scaled|src/adapter/change.c|s/f.left->value, l->scale, mask/f.left->value, 1, mask/|grad_unet test_adapter_golden
adapter: gradient of the left factor not scaled|src/adapter/attach.c|s/scale(dl, f.left->numel, l->scale)/(void)0/|grad_unet
adapter: gradient of the right factor not scaled|src/adapter/attach.c|s/scale(dr, f.right->numel, l->scale)/(void)0/|grad_unet
adapter: a dropped rank learns|src/adapter/attach.c|s/mask_columns(dl, dl, mask, f.rows, l->rank)/(void)mask/|grad_unet
adapter: a mask for all steps|src/adapter/attach.c|s/(uint64_t)step))/0))/|test_adapter
adapter: dropped ranks leave a gap|src/adapter/attach.c|s/(real)(1 . (1 - p))/1/|test_adapter
adapter: PiSSA's beginning stays|src/adapter/change.c|s/    if (!a0)$/    if (1)/|test_adapter grad_unet
adapter: a rank's beginning stays while it sits out|src/adapter/change.c|s/-l->scale, mask, f.rows/-l->scale, NULL, f.rows/|test_adapter
adapter: the direction of nothing|src/adapter/change.c|s/return square > 0 ? (double)m/return 1 ? (double)m/|test_adapter
adapter: the gradient of nothing|src/adapter/change.c|s/square\[o\] > 0 ? -by/1 ? -by/|test_adapter
adapter: magnitudes over inputs|src/adapter/change.c|s/return (Channels){1, out, w->numel . out};/return (Channels){1, w->numel \/ out, out};/|test_adapter_golden grad_unet
adapter: the norm is a constant|src/adapter/change.c|s/dot\[o\] \*= square\[o\] > 0 ? -by . square\[o\] : 0/dot[o] = 0/|grad_unet
adapter: merged one after the other|src/adapter/attach.c|s/adapter_change(tmp, l, w->value, scratch)/adapter_change(tmp, l, out, scratch)/|test_adapter
adapter: merged to infinity|src/adapter/attach.c|s/        if (!isfinite(out\[i\]))/        if (0)/|test_not_finite
adapter: merged in part|src/adapter/attach.c|s/changes && pass == 1/changes/|test_not_finite
adapter: biases of all layers|src/adapter/adapter.c|s/which == ADAPTER_BIAS_ALL ../1 \x7c\x7c/|test_adapter
adapter: new classes are zero|src/adapter/adapter.c|s/table->value\[(size_t)k \* row + i\] = (real)z/(void)z/|test_adapter
adapter: the null class among the new|src/model/model.c|s/to->value + known + (size_t)more \* row/to->value + known/|test_adapter
targets: the first that names a layer counts|src/adapter/target.c|s/if (is_named(it.name, weight)) {/if (!found \&\& is_named(it.name, weight)) {/|test_adapter
targets: a rank is for its own name only|src/adapter/target.c|s/found = waiting = true/found = true, waiting = it.rank > 0/|test_adapter
targets: anything may follow|src/adapter/target.c|s/if (\*end && \*end != ',')/if (0)/|test_adapter
graph: frozen filters prepared again|src/core/graph.c|s/g->stale == STALE_ALL .. reads_trained(n)/1/|test_plan
graph: trained filters stay as they were|src/core/graph.c|s/n->in\[i\]->param ? n->in\[i\]->param->trainable/n->in[i]->param ? false/|test_plan
sublayer: first weight's gradient not turned|src/backend/cpu/sublayer_body.h|s/c \* f, f);/c * f, 0);/|test_golden_ops
conv backward: filter not turned|src/backend/cpu/conv/conv_im2col.c|s/(8 - tap)/(tap)/|test_golden_ops
conv backward: bias of one image|src/backend/cpu/conv/conv.c|s/(db, dy, (size_t)s.n \* /(db, dy, /|test_golden_ops
conv of an image: one channel thrice|src/backend/cpu/conv/conv_first.c|s/rows + c \* 3 \* (s.w + 2), j->u + c/rows, j->u + c/|test_conv
conv of an image: the bias thrice|src/backend/cpu/conv/conv_first.c|s/c ? NULL : j->b, s/j->b, s/|test_conv
conv of an image: gradients of one channel|src/backend/cpu/conv/conv_first.c|s/weight_row(sum + c \* s.co/weight_row(sum/|test_conv
transposed conv: taps exchanged|src/backend/cpu/conv/convt.c|s/y + (size_t)(2 \* from + a)/y + (size_t)(2 * from + 1 - a)/|test_golden_ops
transposed conv: pixels apart written as neighbours|src/backend/cpu/conv/convt.c|s/row != (size_t)s.co \&\& s.co % PAIR != 0/false/|test_concat
partial sums: what was there is forgotten|src/backend/cpu/parts.c|s/vupdate_n(a->d.p + i, sum, a->d.beta, m)/vupdate_n(a->d.p + i, sum, 0, m)/|test_kernels_linear
batch norm: biased running variance|src/backend/cpu/norm.c|s/count > 1 ? count - 1 : 1/count/|test_golden_ops
batch norm: gradient through the mean|src/backend/cpu/norm.c|s/c.k1\[o\] = (real)(c.scale\[o\] \* j/c.k1[o] = 0 * (real)(c.scale[o] * j/|test_golden_ops
loss: gradient of L2 halved|src/backend/cpu/loss.c|s/2 \* scale \* (a\[i\] - b\[i\])/scale * (a[i] - b[i])/|test_golden_ops
bias of a linear layer: the weight's factor|src/core/op_linear.c|s/node_grad(n, 1), node_grad(n, 2)/node_grad(n, 1), (Grad){node_grad(n, 2).p, n->beta[1]}/|grad_seams
bias of a convolution: the weight's factor|src/core/op_conv.c|/be->conv3_bwd_weight/s/node_grad(n, 2)/(Grad){node_grad(n, 2).p, n->beta[1]}/|grad_seams
bias of a convolution: only with the weight|src/core/op_conv.c|s/node_wants(n, 1) .. node_wants(n, 2)/node_wants(n, 1)/|grad_seams
bias of a convolution: frozen weight, forgotten|src/backend/cpu/conv/conv.c|s/(!p->sums_bias .. !dw.p)/!p->sums_bias/|grad_seams
norm: beta has gamma's factor|src/core/op_norm.c|s/node_grad(n, 1), node_grad(n, 2), node_grad(n, 3)/node_grad(n, 1), {node_grad(n, 2).p, n->beta[1]}, node_grad(n, 3)/|grad_seams
scratch: more threads than planned for|src/core/graph.c|s/assert(threads_count() <= g->threads)/(void)0/|test_plan
scratch: fewer threads not asked, forward|src/backend/cpu/conv/winograd_fwd.h|s/for (int t = 1; t <= threads; t++)/for (int t = threads; t <= threads; t++)/|test_kernels_scratch
scratch: fewer threads not asked, weights|src/backend/cpu/conv/winograd_weight.h|s/for (int t = 1; t <= threads; t++)/for (int t = threads; t <= threads; t++)/|test_kernels_scratch
filters: a computed one is transformed beforehand|src/core/op_conv.c|s/(w->param .. w->fixed)/(w != NULL)/|grad_seams
filters: not kept for the gradient of x|src/core/op_conv.c|s/ . (node_trains(n, 0) ? SAVE_IN(1) : 0)//|grad_seams
norm: gamma not kept|src/core/op_norm.c|s/SAVE_IN(0) . SAVE_IN(1) . SAVE_IN(2)/SAVE_IN(0) \x7c SAVE_IN(2)/|grad_seams
norm: beta not kept|src/core/op_norm.c|s/SAVE_IN(0) . SAVE_IN(1) . SAVE_IN(2)/SAVE_IN(0) \x7c SAVE_IN(1)/|grad_seams
graph: a node twice in an op, one gradient|src/core/graph.c|s/if (in\[k\] == in\[i\])/if (!in[k])/|grad_seams
loss: a target that is trained|src/core/op_loss.c|s/if (target->needs_grad)/if (0)/|grad_seams
adam: first bias correction|src/backend/cpu/optim.c|s/s.lr \/ s.bias1/s.lr/|test_golden_steps
adam: second bias correction|src/backend/cpu/optim.c|s/1 \/ sqrt(s.bias2)/1/|test_golden_steps
adamw: decay not times lr|src/backend/cpu/optim.c|s/1 - s.lr \* s.weight_decay/1 - s.weight_decay/|test_golden_steps
plan: second gradient overwrites|src/core/plan.c|s/written\[in->index\] ? 1 : 0/0/|test_golden_unet
plan: backward's readers forgotten|src/core/again.c|s/sooner(&next, bwd_step(p, j), from);/;/|test_plan
plan: a concat forgets when its inputs die|src/core/plan.c|s/if (end > p->g->items\[item\].end)/if (0)/|test_concat
plan: a kept value inside a concat|src/core/plan.c|s/n->keep .. n->fixed/n->fixed/|test_concat
plan: lives that touch share|src/core/pack.c|s/a->start <= b->end/a->start < b->end/|test_plan
param: channels exchanged|src/core/param.c|s/\[3\], 1, d0, d0 \* d1};/[3], d1, 1, d0 * d1};/|test_golden_ops
adapter file: a tensor of the reference not turned|src/store/adapter_read.c|s/out\[k \* rows + i\] = in\[i \* cols + k\]/out[i * cols + k] = in[i * cols + k]/|test_adapter_golden
adapter file: the second spelling wins|src/store/adapter_names.c|s/if (other \&\& (l->form/if (0 \&\& (l->form/|test_adapter_files
adapter file: dots for underscores everywhere|src/store/adapter_names.c|s/!(underscores \&\& name/!(name/|test_adapter_files
adapter file: a LoRA on what has none|src/store/adapter_names.c|s/return adapter_adaptable(p) \&\& p->use != USE_CONVT2/return true/|test_adapter_files
adapter file: a stored alpha of 0 is a scale|src/store/adapter_settle.c|s/stored != 0 ? stored : (double)NAN/stored/|test_adapter_files
adapter file: an alpha in F64 as a float|src/store/adapter_settle.c|s/if (t->dtype == DT_F64)/if (0)/|test_adapter_files
adapter file: another rank than the configuration's|src/store/adapter_settle.c|s/l->rank \&\& l->rank != rank/0/|test_adapter_config
adapter file: another kind than the configuration's|src/store/adapter_settle.c|s/if (a->config.kind != l->kind)/if (0)/|test_adapter_hostile
adapter file: magnitudes that PEFT leaves out|src/store/adapter_settle.c|s/!field \&\& magnitude \&\& !a->config.dora/0/|test_adapter_values
adapter file: magnitudes that are missing|src/store/adapter_settle.c|s/a->config.dora \&\& !magnitude/0/|test_adapter_values
adapter file: biases that PEFT leaves out|src/store/adapter_settle.c|s/return field ? passed_over(a, t, field, e) : 0/return 0/|test_adapter_values
adapter file: modules that PEFT leaves out|src/store/adapter_settle.c|s/!peft_config_saves(\&a->config, l->w->name)/0/|test_adapter_values
adapter file: B's bias that PEFT leaves out|src/store/adapter_settle.c|s/a->config.o \&\& !a->config.lora_bias/0/|test_adapter_values
adapter file: a row that the embedding has not|src/store/adapter_settle.c|s/json_integer_value(row) >= l->w->file_shape.d\[0\]/0/|test_adapter_values
adapter file: rows that are missing|src/store/adapter_settle.c|s/if (w->use != USE_TABLE .. l->part/if (1 \x7c\x7c l->part/|test_adapter_values
adapter file: B's bias without the scale|src/store/adapter_read.c|s/value->value\[i\] + scale \* (double)in/value->value[i] + (double)in/|test_adapter_values
adapter file: any shape|src/store/adapter_shapes.c|s/!l->part\[part\] .. fits(l->part\[part\], shape)/true/|test_adapter_files
adapter file: only the last misfit is named|src/store/adapter_shapes.c|s/misfits ? \&other : \&first/\&first/|test_adapter_files
adapter file: a factor that does not divide|src/store/adapter_shapes.c|s/ .. (uint64_t)z.out % o1)/)/|test_adapter_hostile
adapter file: scales of inputs for those of outputs|src/store/adapter_shapes.c|s/if (!t .. fits(t, shape1(channels)) ../if (!t \x7c\x7c t->nd > 1 \x7c\x7c/|test_adapter_values
adapter file: any number of classes|src/store/adapter_shapes.c|s/if (classes \&\&/if (0 \&\&/|test_adapter_files
adapter facts: a text of any length|src/store/facts.c|s/text \&\& strlen(text) < texts\[i\].size/text/|test_adapter_hostile
adapter file: an integer is no alpha|src/store/adapter_settle.c|s/if (t->dtype == DT_I64 .. t->dtype == DT_I32)/if (0)/|test_adapter_files
adapter file: a LoKr whose r nobody said|src/store/adapter_settle.c|s/if (a->config.o \&\& l->style != STYLE_KOHYA \&\& !configured)/if (0)/|test_adapter_hostile
adapter file: half a directory|src/store/adapter_read.c|s/    if (directory)$/    if (0)/|test_adapter_config
adapter file: what is left open is not told|src/store/adapter_read.c|s/a->silent = true/a->silent = false/|test_adapter_config
adapter config: LoRA's fields of a LoKr|src/store/peft_config.c|s/ \&\& c->kind != ADAPTER_LORA; i++/ \&\& 0; i++/|test_adapter_hostile
adapter config: a field is read over|src/store/peft_fields.c|s/{"kasa_config", FIELD_REFUSED/{"kasa_config", FIELD_IDLE/|test_adapter_config
adapter config: unknown fields pass|src/store/peft_fields.c|s/peft_says_nothing(v) .. (f/!f \x7c\x7c peft_says_nothing(v) \x7c\x7c (f/|test_adapter_config
adapter config: a field of any form|src/store/peft_fields.c|s/!has_form(v, f->form)/0/|test_adapter_config
adapter config: two that disagree|src/store/peft_config.c|s/(differs = peft_difference(c->o, copy.o))/0 \&\& (differs = peft_difference(c->o, copy.o))/|test_adapter_config
adapter config: the last pattern counts|src/store/peft_layers.c|/^        if (found) {/,/^        }/s/return 0;/continue;/|test_adapter_config
adapter config: patterns match anywhere|src/store/peft_layers.c|s/"(.\*\\\\.)?("/".*("/|test_adapter_config
adapter config: a text of targets is a part|src/store/peft_layers.c|s/"", layer, true, NULL, e)/"", layer, false, NULL, e)/|test_adapter_config
adapter config: layers by number, all|src/store/peft_layers.c|s/return index >= 0 \&\& index == json_integer_value(v)/return 1/|test_adapter_config
regex: no end of matching|src/store/regex.c|s/return --\*(long \*)budget > 0/return true \x7c\x7c --*(long *)budget > 0/|test_adapter_hostile
regex: what programs read differently|src/store/regex.c|s/return !strstr(expression, "\[:")/return true \x7c\x7c !strstr(expression, "[:")/|test_adapter_hostile
adapter written: modules in the adapter's order|src/store/peft_make.c|s/adapter_layer_of(p->a, model->items\[i\]);/i < p->a->n ? \&p->a->layers[i] : NULL;/;s/adapter_layer_name(layer, model->items\[i\]);/if (l) adapter_layer_name(layer, l->weight);/|cli_finetune
adapter written: PiSSA's beginning forgotten|src/store/adapter_out.c|s/= -b0\[i/= 0 * b0[i/|test_adapter_write
adapter written: twice the rank, the same alpha|src/store/adapter_out.c|s/return l->alpha \* (rslora ? sqrt(2) : 2)/return l->alpha/|test_adapter_write
adapter written: over the adapted weight|src/store/adapter_out.c|s/l \&\& l->base ? l->base : p->value/p->value/|test_adapter_write
adapter written: a mixture of magnitudes|src/store/adapter_peft.c|s/ .. (p->dora \&\& !l->part\[PART_MAGNITUDE\])/ /|test_adapter_write
adapter written: alphas of the reference forgotten|src/store/adapter_convert.c|s/part == PART_B ? alpha : 1/1/|test_adapter_write
adapter written: rsLoRA forgotten|src/store/adapter_convert.c|s/lora \&\& o->a->config.rslora \&\&/0 \&\&/|cli_convert
adapter file: kohya's rsLoRA at PEFT's alpha|src/store/adapter_settle.c|s/l->alpha = before_root(l->alpha, l->rank)/l->alpha += 0/|cli_convert
adapter written: alphas of kohya under rsLoRA|src/store/adapter_convert.c|s/return rslora ? alpha \* sqrt/return 0 ? alpha * sqrt/|test_adapter_golden
halves: ties away from even|src/io/dtype.c|s/(low == half \&\& (kept \& 1))/low == half/|test_adapter_write
halves: too large is infinite|src/io/dtype.c|s/== infinite \&\& isfinite/!= infinite \&\& 0 * isfinite/|test_adapter_write
rank: none at all|src/adapter/reduce.c|s/return k < 1 ? 1/return k < 0 ? 1/|test_resize
rank: what equals the bound is kept|src/adapter/reduce.c|s/s\[k\] > s\[0\] \/ c->value/s[k] >= s[0] \/ c->value/|test_resize
rank: of a sum, squares|src/adapter/reduce.c|s/c->rule == RANK_SQUARES ? 2 : 1/2/|test_resize
rank: more than the most|src/adapter/reduce.c|s/k > most ? most : k/k/|test_resize
resize: a product's scale is forgotten|src/adapter/svd.c|s/= scale \* l->s\[i\]/= l->s[i]/|test_resize
resize: the scale counts twice|src/adapter/svd.c|s/sqrt(s->s\[k\] \/ l->scale)/sqrt(s->s[k])/|test_resize
resize: magnitudes are lost|src/adapter/reduce.c|s/copy_part(l, was, PART_MAGNITUDE)/(void)0/|test_resize
resize: a root of a negative scale|src/adapter/reduce.c|s/was->scale > 0 ? was->scale : 1/was->scale/|test_resize
resize: half of a PiSSA|src/adapter/reduce.c|s/2 \* l->rank : l->rank/l->rank : l->rank/|test_resize
resize: a layer that stays is made anew|src/adapter/reduce.c|s/was->kind == ADAPTER_FULL .. (is_product(was) \&\& was->rank == l->rank)/was->kind == ADAPTER_FULL/|test_resize
resize: infinite changes pass|src/adapter/reduce.c|s/return isfinite(loss->change) \&\& isfinite(loss->lost)/return 1/|test_resize
extract: infinite differences pass|src/adapter/reduce.c|s/if (!isfinite(change))/if (0)/|test_extract
extract: what is left out is no loss|src/adapter/reduce.c|s/.change = change, .lost = change/.change = change/|test_extract
extract: the class embedding at a rank|src/adapter/reduce.c|s/w->use == USE_TABLE \&\& c->embedding/false/|test_extract
extract: ranks of targets forgotten|src/adapter/reduce.c|s/adapter_target(\&rank.most, /adapter_target(\&(int){0}, /|test_extract
extract: rows of a 3x3 convolution|src/adapter/svd.c|s/weight->use == USE_CONV3 ? /weight->use == USE_CONVT2 ? /|test_extract
merge, extract, resize: an adapter over itself|src/cli/adapter_tools.c|s/(input \&\& check_apart(path, input, e))/0/|cli_adapter_tools
merge, extract, resize: over what is not an adapter|src/cli/adapter_tools.c|s/return dir_holds_only(path, ADAPTER_FILES)/return 1/|cli_adapter_tools
base: the adapter's own word is not asked|src/cli/cli.c|s/"%s", a->facts.base_sha256/"%s", ""/|cli_adapter_tools
base: a run of finetune passes for a model|src/cli/cli.c|s/return is_adapter(path, e);/return 0;/|cli_adapter_tools
base: a model's file passes for no model|src/store/model_file.c|s/const bool is = f/const bool is = 0/|cli_adapter_tools
base: an adapter's file passes for no adapter|src/store/adapter_names.c|s/is = f \&\& adapter_is_in/is = 0 \&\& adapter_is_in/|cli_adapter_tools
sample: an adapter's classes are not asked|src/cli/cli.c|s/if (classes > m->config.classes/if (0/|cli_adapter_tools
not finite: another tensor's rows looked at|src/core/graph.c|s/i < width; i++/i < t->row; i++/|test_not_finite
not finite: fixed nodes forgotten|src/core/graph.c|s/if (!is_finite(\&n->val))/if (!n->fixed \&\& !is_finite(\&n->val))/|test_not_finite
sampler: clipping hides infinities|src/model/sampler.c|s/!isfinite(out\[i\])/0/|test_not_finite
sampler: guidance's own network forgotten|src/model/sampler.c|s/if (sampler_guides(k, k->times\[s + stage\]) \&\& unet_diverged(u, what, e))/if (0)/|test_not_finite
predict: what is not finite is written|src/model/predict.c|s/if (isfinite(out\[i\]))/if (1)/|cli_numbers
preview: a divergence passes for a stop|src/run/preview.c|s/return loop_signal(&o) \&\& e->code == ERR_NONE ? 0 : -1/return 0/|cli_numbers
unet: null class without a row|src/model/unet.c|s/m->classes + m->null_class/m->classes + 1/|test_golden_unet
unet: sine and cosine|src/model/unet.c|s/row\[k\] = (real)sin/row[k] = (real)cos/|test_golden_inputs
fields: a range of the library forgotten|src/base/fields.c|s/if (value >= f->min \&\& value <= f->max)/if (1)/|test_fields
fields: a range of options forgotten|src/base/fields_text.c|s/(double)v < r->f->min .. (double)v > r->f->max/0/|test_fields cli_usage
fields: NaN lies in every range|src/base/fields.c|s/if (value >= f->min \&\& value <= f->max)/if (!(value < f->min) \&\& !(value > f->max))/|test_fields
fields: an item of a list is not looked at|src/base/fields.c|s/if (check_range(f, v\[i\], e))/if (0)/|test_fields
fields: numbers without a name pass|src/base/fields.c|s/if (k == value)/if (1)/|test_fields
fields: one that differs is passed over|src/base/fields.c|s/if (!strcmp(va, vb))/if (table->names)/|test_fields
model fields: another end|src/model/model_fields.c|s/.max = 256,/.max = 1024,/|test_fields
model fields: a member exchanged|src/model/model_fields.c|s/FIELD(ModelConfig, qsize)/FIELD(ModelConfig, vsize)/|test_fields
model fields: the network without activation|src/model/model_fields.c|s/.min = ACT_RELU, //|test_fields
train fields: names exchanged|src/train/train_fields.c|s/{"l2", "l1", NULL}/{"l1", "l2", NULL}/|test_fields
train fields: a decay of 1|src/train/train_fields.c|s/.max = 0.9999999$/.max = 1/|test_fields cli_usage
model preset: a field of the other one|src/model/model_fields.c|s/.clip = CLIP_XT/.clip = CLIP_X0/|test_fields
options: the wrong field|src/cli/options/train_args.c|s/"qsize", MODEL(QSIZE)/"qsize", MODEL(VSIZE)/|cli_train
options: facts in a path|src/cli/options/options.c|s/in_word .. quoted ? NULL/in_word ? NULL/|cli_errors
options: facts without their option|src/cli/cli.c|s/bool asked = t \&\& /bool asked = 0 \&\& /|cli_errors
json: damaged is empty|src/io/json.c|s/    if (json_is_object(root))$/    if (root)/|test_golden_unet cli_hostile
schedule: one step early|src/model/diffusion.c|s/cosine_f(t + 1, timesteps) \/ cosine_f(t, /cosine_f(t + 2, timesteps) \/ cosine_f(t + 1, /|test_diffusion
diffusion: sign of v|src/model/diffusion.c|s/eps\[i\] - s \* (real)x0/eps[i] + s * (real)x0/|test_diffusion
ddpm: variance is beta|src/model/diffusion.c|s/variance = beta \* (1 - prev) \/ (1 - ac)/variance = beta/|test_diffusion
ddpm: clips the wrong thing|src/model/diffusion.c|s/if (clip == CLIP_X0)/if (clip == CLIP_XT)/|test_diffusion
ddim: eta ignored in the direction|src/model/diffusion.c|s/1 - prev - sigma \* sigma/1 - prev/|test_diffusion
sampler: noise by place in the batch|src/model/sampler_noise.c|s/k->c->first + k->first + i/k->c->first + i/|test_sampler
sampler: noise repeats|src/model/sampler_noise.c|s/r.counter = (uint64_t)s << 32/r.counter = 0/|test_sampler
sampler: guidance reversed|src/model/sampler_guide.c|s/scale \* (out\[i\] - uncond\[i\])/scale * (uncond[i] - out[i])/|test_sampler
rng: permutation repeats|src/base/rng.c|s/out\[j\] = t;/(void)t;/|test_rng
rng: nine rounds|src/base/rng.c|s/round < 10/round < 9/|test_rng
rng: cosine's quadrant|src/base/rng.c|s/(quarter + 1) & 2/quarter \& 2/|test_rng
trainer: moving average not warmed up|src/train/optimise.c|s/fmin(c->ema, (1 + k) \/ (10 + k))/c->ema/|test_train_update
trainer: clipping forgets the norm|src/train/optimise.c|s/c->clip \/ (norm + 1e-6)/c->clip/|test_train_update
muon: no momentum looked ahead|src/backend/cpu/muon.c|s/x\[k\] = scale \* g\[k\] + mu \* m\[k\];/x[k] = m[k];/|test_kernels_optim
muon: its average forgets the step|src/backend/cpu/muon.c|s/take \* weights\[k\]/take * o[k]/|test_kernels_optim
muon: one round|src/backend/cpu/muon.c|s/ROUNDS = 3/ROUNDS = 1/|test_kernels_optim
muon: a round is left out|src/backend/cpu/muon.c|s/swap(&w->q, &w->next);/;/|test_kernels_optim
muon: s after half a round|src/backend/cpu/muon.c|s/in_square(w, w->s, w->half)/in_square(w, w->next, w->half)/|test_kernels_optim
muon: scratch memory that is not counted|src/train/optimise.c|s/scratch += mem_align_up/(void)mem_align_up/|test_train_update
muon: a block without its last row|src/backend/cpu/muon.c|s/min_int(BLOCK, p->m - i)/min_int(BLOCK - 1, p->m - i)/|test_kernels_optim
muon: only one half of a symmetric product|src/backend/cpu/muon.c|s/if (p->symmetric \&\& j > i)/if (0)/|test_kernels_optim
muon: the norm of the last piece|src/backend/cpu/muon.c|s/sum += works\[i\].sums\[k\]/sum = works[i].sums[k]/|test_kernels_optim
muon: a block of the matrix before|src/backend/cpu/muon.c|s/works\[w + 1\].first <= i)/works[w + 1].first < i)/|test_kernels_optim
muon: matrices as Adam's pieces|src/train/optimise.c|s/t->units\[t->n_matrices + i\]/t->units[i]/|test_train_update
muon: transposed convolutions as Adam|src/train/optimise.c|s/return true;/return p->layout != LAYOUT_CONVT2 \&\& p->use != USE_CONV3;/|test_train_update
muon: what lies between is forgotten|src/train/optimise.c|s/p->kind == PARAM_WEIGHT \&\& at < p->numel/whole \&\& at < p->numel/|test_train_update
timesteps: all alike|src/train/batch.c|s/t->c.timestep_sampling == TIMESTEPS_ALPHAS/false/|test_train
timesteps: one too early|src/model/diffusion.c|s/low = middle + 1;/low = middle + 1, high -= high > low;/|test_diffusion
trainer: one order for all epochs|src/train/batch.c|s/rng_stream("shuffle", (uint64_t)epoch)/rng_stream("shuffle", 0)/|test_train
trainer: one noise for all samples|src/train/batch.c|s/rng_stream("train", (uint64_t)s)/rng_stream("train", 0)/|test_train
trainer: nothing dropped|src/train/batch.c|s/rng_uniform(&r) < t->c.cond_drop/0/|test_train
ref: filter turned in one direction|src/backend/ref/ref_conv.c|s/x + pixel(n, i + a - 1, j + c - 1/x + pixel(n, i + a - 1, j - c + 1/; s/inside(i + a - 1, j + c - 1, s))$/inside(i + a - 1, j - c + 1, s))/|test_golden_ops
ref: gradient of the scale over one image|src/backend/ref/ref_norm.c|s/{0, s.n, channel, channel + 1}/{0, 1, channel, channel + 1}/|test_golden_ops
ref: softmax backward without the mean|src/backend/ref/ref_sublayer.c|s/m\[j\] \* (dm\[j\] - sum)/m[j] * dm[j]/|test_golden_ops
ref: added gradients overwrite|src/backend/ref/ref.h|s/beta == 0 ? v : /beta == beta ? v : /|grad_ops
ref: second moment not squared|src/backend/ref/ref_optim.c|s/(1 - s.beta2) \* gi \* gi/(1 - s.beta2) * gi/|test_golden_steps
simd: the reference is the best|src/backend/dispatch.c|s/be ? be : backend_at(p, 0)/be ? be : \&ref_backend/|test_kernels_basic
precision: automatic is always bfloat16|src/backend/dispatch.c|s/p == PRECISION_BF16 .. !strcmp(be->simd, "amx")/true/|test_kernels_basic
precision: bf16 is computed in float|src/model/unet.c|s/backend_of(o->precision)/backend_get()/|cli_precision
precision: another one goes on a run|src/cli/options/train_args.c|s/"precision", .flags = OPT_FIXED/"precision", .flags = 0/|cli_precision
bf16: operands are cut off, not rounded|src/backend/cpu/bf16/bf16.h|s/u + 0x7fff + ((u >> 16) \& 1)/u/|test_kernels_linear
bf16: ties are rounded up|src/backend/cpu/bf16/bf16.h|s/0x7fff + ((u >> 16) \& 1)/0x8000/|test_kernels_linear
bf16: NaN becomes a number|src/backend/cpu/bf16/bf16.h|s/nan = (vu)(x != x)/nan = (vu)(x - x != x - x) * 0/|test_kernels_linear
bf16: another image shows at the border|src/backend/cpu/bf16/product.h|s/            memset(to, 0, in.wide \* sizeof(bf16));/            ;/|test_conv
bf16: Winograd's operands are not rounded|src/backend/cpu/bf16/conv_winograd.c|s/narrowed(v)/(v)/|test_conv
bf16: the bias's gradient is a sum of rounded terms|src/backend/cpu/conv/winograd_weight.h|s/all += v;/all += OPERAND(v);/|test_conv
muon: factors of small ranks are not matrices|src/train/optimise.c|s/p->use != USE_FACTOR \&\& (d/(d/|test_train_update
run.json: an old run goes on by today's optimizer|src/cli/runfile.c|s/name \&\& !value \&\& i </0 \&\& i </|cli_keep
bf16: the channels of an image are rounded|src/backend/cpu/bf16/kernels.h|s/s.ci < BF16_CHANNELS/s.ci < 1/|test_conv
bf16: a row beyond the weights is packed|src/backend/cpu/bf16/product.h|s/k + 1 < terms ? w/1 ? w/|test_kernels_linear test_conv
bf16: a few rows add to what others do|src/backend/cpu/bf16/linear.c|s/part.add + at \* part.row/part.add + first * part.row/|test_kernels_linear
bf16: a few pixels go where others do|src/backend/cpu/bf16/convt.c|s/.place = k->place + at/.place = k->place/|test_conv
bf16: an attention's operands are not rounded|src/backend/cpu/bf16/sublayer.c|s/narrowed(vload_n(from + i, lanes_from(i, count)))/vload_n(from + i, lanes_from(i, count))/|test_kernels_sublayer
bf16 rows: SiLU of very low numbers|src/backend/cpu/bf16/rows.h|s/    x = vclamp_low(x);/    ;/|test_kernels_sublayer
bf16 rows: what is no channel varies, too|src/backend/cpu/bf16/rows.h|s/if (ragged)$/if (0)/|test_kernels_sublayer
bf16 rows: columns in the order of pairs|src/backend/cpu/bf16/rows.h|s/SHUFFLE(even, odd, 0, 16, 1, 17/SHUFFLE(even, odd, 0, 1, 16, 17/|test_kernels_sublayer
bf16 rows: the layer norm's average forgotten|src/backend/cpu/bf16/rows.h|s/ \* by_xh + add)/ * by_xh)/|test_kernels_sublayer
bf16 rows: what lies beyond the last pixel counts|src/backend/cpu/bf16/rows_tile.h|s/memset(copy + (size_t)r \* row, 0, /memset(copy + (size_t)r * row, 0x3f, /|test_kernels_sublayer
bf16 rows: only the last span counts|src/backend/cpu/bf16/sublayer_rows.h|s/            add = true;/            ;/|test_kernels_sublayer
bf16 rows: all images have the first one's weights|src/backend/cpu/bf16/sublayer_rows.h|s/pack_weights(a->own, j->in, n, count, s)/pack_weights(a->own, j->in, 0, count, s)/|test_kernels_sublayer
bf16 rows: scores of the image before count|src/backend/cpu/bf16/sublayer_rows.h|s/        memset(sums.b1, 0, b1_reals(s) \* sizeof(real));/        ;/|test_kernels_sublayer
bf16 rows: columns without a token count|src/backend/cpu/bf16/rows_softmax.h|s/if (t + j < f)/if (t < f)/|test_kernels_sublayer
bf16 rows: the softmax's gradient without the mean|src/backend/cpu/bf16/rows_softmax.h|s/(vload(dp + t \* ROWS) - sum)/vload(dp + t * ROWS)/|test_kernels_sublayer
bf16: taps of the filter's gradient begin elsewhere|src/backend/cpu/bf16/conv_weight.c|s/t % 3 - 1;/t % 2 - 1;/|test_conv
bf16: a part of the other work is not done|src/backend/cpu/bf16/block.h|s/        if (beside)$/        if (beside \&\& k > 0)/|test_tiles
bf16: odd shifts without the last place|src/backend/cpu/bf16/conv_weight.c|s/at < end + margin; at/at < end; at/|test_conv
bf16: the bias gets every other pixel|src/backend/cpu/bf16/conv_weight.c|s/ + vload_n(second + i, min_int(VW, c - i));/;/|test_conv
bf16: the sums of a block go to the one after|src/backend/cpu/bf16/product.h|s/            w.first = i;/            w.first = i + 1;/|test_conv
bf16: tiles keep what a block held|src/backend/cpu/bf16/block.h|s/_tile_zero(tile);/_tile_loadd(tile, c, stride);/|test_tiles
bf16: the second panel is the first|src/backend/cpu/bf16/block.h|s/_tile_loadd(7, b + t.panel, 64)/_tile_loadd(7, b, 64)/|test_tiles
bf16: tiles are not given back|src/backend/cpu/bf16/block.h|s/^    _tile_release();/    ;/|test_tiles
simd: what is not there is not refused|src/cli/cli.c|s/ \&\& !backend_check(&e)//|cli_usage
progress: the mean begins with the first loss|src/cli/term/progress.c|s/fmin(0.98, (1 + k) \/ (10 + k))/0.98/|cli_terminal
progress: an epoch's line is drawn over|src/cli/term/progress.c|s/if (milestone)$/if (0)/|cli_terminal
text: C1 controls are shown|src/base/text.c|s/{0x7f, 0x9f}/{0x7f, 0x7f}/|test_text cli_terminal
text: overlong forms are shown|src/base/text.c|s/\*c >= LEAST\[n\] && //|test_text
info: a layer known by a shorter ending|src/store/adapter_names.c|s/after < most .. (after == most/0 \&\& (after == most/|test_adapter_about
info: alphas are numbers|src/store/adapter_about.c|s/ \&\& part != FILE_ALPHA//|test_adapter_about
info: the rank of the reference's spelling|src/store/adapter_shapes.c|s/l->style == STYLE_REFERENCE ? 1 : 0/0 ? 1 : 0/|test_adapter_about
info: rsLoRA's scale without the root|src/store/adapter_about.c|s/l->alpha, a->config.rslora)/l->alpha, false)/|test_adapter_about
info: half a layer|src/store/adapter_about.c|s/if (adapter_check_complete(a, l, e) ../if (/|test_adapter_about
info: any class table|src/store/adapter_about.c|s/if (strcmp(l->name, CLASS_TABLE))/if (1)/|test_adapter_about
info: strangers not counted|src/store/adapter_names.c|s/(\*strangers)++ ? \*strange : it->t/*strangers ? *strange : it->t/|test_adapter_about
info: a group holds what cannot be adapted|src/adapter/target.c|s/adapter_adaptable(weight) \&\& in_group/in_group/|test_adapter_about
info: numbers of A alone|src/adapter/adapter.c|s/ + shape_numel(adapter_part_shape(&l, PART_B)))/)/|test_adapter_about
info: made for whichever model|src/cli/info_adapter.c|s/made_for = !strcmp(base, sha256)/made_for = base != NULL/|cli_info
info: facts of a file by itself|src/cli/info_run.c|s/else if (facts \&\& facts->steps)/else if (0)/|cli_info
info: the loss of the base alone|src/cli/info_run.c|s/if (facts \&\& isfinite(facts->base_val_loss))$/if (0)/|cli_info
info: DEL in JSON|src/cli/report.c|s/if (\*p == 0x7f)/if (0)/|cli_terminal
signals: SIGHUP kills|src/cli/interrupt.c|s/N_SIGNALS = 3/N_SIGNALS = 2/; s/, SIGHUP}/}/|cli_signals
signals: a second one ends as if saved|src/cli/interrupt.c|s/_exit(ERR_FAILED)/_exit(128 + sig)/|cli_signals
signals: SIGHUP counts as a second one|src/cli/interrupt.c|s/sig != SIGHUP && asked/arrived/|cli_signals
signals: nobody reads, and the run ends|src/cli/interrupt.c|s/signal(SIGPIPE, SIG_IGN)/(void)0/|cli_signals
signals: a file size limit kills|src/cli/main.c|s/signal(SIGXFSZ, SIG_IGN)/(void)0/|cli_signals
start: closed streams stay closed|src/cli/start.c|s/fd < 3/fd < 0/|cli_signals
memory: a parent group's limit forgotten|src/base/mem.c|s/while ((slash = strrchr(group, '\/')))/if ((slash = strrchr(group, '\/')))/|test_mem
memory: limits of the process forgotten|src/base/mem.c|s/!getrlimit(kinds\[i\], &r)/getrlimit(kinds[i], \&r)/|test_mem
sampler: the bound is not kept|src/model/sampler_plan.c|s/if (p->bytes <= bound)/if (p->bytes \/ 2 <= bound)/|test_sampler_memory
sampler: the caller's memory forgotten|src/model/sampler_plan.c|s/p->bytes += c->other_bytes/p->bytes += 0/|test_sampler_memory
trainer: the bound is not looked at|src/train/trainer.c|s/trainer_check_memory(t, e) .. //|cli_memory test_train_memory
train: weights taken before the bound is looked at|src/cli/cmd_train.c|s/ .. train_check_weights(run->loop.model, &a->train, e)//|cli_memory
preview: drawn without room|src/run/preview.c|s/return !sample_measure(&plan, m, ids, n, c, why)/return (sample_measure(\&plan, m, ids, n, c, why), true)/|cli_memory
predict: the bound is not kept|src/cli/cmd_predict.c|s/return bytes <= bound$/return 1/|cli_memory
linear: a large array on the stack|src/backend/cpu/linear.c|s/real \*turned = scratch;/real turned[TURNED_MAX];/|cli_memory
linear: a gradient is written over what it adds to|src/backend/cpu/linear.c|s/dw.p \&\& dw.beta == 0/dw.p/|test_kernels_linear
linear: the first of several parts is all|src/backend/cpu/linear.c|s/chunks == 1 \&\& dw.p/dw.p/|test_kernels_linear
grid: one pixel too many|src/io/image.c|s/bytes > INT_MAX \/ 2/bytes > INT_MAX \/ 2 + 1/|test_image
png texts: the CRC is not compared|src/io/png_read.c|s/u32(sum) == crc/crc >= 0/|test_png
png texts: as long as they claim|src/io/png_read.c|s/if (r->length > PNG_TEXTS_MAX - r->bytes)/if (0)/|test_png
png texts: a NUL inside|src/io/png_read.c|s/if (memchr(p, 0, (size_t)(end - p)))/if (0)/|test_png
png texts: any key|src/io/png_read.c|s/if (key < 1 .. key > KEY_MAX)/if (!p)/|test_png
png texts: Latin-1 passes for UTF-8|src/io/png_read.c|s/if (c >= 0x80)/if (0)/|test_png
sha256 of a file: the last piece is whole|src/base/sha256.c|s/SHA256Update(&ctx, piece, got)/SHA256Update(\&ctx, piece, sizeof piece)/|test_dir
recipe: the path as it was given|src/cli/recipe.c|s/text_safe(name, cap, from)/text_safe(name, cap, path)/|cli_info
recipe: without its run|src/cli/recipe.c|s/if (runinfo_there(dir))/if (0)/|cli_info
recipe: what was chosen is left out|src/cli/recipe.c|s/s.cols = a->trajectory ? 0 : p->cols/s.cols = 0/|cli_info
recipe: a sampler is told what it does not take|src/cli/recipe.c|s/return d->uses_eta/return true/|cli_info
recipe: any option out of a file|src/cli/recipe.c|s/if (!o .. !(o->flags & OPT_DRAWN))/if (!o)/|cli_info
recipe: values are not looked at|src/cli/recipe.c|s/if (option_store(scratch, o, value, NULL))/if (!scratch)/|cli_info
recipe: a word is not quoted|src/cli/report.c|s/\*word \&\& strspn(word, plain) == strlen(word)/*word \&\& strspn(word, plain)/|cli_info
recipe: looks anywhere for a model|src/cli/info_png.c|s/if (!path .. name\[0\] == '\/' .. strstr(name, ".."))/if (!path)/|cli_info
recipe: any file is the model|src/cli/info_png.c|s/strncmp(hex, hash, RECIPE_HASH)/0/|cli_info
run: a lock is not seen|src/cli/runinfo.c|s/flock(fd, LOCK_SH . LOCK_NB) \&\& errno == EWOULDBLOCK/0/|cli_list
list: through links|src/cli/cmd_list.c|s/FTS_PHYSICAL . FTS_NOCHDIR . FTS_COMFOLLOW/FTS_LOGICAL/|cli_list
list: a damaged run ends it|src/cli/cmd_list.c|s/rc = add_damaged(l, path, why.msg, e)/rc = err_set(e, ERR_INPUT, "%s", why.msg)/|cli_list
png: anybody's text|src/io/png.c|s/ \&\& !memcmp(head + at + sizeof key, program, n)//|test_image
output: not tried beforehand|src/cli/cli.c|s/!(f = file_create(path, e))/(f = NULL, 0)/|cli_output
output: also the input|src/cli/cli.c|s/a.st_ino != b.st_ino)/a.st_ino != b.st_ino + 1)/|cli_output
output: somebody's picture replaced|src/cli/cli.c|s/image_png_made_by(path, "sdlora ")/S_ISREG(st.st_mode)/|cli_output
checkpoint: step forgotten|src/train/checkpoint.c|s/t->step = json_integer_value.*/t->step = 0;/|test_resume
checkpoint: moments forgotten|src/train/checkpoint.c|s/store_get(t->trained, t->m, /store_get(t->trained, t->v, /|test_resume
model file: surplus tensors pass|src/store/model_file.c|s/if (!param_find(m->params, st_at(f, i)->name))/if (0)/|test_golden_unet
safetensors: holes pass|src/io/safetensors_read.c|s/if (x->begin != at)/if (0)/|test_safetensors
safetensors: short files pass|src/io/safetensors_read.c|s/if (x->end > size /if (0 \&\& x->end > size /; s/if (x->end > got)/if (0)/|test_safetensors
idx: long files pass|src/data/inflate.c|s/if (got > 0)/if (0)/|test_idx
arrays: memory before the size of the file|src/data/inflate.c|s/if (inflate_bound(r) < bytes)/if (0)/|test_idx test_npy
npy: channels as they lie in the file|src/data/npy.c|s/return out->channels > 1 ? part_channels(out, e) : 0/return 0/|test_npy
npy: channels and pixels exchanged|src/data/npy.c|s/image\[p % c \* hw + p \/ c\]/image[p % hw * c + p \/ hw]/|test_npy
npy: big-endian labels|src/data/npy.c|s/descr\[0\] == '>' ? item - 1 : 0/0/|test_npy
npy: large labels are cut|src/data/npy.c|s/i != lowest \&\& p\[i\] != 0/0/|test_npy
npy: negative labels|src/data/npy.c|s/item == 1 \&\& descr\[1\] == 'i' \&\& p\[0\] > 127/0/|test_npy
npy: Fortran order|src/data/npy.c|s/if (h->fortran)/if (0)/|test_npy
npy: a number in brackets is a shape|src/data/npy.c|s/(h->nd != 1 .. comma) \&\& //|test_npy
npy: keys twice|src/data/npy.c|s/k == 3 .. seen\[k\]/k == 3/|test_npy
npy: keys missing|src/data/npy.c|s/ \&\& seen\[0\] \&\& seen\[1\] \&\& seen\[2\]//|test_npy
npy: the header ends at a NUL|src/data/npy.c|s/strlen(text) < length .. //|test_npy
npy: headers of any length|src/data/npy.c|s/if (\*length > HEADER_MAX)/if (0)/|test_npy
npy: sizes run over|src/data/npy.c|s/\*out = SIZE_MAX; .*/break;/|test_npy
npy: any number of channels|src/data/npy.c|s/h->d\[3\] != 1 \&\& h->d\[3\] != 3/0/|test_npy
sources: NumPy's is not asked|src/data/dataset.c|s/&NPY_SOURCE,//|test_npy cli_data
pictures: a JPEG needs no end|src/io/image_file.c|s/^    return cut_short(f, e);$/    return 0;/|test_image_read
pictures: a PNG needs no end|src/io/image_file.c|s/length = big(chunk, 4)) > f->n - at - 12)/length = big(chunk, 4)) > f->n - at - 12) return 0; if (0)/|test_image_read
pictures: a GIF needs no end|src/io/image_file.c|s/return gif_blocks_end(f, at) <= f->n ?/return 1 ?/|test_image_read
pictures: a BMP needs no end|src/io/image_file.c|s/ + ((uint64_t)f->w \* bits + 7) \/ 8 > f->n)/ > f->n)/|test_image_read
pictures: checksums are not looked at|src/io/image_file.c|s/if (crc32(0, chunk + 4/if (0 \&\& crc32(0, chunk + 4/|test_image_read
pictures: tables of codes of any size|src/io/image_file.c|s/if (codes > 256 .. /if (/|test_image_read
pictures: a JPEG without a scan|src/io/image_file.c|s/return scan ? 0/return 1 ? 0/|test_image_read
pictures: any number of pixels|src/io/image_file.c|s/if (f->w > IMAGE_PIXELS_MAX/if (0 \&\& f->w > IMAGE_PIXELS_MAX/|test_image_read
pictures: no pixels|src/io/image_file.c|s/    if (f->w < 1 .. f->h < 1)$/    if (0)/|test_image_read
pictures: EXIF of the other byte order|src/io/image_file.c|s/p\[0\] == 'M' ? big : little/1 ? big : little/|test_image_read
pictures: CMYK without Adobe's marker|src/io/image_file.c|s/    f->plain_cmyk = true;/    ;/|test_image_read
pictures: a GIF's background|src/io/image_file.c|s/    f->gif_ground =$/    f->gif_ground = 0 \&\&/|test_image_read
pictures: unpacked to any size|src/io/image_read.c|s/return n <= block_max ?/return 1 ?/|test_image_read
pictures: mirrored where they are turned|src/io/image_read.c|s/orientation == 2 .. orientation == 3 .. orientation == 7 .. orientation == 8/orientation == 2 \x7c\x7c orientation == 3 \x7c\x7c orientation == 6 \x7c\x7c orientation == 8/|test_image_read
pictures: transparent parts on black|src/io/image_read.c|s/ + background \* (255 - alpha)//|test_image_read
pictures: alpha cut, not rounded|src/io/image_read.c|s/ + 127) \/ 255/) \/ 255/|test_image_read
pictures: colour shows through and is lost|src/io/image_read.c|s/(!alpha .. grey_ground)/true/|test_image_read
fit: the beginning is kept|src/data/resize.c|s/p.x = round_even(p.w - size, 2);/p.x = 0;/|test_image_read
fit: beside the middle|src/data/resize.c|s/p.y = round_even(size - p.h, 2);/p.y = 0;/|test_image_read
fit: halves are rounded up|src/data/resize.c|s/ \&\& q % 2 == 1//|test_image_read
fit: a picture vanishes|src/data/resize.c|s/shorter < 1 ? 1 : shorter/shorter/|test_image_read
fit: grey is the first channel|src/data/resize.c|s/grey\[i\] = image_luma(in->px + 3 \* i)/grey[i] = in->px[3 * i]/|test_image_read
folder: in the order of the disk|src/data/folder_scan.c|s/return strcmp((\*a)->d_name, (\*b)->d_name)/return strcmp((*b)->d_name, (*a)->d_name)/|test_folder
folder: hidden files|src/data/folder_scan.c|s/return d->d_name\[0\] != '.'/return strcmp(d->d_name, ".") \&\& strcmp(d->d_name, "..")/|test_folder
folder: endings in one case|src/data/folder_scan.c|s/!strcasecmp(dot + 1, ENDINGS\[i\])/!strcmp(dot + 1, ENDINGS[i])/|test_folder
folder: read twice|src/data/folder_scan.c|s/return see(w, st) ? walk/return see(w, st) \x7c\x7c w->f->n < 100 ? walk/|test_folder
folder: links mix classes|src/data/folder_scan.c|s/first = folder \&\& see(w, \&st)/first = folder/|test_folder
folder: classes that differ in case|src/data/folder_scan.c|s/if (!strcasecmp(f->class_name\[c\], name))/if (0)/|test_folder
folder: any number of classes|src/data/folder_scan.c|s/if (f->classes == DATA_CLASSES_MAX)/if (f->classes == DATA_CLASSES_MAX - 1)/|test_folder
folder: a class without pictures|src/data/folder_scan.c|s/if (w->f->n > before \&\& add_class/if (add_class/|test_folder
folder: runs are data|src/data/folder_scan.c|s/wanted = is_run(names, n) ? 0 : n/wanted = n/|test_folder
folder: loose pictures are not told|src/data/folder_scan.c|s/if (rc .. loose == 0)/if (1)/|test_folder
folder: a folder like a picture|src/data/folder_scan.c|s/const bool folder = path \&\& file_is_dir(path)/const bool folder = false/|test_folder
folder: folders that cannot be read are not told|src/data/folder_scan.c|s/rc = leave_out(w, path, strerror(errno))/rc = 0/|test_folder
folder: test comes before val|src/data/folder_parts.c|s/{"val", "valid", "test", NULL}/{"test", "val", "valid", NULL}/|test_folder_parts
folder: train among other classes|src/data/folder_parts.c|s/return train \&\& !others/return train/|test_folder_parts
folder: a part that has its own is split|src/data/source_folder.c|s/        if (!whole)$/        if (1)/|test_folder_parts
folder: another set is split|src/data/source_folder.c|s/whole = whole .. c->val;/;/|test_folder_parts
folder: split by place|src/data/folder_parts.c|s/file_sha256(hex, path, strlen(path))/file_sha256(hex, path, strlen(path) - 1)/|test_folder_parts
folder: a class is not trained on|src/data/folder_parts.c|s/trains\[f->item\[i\].label\] > 0 \&\& //|test_folder_parts
folder: classes by their place|src/data/folder_parts.c|s/            if (!strcmp(f->class_name\[i\], c->class_name\[k\]))/            if (k == i)/|test_folder_parts
folder: any class for testing|src/data/folder_parts.c|s/        if (label\[i\] < 0)/        if (0)/|test_folder_parts
folder: told with both parts|src/data/folder_parts.c|s/    if (split == DATA_TEST)$/    if (0)/|test_folder_parts
folder: grey until proven|src/data/folder_decode.c|s/    return c->channels > 0 ? c->channels : 3;/    return c->channels > 0 ? c->channels : 1;/|test_folder
folder: two channels are enough|src/data/folder_decode.c|s/memcmp(px, px + hw, hw) != 0 .. //|test_folder
folder: what is not read stays|src/data/folder_decode.c|s/        if (d->facts\[i\].read)$/        if (1)/|test_folder
folder: none can be read|src/data/source_folder.c|s/r->pictures > 0 \&\& r->skipped == r->pictures/0/|test_folder
folder: strict does nothing|src/data/source_folder.c|s/strict \&\& first/0/|test_folder
folder: strict of pictures only|src/data/source_folder.c|s/strict \&\& r->lines > 0/0/|test_folder
folder: strict names a folder|src/data/source_folder.c|s/r->line\[r->lines - r->skipped\]/r->line[0]/|test_folder
folder: the size of the last|src/data/source_folder.c|s/if (pixels > most)/if (pixels >= most)/|test_folder
sources: pictures beside IDX files|src/data/dataset.c|s/        if (has_other(SOURCES\[i\], path, split))/        if (0)/|test_folder_parts
cache: for any background|src/data/folder_cache.c|s/c->background\[1\], c->background\[2\]/c->background[1], 0/|test_folder_cache
cache: for any fit|src/data/folder_cache.c|s/(int)c->fit/0/|test_folder_cache
cache: for any part|src/data/folder_cache.c|s/memcmp(head->key, want.key, sizeof want.key) ../0 \x7c\x7c/|test_folder_cache
cache: times are not asked|src/data/folder_cache.c|s/(FileSpan){&p->stamp, sizeof p->stamp}/(FileSpan){\&p->stamp.size, 8}/|test_folder_cache
cache: a time set back|src/data/folder_cache.c|s/(FileSpan){&p->stamp, sizeof p->stamp}/(FileSpan){\&p->stamp, 16}/|test_folder_cache
cache: names are not asked|src/data/folder_cache.c|s/(FileSpan){p->path, strlen(p->path) + 1}/(FileSpan){"", 1}/|test_folder_cache
cache: not checked|src/data/folder_cache.c|s/checksum(&head, d) == head.crc/1/|test_folder_cache
cache: longer than it says|src/data/folder_cache.c|s/           file_size(in) == /           file_size(in) >= /|test_folder_cache
cache: more than there are|src/data/folder_cache.c|s/return read == d->read/return true/|test_folder_cache
cache: facts of any kind|src/data/folder_cache.c|s/ \&\& are_facts(d)//|test_folder_cache
cache: what was broken stays so|src/data/folder_decode.c|s/same = same \&\& !d->facts\[i\].read/;/|test_folder_cache
cache: no place is an error|src/data/source_folder.c|s/if (r->cache \&\& !folder_cache_save(r->cache, d, f, c)) {/if (r->cache \&\& !folder_cache_save(r->cache, d, f, c)) return -1; else {/|test_folder_cache
channels: grey is red|src/data/dataset.c|s/out\[k\] = image_luma(.*;/out[k] = in[k];/|test_folder
data: names of bytes on the sheet|src/cli/data_sheet.c|s/                   text_ascii(name, sizeof name, d->class_name\[c\]), 1, 0);/                   d->class_name[c], 1, 0);/|cli_folder
data: a picture over the data|src/cli/options/picture_args.c|s/return within ? err_set/return 0 ? err_set/|cli_folder
data: both grey and in colour|src/cli/options/picture_args.c|s/if (a->grey \&\& a->rgb)/if (0)/|cli_folder
data: colours of any length|src/cli/options/picture_args.c|s/n != 6 .. digits\[n\]/n < 5/|cli_folder
data: all that is left out is told|src/cli/options/picture_args.c|s/i < r->lines \&\& i < LINES_MAX/i < r->lines/|cli_folder
data: a cache where a relative path says|src/cli/cli.c|s/if (xdg \&\& \*xdg == '.')/if (xdg)/|cli_folder
train: a batch larger than the data|src/cli/train_command.c|s/    a->train.batch = run->train.n;/    ;/|cli_folder
train: the first class only|src/cli/options/train_args.c|s/    if (d->report)$/    if (0)/|cli_folder
train: validated in other channels|src/cli/options/train_args.c|s/c->channels = train->channels;/;/|cli_folder
EMNIST: on its side|src/data/source_emnist.c|s/one\[(size_t)x \* (size_t)h + (size_t)y\]/one[(size_t)y * (size_t)w + (size_t)x]/|test_sources
EMNIST: letters from 1|src/data/source_emnist.c|s/d->labels\[i\]--;/;/|test_sources
EMNIST: any letter|src/data/source_emnist.c|s/d->labels\[i\] < 1 .. d->labels\[i\] > 26/0/|test_sources
EMNIST: the last of several kinds|src/data/source_emnist.c|s/if (one.n > 0 \&\& found)/if (0)/|test_sources
CIFAR: the coarse label|src/data/source_cifar.c|s/out->labels\[out->n++\] = label\[c->labels - 1\]/out->labels[out->n++] = label[0]/|test_sources
CIFAR: part of a record|src/data/source_cifar.c|s/size % record != 0/0/|test_sources
CIFAR: any label|src/data/source_cifar.c|s/if (label\[c->labels - 1\] >= c->classes)/if (0)/|test_sources
CIFAR: any number of names|src/data/source_cifar.c|s/if (result == 0 \&\& n != c->classes)/if (0)/|test_sources
npz: packed in any way|src/data/npz.c|s/if (st.comp_method != ZIP_CM_STORE/if (0 \&\& st.comp_method != ZIP_CM_STORE/|test_sources
npz: memory as the archive says|src/data/npz.c|s/st.size < most ? st.size : most/st.size/|test_sources
npz: only the test arrays|src/data/source_npz.c|s/, {"val_images", "val_labels"}//|test_sources
npz: the first of several|src/data/source_npz.c|s/if (result == 0 \&\& out->n > 1)/if (0)/|test_sources
npz: counts that differ|src/data/source_npz.c|s/if (images.n != labels.n)/if (0)/|test_sources
augment: always mirrored|src/train/augment.c|s/t.flip = rng_below(r, 2) == 1/t.flip = true/|test_augment
augment: shifted one way|src/train/augment.c|s/(2 \* most + 1)) - most;/(most + 1));/|test_augment
augment: all around comes back black|src/train/augment.c|s/return v < 0 ? 0 : v > most ? most : v/return v < 0 ? 0 : v > most ? 0 : v/|test_augment
augment: turned too far|src/train/augment.c|s/#define TAN_HALF 0.1316/#define TAN_HALF 0.1716/|test_augment
augment: turned about a corner|src/train/augment.c|s/centre = (size - 1) \/ 2.0/centre = 0/|test_augment
augment: contrast about black|src/train/augment.c|s/j->mean + j->contrast \* (v\[c\] - j->mean)/j->contrast * v[c]/|test_augment
augment: saturation forgotten|src/train/augment.c|s/g + j->saturation \* (v\[c\] - g)/v[c]/|test_augment
augment: by the place in the batch|src/train/batch.c|s/rng_stream("augment", (uint64_t)s)/rng_stream("augment", (uint64_t)worker)/|test_augment
augment: validation too|src/train/batch.c|s/t, image_at(&t->val, (size_t)image, room_of(t, worker)), timestep/t, training_image(t, (size_t)image, image, worker), timestep/|test_augment
fields: a set of unknown names|src/base/fields_text.c|s/        if (bit < 0) {/        if (0) {/|test_fields
fields: a set beyond its names|src/base/fields.c|s/value >= 0 \&\& value < (int64_t)1 << n/1/|test_fields
sources: images without labels|src/data/dataset.c|s/if (out->n == 1)/if (0)/|test_idx test_npy
sources: counts that differ|src/data/dataset.c|s/if (images == labels)/if (1)/|test_idx test_npy
balance: the last of each class|src/data/dataset.c|s/if (quota\[d->labels\[i\]\]-- > 0)/if (quota[d->labels[d->n - 1 - i]]-- > 0)/|test_transform
balance: classes are lost|src/data/dataset.c|s/if (n < present)/if (0)/|test_transform cli_data
balance: one class after the other|src/data/dataset.c|s/if (quota\[c\] < count\[c\]) {/while (quota[c] < count[c] \&\& n > 0) {/|test_transform
transform: a cross for a square|src/data/transform.c|s/            int v = at(p, i, j);/            int v = at(p, i, i == y ? j : x);/|test_transform
transform: what lies outside is black|src/data/transform.c|s/Range r = {255, 0}/Range r = {y > 0 ? 255 : 0, 0}/|test_transform
transform: the right neighbour forgotten|src/data/transform.c|s/j <= x + 1/j <= x/|test_transform
transform: slants the other way|src/data/transform.c|s/20 \* (int64_t)x - 3/20 * (int64_t)x + 3/|test_transform
transform: rounded down|src/data/transform.c|s/part \* b + 10)/part * b)/|test_transform
transform: cut towards zero|src/data/transform.c|s/from >= 0 ? from \/ 20 : .*;/from \/ 20;/|test_transform
transform: the next channel's pixels|src/data/transform.c|s/d->images + i \* hw, before, d->h/d->images + i * hw, d->images, d->h/|test_transform
data: anybody's directory is replaced|src/cli/cmd_data.c|s/if (!is_copy(output))/if (0)/|cli_data
data: one that somebody added to|src/cli/cmd_data.c|s/ \&\& dir_holds_only(dir, names);/;/|cli_data
data: replaced unasked|src/cli/cmd_data.c|s/return a->force ? 0 :/return 1 ? 0 :/|cli_data
data: written over its source|src/cli/cmd_data.c|s/if (cli_check_apart(output, a->source, e))/if (0)/|cli_data
data: a copy in colour as IDX files|src/data/dataset_write.c|s/d->channels == 1 ? write_idx/1 ? write_idx/|test_transform
data: half a copy stays|src/cli/cmd_data.c|s/dir_remove(tmp, names, &removed, NULL)/(void)removed/|cli_data
directory: one that is held is cleaned|src/base/dir.c|s/ .. errno != EWOULDBLOCK)/ \x7c\x7c 1)/|test_dir
noise: colours are drawn as grey|src/cli/cmd_noise.c|s/rows \* a->cols, a->model.in_channels,/rows * a->cols, 1,/|cli_image
file: a failed write passes|src/base/file_out.c|/got = write(/,/continue/s/if (got < 0 && errno == EINTR)/if (got < 0) got = (ssize_t)chunk; if (got < 0)/|cli_faults
file: not synced|src/base/file_out.c|s/return fsync(fd) ? err_errno/return 0 ? err_errno/|test_file
file: a temporary that is not locked|src/base/dir.c|s/(flock(fd, LOCK_EX . LOCK_NB) && errno == EWOULDBLOCK)/0/|test_file
file: a temporary with a name that is known|src/base/dir.c|s/getrandom(&id, sizeof id, GRND_NONBLOCK) != (ssize_t)sizeof id/0/|test_file test_dir
file: everybody's temporaries are cleaned|src/base/dir.c|s/if (!flock(fd, LOCK_EX . LOCK_NB))$/if (1)/|test_dir
file: other permissions|src/base/file_out.c|s/return had ? keep_mode(f, &old, e) : 0/return 0/|test_file
file: a named pipe is waited for|src/base/file_in.c|s/O_RDONLY . O_NONBLOCK/O_RDONLY/|cli_inputs
file: devices are read|src/base/file_in.c|s/if (S_ISREG(st.st_mode)) {/if (!S_ISFIFO(st.st_mode)) {/|cli_inputs
directory: what is not ours is removed|src/base/dir.c|s/!(named(entry->d_name, names) .. dir_is_temporary(entry->d_name))/0/|test_dir
directory: anybody's is taken|src/run/rundir.c|s/    if (empty)$/    if (1)/|cli_directory
directory: a run of another command|src/run/rundir.c|s/\*ours = !strcmp(said, rundir_command(r))/*ours = true/|cli_directory
directory: links are followed|src/run/rundir.c|s/S_ISLNK(st.st_mode))$/0)/|cli_directory
previous: not undone|src/run/rundir_previous.c|s/                 ? undo(r, home, e)/                 ? 0/|cli_previous
previous: not looked for before a resume|src/run/rundir_previous.c|s/    if (!pending)/    if (1)/|cli_previous
previous: later checkpoints stay|src/run/rundir_previous.c|s/rc = steps\[i\] > step ? move/rc = 0 ? move/|cli_previous cli_keep
previous: what is read may move|src/run/rundir_previous.c|s/if (lies_in(\*inputs, path))/if (0)/|cli_directory
metrics: a bad line ends them|src/run/rundir_metrics.c|s/step_of(line) <= step : end != NULL/step_of(line) <= step : false/|cli_directory
run: a junk result is believed|src/cli/train_command.c|s/    if (whole)/    if (1)/|cli_directory
run: a state of another step|src/cli/train_command.c|s/named >= 0 \&\& named != step/0/|cli_directory
run: other labels of the validation set|src/train/checkpoint.c|s/json_object_get(saved, "val_sha256"))/0)/|cli_directory
run: a resumed run does not see to its best|src/cli/train_command.c|s/return rundir_checkpoint_saved(&run->dir, step.*/return 0;/|cli_faults
checkpoint: written in place|src/train/checkpoint.c|s/dir_make_temporary(tmp, cap, parent, e)/snprintf(tmp, cap, "%s", dir) < 0 \x7c\x7c file_mkdirs(tmp, e)/|cli_kill
checkpoint: nothing of a failed one is removed|src/train/checkpoint.c|s/dir_remove(tmp, CHECKPOINT_FILES, &removed, NULL)/(void)removed/|cli_faults
run: a damaged checkpoint is the latest|src/run/rundir_checkpoints.c|s/? -1 : check_whole(out, &why)/? -1 : 0/|cli_kill
run: the best is removed too|src/run/rundir_checkpoints.c|s/if (steps\[i\] != r->best_step)/if (1)/|cli_keep
loop: a late signal leaves nothing|src/run/loop.c|s/return writes() \&\& s->saved_step != step/return 0/|test_loop
loop: the validation loss is not told|src/run/loop.c|s/observer.ctx, &r, val_loss,/observer.ctx, \&r, (double)NAN,/|test_loop
loop: a picture that may not be shown|src/run/preview.c|s/return o.drawn ? o.drawn(o.ctx, g, e) : 0/return o.drawn ? (o.drawn(o.ctx, g, e), 0) : 0/|test_loop
preview: drawn to its end after a signal|src/run/preview.c|s/return loop_signal(ctx)/return 0/|test_loop
messages: the system's refusals name no option|src/cli/cli.c|s/t \&\& e->code != ERR_INPUT/t \&\& e->code == ERR_USAGE/|cli_train
run: another command's run.json|src/run/rundir_json.c|s/r->adapter ? "finetune" : "train"/r->adapter ? "train" : "train"/|cli_directory
best.json: any step|src/run/rundir_checkpoints.c|s/json_integer_value(best) >= 0/true/|cli_hostile
run: what is not finite is saved|src/train/checkpoint.c|s/if (!isfinite(x\[i\]))/if (0)/|cli_keep
safe: only --out is put together again|src/cli/train_command.c|s/if (recover_named(run, e) .. /if (/|cli_safe
safe: a directory that is another by now|src/run/rundir.c|s/held.st_ino == now.st_ino/1/|cli_safe
safe: undoing drops what differs|src/run/rundir_previous.c|s/if (!rc \&\& !same)/if (0)/|cli_safe
safe: undoing follows a link|src/run/rundir_previous.c|s/rc = S_ISDIR(st.st_mode)/rc = 1/|cli_safe
safe: best.json stays for the next run|src/run/rundir_previous.c|s/else if (what == ASIDE_ALL)/else if (what == ASIDE_ALL \&\& strcmp(parts[i], "checkpoints"))/|cli_safe
safe: no best one begins anew|src/run/rundir_checkpoints.c|s/return !out\[0\]$/return 1/|cli_safe
safe: half a checkpoint is copied|src/run/rundir_checkpoints.c|s/file_exists(from) .. name == CHECKPOINT_FILES/file_exists(from)/|cli_safe
safe: what run.json cannot hold moves a run|src/cli/train_command.c|s/if (runfile_check(.*))$/if (0)/|cli_safe
safe: a picture through a link|src/run/loop.c|s/!lstat(path, &st) \&\& !S_ISREG/0 \&\& !S_ISREG/|cli_safe
safe: a link to nothing is replaced|src/base/file_out.c|s/!f->target \&\& !lstat(f->path, &old)/0/|cli_safe
safe: two outputs in one file|src/cli/sample_files.c|s/!strcmp(one, two)/0/|cli_safe
safe: a name is looked at once|src/cli/sample_files.c|s/\&\& !j->args->output;$/\&\& 0;/|cli_safe
safe: an adapter of another model|src/cli/cli.c|s/!strcmp(base, model_sha256)/1/|cli_safe
safe: an error that mkdir did not give|src/base/dir.c|s/if (!mkdir(out, 0777))/if (!mkdir(out, 0777) ? 1 : (file_is_dir(out), 0))/|cli_safe
checkpoint: half a state passes|src/train/checkpoint.c|s/t->unusable = (status = read_state(t, f, e)) != 0/status = read_state(t, f, e)/|test_resume
trainer: goes on after a divergence|src/train/step.c|/lr = learning_rate(t, t->step);/,/return err_set/s/if (t->unusable)/if (0)/|test_resume
model file: what is not finite passes|src/store/store_file.c|s/if (!isfinite(out\[i\]))/if (0)/|cli_hostile
model file: memory before names|src/store/model_file.c|s/if (m && check_names(m, f, e)) {/if (m \&\& (model_seal_blank(m, e) \x7c\x7c check_names(m, f, e))) {/; s/model_seal_blank(m, e) .. read_values/read_values/|cli_hostile
dataset: any label|src/data/dataset.c|s/>= classes)/>= 256)/|cli_errors test_train
image: grid off by one|src/io/image.c|s/pad + i % cols \*/pad + 1 + i % cols */|test_image
chunks: only the first one's gradient|src/model/tree_sum.c|s/: slab, n, 1, 1)/: slab, n, 0, 1)/|test_chunks
chunks: a neighbour that is not whole|src/model/tree_sum.c|s/waiting\[other\].width == width/waiting[other].width > 0/|test_chunks
chunks: a slab too many|src/model/tree_sum.c|s/: digits) + w.count - 1;/: digits) + w.count;/|test_chunks
chunks: the second's gradient over the first's|src/model/tree_sum.c|s/own->slab, true}/own->slab, false}/|test_chunks
chunks: nobody takes a late one's neighbour|src/model/tree_sum.c|s/s->n_spare > 0 \&\& (left/0 \&\& (left/|test_chunks
chunks: a neighbour taken from who goes on with it|src/model/tree_sum.c|s/ \&\& !s->second\[i\].slab)/)/|test_chunks
chunks: a neighbour that two work off|src/model/tree_sum.c|s/left->chunk = 0;/;/|test_chunks
chunks: a sum of two as if of one|src/model/tree_sum.c|s/t.add ? 2 : 1/1/|test_chunks
graph: a weight's gradient is added by each that writes it|src/core/graph.c|s/w->param \&\& w->whole_after == n->index/w->param/|test_plan
plan: a weight's gradient lives until its first writer|src/core/plan.c|s/bwd_step(p, n->whole_after))/bwd_step(p, user))/|test_plan
chunks: values added in their order|src/model/unet_chunks.c|s/v\[i\] += v\[i + width\]/v[0] += v[i + width]/|test_chunks
sampler: this step's prediction for an earlier one's|src/model/sampler.c|s/kept_x0(k, i, answer - back)/kept_x0(k, i, answer)/|test_samplers
samplers: Heun forgets its first slope|src/model/samplers.c|s/{(to.a - from.a \* shrink) . 2, s->x0\[1\]}/{(to.a - from.a * shrink) \/ 2, s->x0[0]}/|test_sampler_orders
samplers: Heun from where Euler led|src/model/samplers.c|s/memcpy(s->base, s->x, s->n \* sizeof \*s->x);$/(void)s;/|test_sampler_orders
samplers: DPM-Solver++ of first order|src/model/samplers.c|s/if (s->x0\[1\] \&\& s->t_prev >= 0)/if (0)/|test_sampler_orders
samplers: second order into the clean image|src/model/samplers.c|s/if (s->x0\[1\] \&\& s->t_prev >= 0)/if (s->x0[1])/|test_sampler_orders
samplers: UniPC without its corrector|src/model/samplers.c|s/^    if (s->x0\[1\])$/    if (0)/|test_sampler_orders
samplers: a corrector of first order|src/model/samplers.c|s/if (s->x0\[2\]) {/if (0) {/|test_sampler_orders
samplers: ancestral noise of nobody|src/model/samplers.c|s/s->noise, s->t, s->t_prev, 1, s->n/s->noise, s->t, s->t_prev, 0.5, s->n/|test_sampler_orders
samplers: x_t not clamped|src/model/samplers.c|s/if (s->clip == CLIP_XT)/if (0)/|test_sampler_orders
samplers: aliases are not names|src/model/samplers.c|s/if (!strcmp(name, \*a))/if (0)/|test_sampler_orders cli_samplers
ddpm: neighbours' noise where steps are left out|src/model/diffusion.c|s/t_prev == t - 1 ? d->betas\[t\] : 1 - ac . prev/d->betas[t]/|test_diffusion test_sampler_orders
spacing: karras without its exponent|src/model/diffusion.c|s/rho = 7;/rho = 1;/|test_sampler_orders
spacing: no bound for sigma|src/model/diffusion.c|s/sigma_max = 80/sigma_max = 1e30/|test_sampler_orders
spacing: the timestep below|src/model/diffusion.c|s/ ? low : high;/ ? low : low;/|test_sampler_orders
spacing: a timestep twice|src/model/diffusion.c|s/t\[s\] = t\[s\] > t\[s + 1\] ? t\[s\] : t\[s + 1\] + 1;/(void)s;/|test_sampler_orders
guidance: the interval's lower end belongs to it|src/model/sampler_guide.c|s/sigma > k->c->cfg_low/sigma >= k->c->cfg_low/|test_sampler_ways
guidance: a pass where there is no guidance|src/model/sampler_guide.c|s/const bool guided = sampler_guides(k, k->times\[s\]);/const bool guided = k->uncond;/|test_sampler_ways
guidance: rescaled all the way|src/model/sampler_guide.c|s/1 - c->cfg_rescale + c->cfg_rescale \* own/own/|test_sampler_ways
guidance: away from no class|src/model/sampler_plan.c|s/return c->negative < 0 ? m->classes : c->negative/return m->classes/|test_sampler_ways
guidance: only where a class is not the negative one|src/model/sampler_plan.c|s/(c->mix \&\& c->mix->to \&\& c->mix->to\[i\] != negative)/0/|test_sampler_ways
between: the negative class is mixed too|src/model/sampler_guide.c|s/negative .. !mix->to ? 0 :/!mix->to ? 0 :/|test_sampler_ways
between: a class by place in the batch|src/model/sampler_guide.c|s/mix->part\[k->first + i\]/mix->part[i]/|test_sampler_ways
between: a noise by place in the batch|src/model/sampler_noise.c|s/(double)mix->part\[k->first + i\]/(double)mix->part[i]/|test_sampler_ways
between: a chord for the circle|src/model/sampler_noise.c|s/from = sin((1 - part) \* angle) . sin(angle)/from = 1 - part/|test_sampler_ways
between: the other seed's noise not counted|src/model/sampler_plan.c|s/ + sample_two_seeds(c);/;/|test_sampler_ways
sampler: the base not counted|src/model/sampler_plan.c|s/ + c->sampler->base + / + /|test_sampler_ways
sampler: a second stage at the first one's timestep|src/model/sampler.c|s/sampler_ask(k, s + stage)/sampler_ask(k, s)/|test_sampler_ways
sampler: a second stage without an end|src/model/sampler.c|s/(k->c->sampler->two_stages \&\& t_prev >= 0)/k->c->sampler->two_stages/|test_sampler_ways
interpolation: refused with one image|src/cli/options/sample_args.c|s/if (a->cols == 1)/if (0)/|cli_usage
interpolation: a class too many|src/cli/classes.c|s/if (n > 1 .. !strcmp(text, "all"))/if (0)/|cli_samplers
recipe: a class where rows go from one to another|src/cli/recipe.c|s/return !sample_mixes_classes(a)/return true/|cli_info
recipe: rows of one image|src/cli/recipe.c|s/ . (p->between ? p->between : 1)//|cli_info
animation: frames without numbers|src/io/png.c|s/put_u32(data, a->numbers++)/put_u32(data, a->numbers)/|test_apng
animation: frames of several sizes|src/io/png.c|s/frames\[i\].h == frames\[0\].h/1/|test_apng
animation: always the first moment|src/cli/sample_picture.c|s/ + (size_t)moment) \* values/) * values/|cli_samplers
sampler: history not counted|src/model/sampler_plan.c|s/return 1 + sample_kept(c)/return 1/|test_samplers
sampler: noise in the last step|src/model/sampler.c|s/def->noise \&\& t_prev >= 0/def->noise/|test_samplers
channels: one after the other in training|src/train/batch.c|s/out\[k \* channels + c\]/out[c * im->hw + k]/|test_in_channels
channels: one after the other in predictions|src/model/predict.c|s/in\[i \* (size_t)channels + c\]/in[c * hw + i]/|test_in_channels
channels: grey files say so|src/store/config_json.c|s/c->in_channels != 1/1/|test_in_channels
channels: any data|src/train/trainer.c|s/train->channels != channels .. (val/(val/|test_in_channels
predict: the last failure is told|src/model/predict.c|s/if (first < p->failed)/if (first >= 0)/|test_not_finite
bench: one pass where sampling makes two|src/cli/bench.c|s/passes = sampler_passes(s)/passes = 1/|cli_sample
threads: nobody takes another's share|src/base/threads.c|s/for (int k = 0; k < pool.threads; k++)/for (int k = 0; k < 1; k++)/|test_threads
threads: two with one number|src/base/threads.c|s/work((int)(s - pool.seats));/work(0);/|test_threads
threads: loops within loops run on all|src/base/threads.c|s/return within ? 1 : pool.limit;/return pool.limit;/|test_threads
threads: a limit that raises|src/base/threads.c|s/if (most < n)/if (1)/|test_threads
threads: denormals are not flushed|src/base/threads.c|s/    flush_denormals();/    ;/|test_kernels_basic
threads: more than cores|src/cli/cli.c|s/threads < cores ? threads : cores/threads/|cli_usage
threads: more than cores, in silence|src/cli/cli.c|s/if (threads > cores)/if (0)/|cli_usage
cores: affinity does not count|src/base/cores.c|s/!sched_getaffinity(0, bytes, set)/0/|test_threads
cores: half a core is none|src/base/cores.c|s/(v\[0\] + v\[1\] - 1) . v\[1\]/v[0] \/ v[1]/|test_threads
cores: only the innermost group counts|src/base/cores.c|s/if (strlen(dir) <= strlen(root))/if (1)/|test_threads
cores: any controller's group|src/base/cores.c|s/if (\*++controllers \&\& !names_cpu(controllers))/if (!*++controllers \&\& 0)/|test_threads
OpenBLAS: starts its threads|src/backend/dispatch.c|s/openblas_num_threads_env/openblas_no_such_env/|cli_usage
again: not computed|src/core/graph.c|s/n->op->again(n, g);/;/|test_plan
again: what it reads has died|src/core/again.c|s/sooner(&next, user->again\[life\], from);/;/|test_plan
again: dies before the last who reads it|src/core/again.c|s/(s = next_read(p, n, last + 1))/!last \&\& (s = next_read(p, n, last + 1))/|test_plan
again: the concat's inputs lie where it was|src/core/plan.c|s/!p->g->nodes\[j\]->again\[0\] \&\& //|test_plan
again: all is kept|src/core/again.c|s/p->g->lean \&\& !p->plain/0/|test_plan
again: every convolution|src/core/op_conv.c|s/    .cheap = conv3x3_cheap,//|test_plan
again: no convolution|src/core/op_conv.c|s/    .again = conv3x3_fwd,//|test_plan
lean: filters stay|src/core/op_conv.c|s/return !g->lean \&\& /return /|test_plan
lean: validation runs beside itself|src/model/unet_chunks.c|s/if (o->twin \&\& o->twin->g->lean)/if (0)/|test_plan
lean: borrowed memory is counted|src/core/graph.c|s/(g->borrows ? 0 : g->scratch_bytes)/g->scratch_bytes/|test_plan
lean: too little memory borrowed|src/core/plan.c|s/ \&\& g->twin->scratch_bytes >= g->scratch_bytes//|test_plan
lean: training borrows|src/core/plan.c|s/ \&\& !g->train \&\& g->twin->scratch/ \&\& g->twin->scratch/|test_plan
images: the first one for all|src/train/batch.c|s/im->px + i \* im->channels \* in/im->px/|test_train_images
images: one channel for all|src/train/batch.c|s/px + c \* in, room/px, room/|test_train_images
images: counted at the model's size|src/train/batch.c|s/\.bytes = (size_t)d->n \* dataset_image_bytes(d)/.bytes = (size_t)d->n * (size_t)m->image_size * (size_t)m->image_size/|test_train_images
safetensors: made ahead|src/io/safetensors_write.c|s/if (items\[i\]->make)/if (0)/|test_safetensors_write
safetensors: the header's sizes are not looked at|src/io/safetensors_read.c|s/if (x->end > size .. /if (/|test_safetensors_write
plan: a gradient over a value that is still read|src/core/plan.c|s/p->g->items\[item\].end == bwd_step(p, user) \&\&/p->g->items[item].end >= 0 \&\&/|test_plan
chunks: threads without one|src/model/unet_chunks.c|s/2 \* own_whole(&c) <= most ? 1/own_whole(\&c) < most ? 1/|test_chunks
chunks: many that are left, one after the other|src/model/unet_chunks.c|s/2 \* left > c->n_workers ? own : own - left/own - left/|test_chunks
sampler: batches of many where there are few|src/model/sampler_plan.c|s/2 \* (n \/ few) > threads/n > threads/|test_sampler_memory
sampler: parts of groups|src/model/sampler_plan.c|s/measure(p, m, classes, n, c, groups \* group, workers, e)/measure(p, m, classes, n, c, groups * 2, workers, e)/|test_sampler_memory
backend: groups of half as many|include/sdlora/backend.h|s/group \* hw < 64/group * hw < 32/|test_sampler_memory
chunks: what is left is not added|src/model/tree_sum.c|s/if (s->n_left > 0)/if (0)/|test_chunks
chunks: a sum without a neighbour waits for none|src/model/tree_sum.c|s/a->width = next_width(s, own, 2 \* width)/a->width = 2 * width/|test_chunks
sampler: batches too large for many threads|src/model/sampler_plan.c|s/n >= 16 \* threads/n >= 16/|test_sampler_memory
fixed nodes: place given away|src/core/plan.c|s/n->fixed ? 0 : i, end/i, end/|test_chunks
fixed nodes: never computed|src/core/graph.c|s/if (n->fixed \&\& n->op->fwd)/if (!n)/|test_chunks
loop: every epoch is attended to|src/run/loop.c|s/return least > steps ?/return 0 ?/|test_loop
loop: an epoch of just so many steps is too short|src/run/loop.c|s/return least > steps ?/return least >= steps ?/;s/(least + steps - 1) . steps : 1/least \/ steps + 1 : 1/|test_loop
loop: epochs passed over are forgotten|src/run/loop.c|s/r->epoch . n > (r->epoch - together) . n/r->epoch % n == 0/|test_loop
milestones: what is asked for by epochs waits|src/cli/options/train_args.c|s/if ((saves .. draws) \&\& /if (0 \&\& /|cli_train
milestones: no pictures taken for a wish|src/cli/options/train_args.c|s/ \&\& a->loop.sample_every > 0;/;/|cli_train
stretch: the range of the first pixels|src/io/image.c|s/i < hw \* (size_t)channels; i++/i < hw; i++/|test_image_colour
stretch: rounded|src/io/image.c|s/(v >= 255 ? 255 : v > 0 ? v : 0)/(v >= 255 ? 255 : v > 0 ? v + 0.5 : 0)/|test_image
text: letters that there are not|src/io/image_text.c|s/c >= . . \&\& c <= .~. ? c : .?./c/|test_image
text: over the edge|src/io/image_text.c|s/x1 = x1 < im->w ? x1 : im->w;//|test_image
compare: adapters are added up|src/cli/cmd_sample.c|s/memcpy(s->values, kept, s->n_values \* sizeof .kept);/(void)kept;/|cli_compare
compare: every adapter at full strength|src/cli/cmd_sample.c|s/.scale = {loras->scale\[i\]}/.scale = {1}/|cli_compare
compare: the first adapter in all blocks|src/cli/cmd_sample.c|s/.item = {loras->item\[i\]}/.item = {loras->item[0]}/|cli_compare
compare: blocks that are not counted|src/cli/sample_picture.c|s/image_bytes(&l.all) \* 4/image_bytes(\&l.one) * 4/|cli_compare
captions: the scale is left out|src/cli/sample_picture.c|s/if (loras->scale\[block - 1\] != 1)/if (0)/|cli_compare
captions: a path that says nothing|src/cli/sample_picture.c|s/"", "lora", "runs"/"", "runs"/|cli_compare
captions: not in the recipe|src/cli/options/sample_args.c|s/.name = "no-captions", .flags = OPT_DRAWN/.name = "no-captions"/|cli_compare
stretch: not in the recipe|src/cli/options/sample_args.c|s/.name = "stretch", .flags = OPT_DRAWN/.name = "stretch"/|cli_compare
colour: values of the model taken as planes|src/io/image.c|s/image_from_real((double)x\[i \* (size_t)channels + (size_t)c\])/image_from_real((double)x[(size_t)c * hw + i])/|test_image_colour
colour: one plane for all in a grid|src/io/image.c|s/c++, px += (size_t)h \* (size_t)w)/c++)/|test_image_colour
colour: a line that is a third too short|src/io/image_text.c|s/(size_t)(x1 - x0) \* (size_t)im->channels/(size_t)(x1 - x0)/|test_image_colour
colour: pictures three times too large|src/io/image.c|s/mem_mul(&row, (size_t)w, (size_t)channels)/mem_mul(\&row, (size_t)w, 1)/|test_image_colour
colour: red for green in the palette|src/io/image.c|s/steps\[(i - 16) \/ 36\]/steps[(i - 16) \/ 6 % 6]/|test_image_colour
colour: every terminal has all colours|src/cli/term/term.c|s/!strcmp(colours, "truecolor")/1/|cli_image
colour: blocks of one channel|src/cli/sample_picture.c|s/(size_t)from->w \* pixel/(size_t)from->w/|cli_image cli_compare
colour: noise of one channel|src/cli/cmd_noise.c|s/a->model.in_channels = d.channels/(void)d.channels/|cli_image
colour: IDX of three channels|src/cli/options/sample_args.c|s/m->in_channels != 1 \&\& a->format == FORMAT_IDX/0/|cli_image
npy: planes written as they are|src/data/npy_write.c|s/image\[p % c \* hw + p \/ c\]/image[p]/|test_npy
picture: strength turned round|src/model/sampler_plan.c|s/lround(c->strength \* c->steps)/lround((1 - c->strength) * c->steps)/|test_sampler_picture
picture: a noise of its own|src/model/sampler_noise.c|s/sampler_noise(k, i, 0)/sampler_noise(k, i, 99)/|test_sampler_picture
picture: kept pixels in the end|src/model/sampler_noise.c|s/t >= 0 ? (float)noised\[v\] : k->c->init\[v\]/(float)noised[v]/|test_sampler_picture
picture: a mask of values|src/model/sampler_noise.c|s/paint\[v \/ channels\]/paint[v % (k->values \/ channels)]/|test_sampler_picture
picture: kept only after the first step|src/model/sampler_noise.c|s/else if (k->c->paint)/else if (0)/|test_sampler_picture
picture: steps that were not taken, looked back at|src/model/sampler.c|s/back <= answer - k->begin \* stages/back <= answer/|test_sampler_picture
picture: any strength|src/model/sampler_plan.c|s/if (c->init \&\& !(c->strength >= 0 \&\& c->strength <= 1))/if (0)/|test_sampler_picture
picture: a mask of nothing|src/model/sampler_plan.c|s/if (c->paint \&\& !c->init)/if (0)/|test_sampler_picture
picture: channels exchanged|src/cli/sample_init.c|s/planes\[i % channels \* hw + i \/ channels\]/planes[i]/|cli_image
picture: a mask of another size|src/cli/sample_init.c|s/im.w == picture->w \&\& im.h == picture->h/1/|cli_image
picture: a mask not fitted as its picture|src/cli/sample_init.c|s/\&im, a->fit, BLACK/\&im, FIT_CROP, BLACK/|cli_image
picture: written over|src/cli/sample_files.c|s/(a->init \&\& cli_check_apart(path, a->init, e))/0/|cli_image
mask: written over|src/cli/sample_files.c|s/(a->mask \&\& cli_check_apart(path, a->mask, e))/0/|cli_image
picture: its options stand alone|src/cli/options/sample_args.c|s/\*of \&\& !a->init/*of \&\& 0/|cli_image
recipe: strength of nothing|src/cli/recipe.c|s/\*of \&\& !a->init/*of \&\& 0/|cli_image
recipe: whole paths of pictures|src/cli/recipe.c|s/short_name(a->mask, e)/mem_strdup(a->mask, e)/|cli_image
shipped model: in place of a run's own|src/cli/cli.c|s/file_exists(DEFAULT_MODEL) .. //|cli_shipped
shipped model: in place of one that was named|src/cli/cli.c|s/options_given(g, "model") .. //|cli_shipped
shipped model: without a word|src/cli/cli.c|s/no run yet: using/using/|cli_shipped
shipped model: its adapter lies beside it|src/cli/cli.c|s/strcmp(path, SHIPPED_MODEL) ? path : DEFAULT_MODEL/path/|cli_shipped
shipped model: its name in a picture|src/cli/recipe.c|s/!(from = from_shipped(whole)) \&\& //|cli_shipped
cross entropy: the label is not taken off|src/backend/cpu/loss.c|s/ - (k == label\[i\])//|test_kernels_optim grad_ops
cross entropy: any label goes|src/backend/cpu/loss.c|s/label\[i\] >= 0 \&\& label\[i\] < classes/1/|test_kernels_optim
cross entropy: numbers overflow|src/backend/cpu/loss.c|s/            most = (double)x\[k\] > most ? (double)x\[k\] : most;/            most = 0;/|test_kernels_optim
judge: labels are not looked at|src/judge/judge.c|s/if (check_labels(s, classes, e) ../if (0 \x7c\x7c/|test_judge
judge: training cannot be stopped|src/judge/judge.c|s/rc = err_set(e, ERR_NONE, "stopped")/rc = 0/|test_judge
judge: rows of a set are not heeded|src/judge/judge.c|s/image_set_row(s, i) \* dataset_image_bytes/(size_t)i * dataset_image_bytes/|test_judge
judge: another's file is taken|src/judge/judge_file.c|s/if (!is .. strcmp(is, want\[i\]))/if (!is)/|test_judge
judge: any accuracy is believed|src/judge/judge_file.c|s/ \&\& \*out >= 0 \&\& \*out <= 1//|test_judge
judge: bits may be others|src/judge/judge_file.c|s/return want \&\& !strcmp(want, is)/return true/|test_judge
frechet: covariances over n|src/judge/frechet.c|s/d\[k\] \* d\[l\] . (r->n - 1)/d[k] * d[l] \/ r->n/|test_measures
frechet: the means do not count|src/judge/frechet.c|s/sum += (mean\[k\] - mean_b\[k\]) \* (mean\[k\] - mean_b\[k\]) + /sum += /|test_measures
frechet: the root of the product of the roots|src/judge/frechet.c|s/        product(a, tmp, root, n);/        memcpy(a, tmp, n * n * sizeof *a);/|test_measures
frechet: what is not finite goes through|src/judge/frechet.c|s/if (!isfinite(mean\[k\]) .. !isfinite(cov\[k \* dim + k\]))/if (0)/|test_measures
precision: who is near itself|src/judge/neighbours.c|s/first + j == i .. //|test_measures
precision: within, not at the edge|src/judge/neighbours.c|s/d\[j\] <= c->reach\[first + j\]/d[j] < c->reach[first + j]/|test_measures
precision: of too few|src/judge/neighbours.c|s/if (drawn->n <= k .. real_ones->n <= k)/if (0)/|test_measures
nearest: itself is a neighbour|src/judge/neighbours.c|s/ .. (n->except \&\& n->except\[i\] == first + j)//|test_measures
nearest: the second forgets the first|src/judge/neighbours.c|s/            p->d\[1\] = was.d\[0\];/            p->d[1] = was.d[1];/|test_measures
nearest: a third of what|include/sdlora/measures.h|s/n->distance < n->second . 3/n->distance < n->second \/ 2/|test_measures
scores: a training image is its own copy|src/judge/scores.c|s/training ? in_set : NULL/NULL/|test_judge
scores: the matrix turned round|src/judge/scores.c|s/out->confusion\[s->d->labels\[image_set_row(s, i)\] \* k + (size_t)seen_class(seen, i)\]++/out->confusion[(size_t)seen_class(seen, i) * k + s->d->labels[image_set_row(s, i)]]++/|test_judge
scores: every sixth, whatever its class|src/judge/scores.c|s/if (++seen\[train->labels\[i\]\] % KEPT_EACH == 0)/if (++seen[0] % KEPT_EACH == 0)/|test_judge
eval: settings of drawing for images|src/cli/eval_images.c|s/if (g->items\[i\].option->flags \& OPT_DRAWN)/if (0)/|cli_eval
eval: classes need not agree|src/cli/eval_images.c|s/if (m->classes != j->train.classes)/if (0)/|cli_eval
eval: labels need not be known|src/cli/eval_images.c|s/if (j->labelled \&\& dataset_check_labels(d, j->classes, e))/if (0)/|cli_eval
eval: somebody's picture is written over|src/cli/eval_pictures.c|s/cli_check_default(path, true, e) ..//|cli_eval
eval: a cache that nobody wanted|src/cli/eval_judge.c|s/char \*dir = j->args->pictures.cache ? cli_cache_directory() : NULL/char *dir = cli_cache_directory()/|cli_eval
eval: CAS without labels|src/cli/cmd_eval.c|s/if (a->cas \&\& !j->labelled \&\& j->kind == EVAL_IMAGES)/if (0)/|cli_eval
names: one twice|src/base/names.c|s/if (names_find(c, name) >= 0)/if (0)/|test_names
names: of any characters|src/base/names.c|s/        if (!u.plain)/        if (0)/|test_names
names: none is none|src/base/names.c|s/return len > 0 \&\& len/return len/|test_names
names: a carriage return stays|src/base/names.c|s/if (stop > text \&\& stop\[-1\] == '.r')/if (0)/|test_names
names: what follows a zero byte is lost|src/base/names.c|s/if (memchr(text, 0, size))/if (0)/|test_names
names: those before a wrong one stay|src/store/facts.c|s/            names_free(names);/            (void)0;/|test_names
names: of a model of other classes|src/store/model_file.c|s/if (m->names.n != m->config.classes)/if (0)/|test_names
names: of an adapter of other classes|src/store/adapter_read.c|s/if (to->names.n != to->facts.classes)/if (0)/|test_names
names: lost in a copy of the model|src/model/model.c|s/(model_seal_blank(copy, e) .. names_copy(&copy->names, &m->names, e))/(model_seal_blank(copy, e))/|test_names
names: lost with a lower rank|src/adapter/reduce.c|s/names_copy(&to->names, &a->names, e) ../0 \x7c\x7c/|cli_names
names: fewer than labels|src/data/class_names.c|s/if (d->labels\[i\] >= names->n)/if (0)/|test_names
names: lost in a copy of the data|src/data/dataset_write.c|s/return d->class_name ? source_write_names(dir, d, e) : 0/return 0/|test_names
classes: labels stay as they were|src/cli/classes.c|s/d->labels\[i\] = (uint8_t)row\[d->labels\[i\]\]/(void)row/|cli_names
classes: validation's labels stay as they were|src/cli/train_command.c|s/return run->val.n ? classes_match/return 0 ? classes_match/|cli_names
classes: a number comes before a name|src/cli/classes.c|s/    if (named >= 0)$/    if (named >= 0 \&\& number < 0)/|cli_names
classes: a backslash changes nothing|src/cli/classes.c|s/number = w->literal ? -1 : number_of/number = number_of/|cli_names
classes: a comma always ends a name|src/cli/classes.c|s/if (\*p == '..' \&\& p\[1\])/if (0)/|cli_names
classes: the first of two that are called the same|src/cli/classes.c|s/for (int i = named + 1; named >= 0/for (int i = named + 1; 0/|cli_names
classes: a recipe cannot be read again|src/cli/classes.c|s/fprintf(f, \*name == ',' .*$/fputc(*name, f);/|cli_names
classes: an adapter's names are not taken|src/cli/classes.c|s/memcpy(now, brought->name\[i\], CLASS_NAME_MAX)/(void)now/|cli_names
classes: a flat folder is a class of its own|src/cli/classes.c|s/return known->n == 1 \&\& d->report/return 0 \&\& d->report/|cli_names
classes: a file called after anything|src/cli/sample_files.c|s/u.bytes > 1 .. strchr(plain, \*name)/1/|cli_names
rows: one of two classes is named after the first|src/cli/row_labels.c|s/return \*class_id == class_of\[(end - 1) . each\] \&\&/return/|cli_names
rows: without captions|src/cli/row_labels.c|s/ .. j->args->no_captions//|cli_names
resume: classes of other names|src/train/checkpoint.c|s/compare_value(&d, "class_names", saved, now)/(void)0/|cli_names
events: another polynomial|src/io/events.c|s/0x82f63b78u/0xedb88320u/|test_events
events: sums are not masked|src/io/events.c|s/ + 0xa282ead8u//|test_events
events: numbers of one byte|src/io/events.c|s/for (; v >= 0x80; v >>= 7)/for (; 0;)/|test_events
events: what is not measured is told|src/io/events.c|s/if (isnan(scalar\[i\].value))/if (0)/|test_events
events: from nowhere|src/io/events.c|s/event = event_begin(next_step)/event = event_begin(0)/|test_events
events: two in one file|src/io/events.c|s/O_EXCL/0/|test_events
events: any picture|src/io/events.c|s/return err_set(e, ERR_INPUT, "the picture/if (0) &/|test_events
metrics: the table stays as it was|src/run/rundir_metrics.c|s/const bool same = file_exists(path)/const bool same = file_exists(path) \&\& size/;s/return same ? 0 :/return file_exists(path) ? 0 :/|test_metrics
metrics: nothing becomes zero|src/run/rundir_metrics.c|s/        if (isfinite(value\[i\]))/        if (1)/|test_metrics
metrics: a fraction of a step|src/run/rundir_metrics.c|s/json_is_integer(value) ? json_integer_value(value)/json_is_number(value) ? (int64_t)json_number_value(value)/|test_metrics
metrics: room for the first rows only|src/run/rundir_metrics.c|s/                if (more \&\& n)/                if (0)/|test_metrics
loop: nobody hears that all is kept|src/run/loop.c|s/if ((milestone .. last) \&\& l->observer.kept)/if (0)/|test_loop
loop: nothing is drawn before an adapter|src/run/loop.c|s/writes() ? sample_before(l, e) : 0/writes() ? 0 : 0/|cli_report
set aside: a table without rows is work|src/run/rundir_previous.c|s/i < rundir_works(r) \&\& !found/parts[i] \&\& !found/|cli_directory
html: markup goes through|src/cli/page/html.c|s/bytes == 1 ? strchr(special, \*c) : NULL/NULL/|cli_report
html: text may lie about itself|src/cli/page/html.c|s/if (u.plain)/if (1)/|cli_report
html: a picture through a link|src/cli/page/html.c|s/!lstat(path, &st)/!stat(path, \&st)/|cli_report
html: three bytes and no other number|src/cli/page/html.c|s/k <= have ? digit/k < 4 ? digit/|cli_report
chart: upside down|src/cli/page/chart.c|s/return p->bottom - (scaled/return TOP + (scaled/|cli_report
chart: zero on a logarithmic axis|src/cli/page/chart.c|s/(!c->log .. y > 0)/1/|cli_report
chart: epochs are steps|src/cli/page/chart.c|s/ticks_x(p, "epoch", p->c->per_epoch, 1, 0)/ticks_x(p, "epoch", 1, 1, 0)/|cli_report
curves: a spike is lost|src/cli/page/curves.c|s/most = c->y\[k\] > c->y\[most\] ? k : most;/most = least;/|cli_report
curves: all points|src/cli/page/curves.c|s/if (n <= CURVE_POINTS)/if (n)/|cli_report
curves: an average begins at zero|src/cli/page/curves.c|s/out->y\[i\] = mean . weight/out->y[i] = mean/|cli_report
page: somebody's file is written over|src/cli/cmd_report.c|s/(!a->output \&\& page_check_default(path, e)) ..//|cli_report
page: by a run, too|src/cli/train_page.c|s/page_check_default(path, &e) ..//|cli_report
page: of what is read|src/cli/cmd_report.c|s/check_apart(path, dir, e) ..//|cli_report
page: unasked|src/cli/train_page.c|s/wanted ? dir : NULL/dir/|cli_report
page: figures of long ago|src/cli/page/page_eval.c|s/trained != (double)p->run->step/0/|cli_report
runs: nobody noted how many images|src/cli/runinfo.c|s/if (noted > 0 \&\& batch > 0)/if (0)/|cli_report
runs: a diverged one was stopped|src/cli/runinfo.c|s/if (r->state >= STATE_STOPPED \&\& json_object_get(r->root, RUN_ENDED))/if (0)/|cli_report
eval: somebody's figures are written over|src/cli/eval_pictures.c|s/(!ours \&\& cli_check_default(path, false, e)) ..//|cli_report
eval: whose figures does not matter|src/cli/eval_pictures.c|s/ours = json_object_get(was, "scored") .. json_object_get(was, "judge")/ours = was != NULL/|cli_report
processes: their sums in another order|src/model/tree_sum.c|s/next_width(s, i, width)}/next_width(s, i, 1)}/|cli_mpi
processes: of the gradient only what was one's own|src/model/tree_sum.c|s/    if (s->theirs\[0\].slab != sum)/    if (0)/|cli_mpi
processes: another's place for one's own sum|src/model/tree_sum.c|s/s->theirs\[i\].slab = slab + own.from/s->theirs[i].slab = slab/|cli_mpi
processes: subtrees that end with the chunks are not whole|src/model/tree_sum.c|s/ .. p.end == p.chunks))/))/|cli_mpi
processes: a sum of squares over a border|src/train/optimise.c|s/{t->tiles\[r\].from \* BACKEND_SUM, t/{t->shares[r].from, t/|cli_mpi
processes: gradients stay where they were added up|src/train/optimise.c|s/    ranks_move(t->trained->grads/    if (0) ranks_move(t->trained->grads/|cli_mpi
processes: the norm of one's own part|src/train/optimise.c|s/    ranks_move(t->sums/    if (0) ranks_move(t->sums/|cli_mpi
processes: new weights stay where they were made|src/train/optimise.c|s/    give_all(t, t->trained->values/    if (0) give_all(t, t->trained->values/|cli_mpi
processes: new weights are sent out before they are there|src/train/optimise.c|s/    ranks_move(slab, sizeof(real), t->shares, t->even);//|cli_mpi
processes: moments stay where they are|src/train/optimise.c|s/    give_all(t, t->m/    if (0) give_all(t, t->m/|cli_mpi
processes: second moments stay where they are|src/train/optimise.c|s/    give_all(t, t->v);/    if (0) give_all(t, t->v);/|cli_mpi
processes: averages stay where they are|src/train/optimise.c|s/        give_all(t, t->ema/        if (0) give_all(t, t->ema/|cli_mpi
processes: a checkpoint of one's own moments|src/run/loop.c|s/ .. due(l->config->save_every, .r, milestone, epochs_together(l))/ /|cli_mpi
adapter: one room for all|src/adapter/attach.c|s/(all->room + thread)/thread/|test_adapter
processes: each goes on from where it began|src/train/trainer.c|s/    ranks_broadcast(t->trained->values/    if (0) ranks_broadcast(t->trained->values/|cli_mpi
processes: other data|src/cli/train_ranks.c|s/run->train.sha256, true/"", true/|cli_mpi
processes: other instructions|src/cli/train_ranks.c|s/!a->train.mixed_machines/false/|cli_mpi
processes: a batch that is one|src/train/trainer.c|s/ranks_count() > 1 \&\& trainer_whole_batches(t)/0/|cli_mpi
processes: all draw the first's images|src/cli/drawn_ranks.c|s/c->first + s->first/c->first/|cli_mpi
processes: all go the first's way|src/cli/drawn_ranks.c|s/s->mix.part += s->first/(void)0/|cli_mpi
processes: images that depend on each other|src/cli/drawn_ranks.c|s/if (c->batch_stats)/if (0)/|cli_mpi
processes: whose error it is|src/base/ranks_agree.c|s/tell(first, true, e)/tell(first, false, e)/|cli_mpi
END
)

# The tree as it is, committed or not, without the data.
git ls-files -co --exclude-standard | grep -v -e '^data/' -e '^figure/' | while read -r f; do [ -e "$f" ] && echo "$f"; done |
    tar cf - -T - | tar xf - -C "$root" || exit 1
cd "$root" || exit 1
obj=build/release

program_of() { # TEST; gradients are checked in double
    case $1 in
    cli_*) echo "tests/$1.sh" ;;
    grad_*) echo "$obj-double/tests/$1" ;;
    *) echo "$obj/tests/$1" ;;
    esac
}

build() { # TEST...
    local t goals=()
    for t; do
        case $t in
        cli_mpi) goals+=(MPI=1 "$obj/sdlora" "$obj/sdlora-mpi") ;;
        cli_*) goals+=("$obj/sdlora" "$obj/tests/fault_shim.so") ;;
        *) goals+=("$(program_of "$t")") ;;
        esac
    done
    make -s BUILD=build ISAS="$isas" BF16_ISAS= KERNEL_OPT=-O1 CFLAGS=-O1 "${goals[@]}" >log 2>&1
}

fails() { # TEST: does it fail, crash or hang?
    local program=$root/$obj/sdlora
    [ "$1" != cli_mpi ] || program+=-mpi
    ! SDLORA=$program FAULT_SHIM=$root/$obj/tests/fault_shim.so timeout 300 "$(program_of "$1")" >log 2>&1 </dev/null
}

names=() files=() seds=() tests=()
while IFS='|' read -r name file sed test; do
    # shellcheck disable=SC2254
    case $name in $pattern) ;; *) continue ;; esac
    case $name in "bf16 rows"*) grep -qw avx512dq /proc/cpuinfo || continue ;; esac
    names+=("$name") files+=("$file") seds+=("$sed") tests+=("$test")
done <<<"$table"

isas=baseline
read -ra all <<<"$(printf '%s ' "${tests[@]}" | tr ' ' '\n' | sort -u | tr '\n' ' ')"
build "${all[@]}" || { cat log; echo "the tree does not build"; exit 1; }
for t in "${all[@]}"; do
    if fails "$t"; then cat log; echo "$t fails without any sabotage"; exit 1; fi
done

bad=0
for i in "${!names[@]}"; do
    file=${files[i]} verdict=SURVIVED isas=baseline
    case ${names[i]} in "bf16 rows"*) isas="avx512 baseline" ;; esac
    cp "$file" kept
    sed -i "${seds[i]}" "$file"
    read -ra wanted <<<"${tests[i]}"
    if cmp -s "$file" kept; then
        verdict="the sed expression changes nothing"
    elif ! build "${wanted[@]}"; then
        verdict="does not compile: $(grep -m 1 -e error -e Error log)"
    else
        for t in "${wanted[@]}"; do
            if fails "$t"; then verdict="caught by $t"; break; fi
        done
    fi
    echo "${names[i]}: $verdict"
    case $verdict in caught*) ;; *) bad=$((bad + 1)) ;; esac
    cp kept "$file" # newer than what was built from it, so that make builds it again
done
echo "$((${#names[@]} - bad)) of ${#names[@]} sabotages caught"
[ "$bad" -eq 0 ] && [ "${#names[@]}" -gt 0 ]
