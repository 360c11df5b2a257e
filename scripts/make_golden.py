#!/usr/bin/env python3
"""Write tests/golden: what PyTorch computes, for the tests to compare with (they need no Python).

    scripts/make_golden.py [DIR]        (Debian: apt install python3-torch)

Inputs and weights are exact float32 numbers; expected values are computed in float64 and stored as F32, or as F64 where a
test may want more (losses, norms, schedules). Tensors are in PyTorch's layouts (NCHW, OIHW, linear (out,in)). The metadata
of every file says what it holds; `f32_error` there is how far PyTorch's own float32 run is from the float64 one.
The same PyTorch writes the same bytes.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import st_io
import torch_ref as ref

F64 = torch.float64


class Golden(dict):
    """Tensors by name, rounded to F32 unless they are integers or put in with exact()."""

    def __setitem__(self, name, value):
        a = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        super().__setitem__(name, a if a.dtype.kind == "i" else a.astype(np.float32))

    def exact(self, name, value):
        super().__setitem__(name, np.asarray(value, dtype=np.float64))


def round32(x):
    """The nearest float32 numbers, as float64."""
    return x.float().to(F64)


def normal(gen, *shape, scale=1.0, shift=0.0):
    return round32(torch.randn(*shape, generator=gen) * scale + shift)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# ---- single operations ----

def record(out, name, function, inputs, gen, **attributes):
    """y = function(**inputs), with the gradients of <y, dy> for a random dy."""
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    y = function(**leaves)
    dy = normal(gen, *y.shape)
    y.backward(dy)
    for k, v in leaves.items():
        out[f"{name}.{k}"] = v
        out[f"{name}.d{k}"] = v.grad
    out[f"{name}.y"] = y
    out[f"{name}.dy"] = dy
    for k, v in attributes.items():
        out[f"{name}.{k}"] = np.int64(v)


def conv_ops(out, gen):
    shapes = {"conv3x3": (2, 5, 6, 7, 9), "conv3x3_c1": (2, 1, 8, 9, 7), "conv3x3_12": (2, 8, 8, 12, 12),
              "conv3x3_6": (3, 4, 8, 6, 6), "conv3x3_3": (3, 8, 4, 3, 3)}
    for name, (n, ci, co, h, w) in shapes.items():
        record(out, name, lambda x, w, b: F.conv2d(x, w, b, padding=1),
               dict(x=normal(gen, n, ci, h, w), w=normal(gen, co, ci, 3, 3, scale=0.3), b=normal(gen, co)), gen)
    record(out, "conv1x1", lambda x, w, b: F.conv2d(x, w, b),
           dict(x=normal(gen, 2, 5, 4, 3), w=normal(gen, 3, 5, 1, 1), b=normal(gen, 3)), gen)
    record(out, "convt2x2", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
           dict(x=normal(gen, 2, 6, 4, 5), w=normal(gen, 6, 3, 2, 2), b=normal(gen, 3)), gen)
    record(out, "linear", lambda x, w, b: F.linear(x, w, b),
           dict(x=normal(gen, 7, 5), w=normal(gen, 4, 5), b=normal(gen, 4)), gen)


def norm_ops(out, gen):
    def affine(c):
        return dict(gamma=normal(gen, c, scale=0.5, shift=1), beta=normal(gen, c))

    def group(x, gamma, beta):
        return F.group_norm(x, 4, gamma, beta)

    def fused(x, gamma, beta, temb, res):
        return F.silu(group(x, gamma, beta)) + temb[:, :, None, None] + res

    def image(c):
        return normal(gen, 2, c, 5, 3, scale=2, shift=0.7)

    record(out, "group_norm", group, dict(x=image(8), **affine(8)), gen, groups=4)
    record(out, "group_norm_silu", lambda **k: F.silu(group(**k)), dict(x=image(8), **affine(8)), gen, groups=4)
    record(out, "group_norm_fused", fused,
           dict(x=image(12), **affine(12), temb=normal(gen, 2, 12), res=normal(gen, 2, 12, 5, 3)), gen, groups=4)

    # BatchNorm: y and gradients in training, the running statistics after that step, and the same in evaluation
    mean, var = normal(gen, 4), round32(normal(gen, 4).abs() + 0.5)
    for name, act in (("batch_norm", lambda v: v), ("batch_norm_relu", F.relu)):
        inputs = dict(x=normal(gen, 3, 4, 5, 3, scale=2, shift=0.7), **affine(4))
        new_mean, new_var = mean.clone(), var.clone()
        record(out, f"{name}.train",
               lambda x, gamma, beta: act(F.batch_norm(x, new_mean, new_var, gamma, beta, training=True)), inputs, gen)
        record(out, f"{name}.eval",
               lambda x, gamma, beta: act(F.batch_norm(x, mean, var, gamma, beta, training=False)), inputs, gen)
        out[f"{name}.running_mean"], out[f"{name}.running_var"] = mean, var
        out[f"{name}.new_running_mean"], out[f"{name}.new_running_var"] = new_mean, new_var


def sublayer_ops(out, gen):
    """y = x + f(LN x) or LN(x + f(x)); f is attention over tokens between two linear layers, or an activation is."""
    def run(x, gamma, beta, w1, b1, w2, b2, middle, pre_norm):
        n, c, h, w = x.shape
        rows = x.flatten(2).transpose(1, 2)

        def norm(u):
            return F.layer_norm(u, (c,), gamma, beta)

        def branch(u):
            return F.linear(middle(F.linear(u, w1, b1)), w2, b2)

        y = rows + branch(norm(rows)) if pre_norm else norm(rows + branch(rows))
        return y.transpose(1, 2).reshape(n, c, h, w)

    def inputs(c, f1, f2):
        return dict(x=normal(gen, 2, c, 5, 4, scale=2, shift=0.3), gamma=normal(gen, c, scale=0.5, shift=1),
                    beta=normal(gen, c), w1=normal(gen, f1, c, scale=0.4), b1=normal(gen, f1),
                    w2=normal(gen, c, f2, scale=0.4), b2=normal(gen, c))

    for name, pre_norm in (("pre", True), ("post", False)):
        record(out, f"attention_{name}",
               lambda k, v, **a: run(**a, middle=lambda q: ref.attention(q, k, v), pre_norm=pre_norm),
               dict(**inputs(6, 5, 3), k=normal(gen, 2, 4, 5), v=normal(gen, 2, 4, 3)), gen)
        for act in (F.silu, F.relu):
            record(out, f"feed_forward_{act.__name__}_{name}", lambda **a: run(**a, middle=act, pre_norm=pre_norm),
                   inputs(17, 7, 7), gen)


def other_ops(out, gen):
    record(out, "maxpool", lambda x: F.max_pool2d(x, 2), dict(x=normal(gen, 2, 3, 6, 4)), gen)
    record(out, "silu", lambda x: F.silu(x), dict(x=normal(gen, 5, 7, scale=3)), gen)
    record(out, "relu", lambda x: F.relu(x), dict(x=normal(gen, 5, 7, scale=3)), gen)
    for name, function in (("l1", F.l1_loss), ("l2", F.mse_loss)):
        x, target = normal(gen, 3, 7).requires_grad_(), normal(gen, 3, 7)
        loss = function(x, target)
        loss.backward()
        out[f"{name}.x"], out[f"{name}.target"], out[f"{name}.dx"] = x, target, x.grad
        out.exact(f"{name}.loss", loss.item())
    image = torch.randint(0, 256, (1, 1, 28, 28), generator=gen).to(F64)
    out["bilinear.x"] = image
    out["bilinear.y"] = F.interpolate(image, size=(48, 48), mode="bilinear", align_corners=False)
    t = torch.tensor([0, 1, 2, 17, 500, 999, 1499])
    for dim in (256, 10):
        time = ref.SinusoidalTime(dim).double()
        out[f"time_{dim}.t"] = t
        out[f"time_{dim}.freq"], out[f"time_{dim}.y"] = time.half_embedding, time(t)


def make_ops(write):
    out, gen = Golden(), seeded(1)
    conv_ops(out, gen)
    norm_ops(out, gen)
    other_ops(out, gen)
    sublayer_ops(out, gen)
    write("ops", out, "operations: OP.x .w .b .gamma .beta .w1 .b1 .w2 .b2 .k .v inputs; OP.y; OP.dy upstream gradient; OP.dNAME gradient "
          "of <y,dy>. Norms: eps 1e-5, momentum 0.1. group_norm_fused: silu(gn(x)) + temb + res. Losses are means. "
          "bilinear: 28 to 48 pixels, half-pixel centres. time_D: sin, cos of float32(t*freq)")


# ---- whole networks ----

def random_model(c, seed):
    """Weights with nothing left at 0 or 1: norms, biases and running statistics too."""
    torch.manual_seed(seed)
    model = ref.UNet(c)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.BatchNorm2d)):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.3, 2.0)
                module.num_batches_tracked.fill_(17)
    return model


def arrays(state):
    return {k: v.detach().numpy() for k, v in state.items()}


def clone(model, dtype):
    copy = ref.UNet(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.to(dtype)


def batch_for(c, n, seed, scale):
    gen = seeded(seed)
    shape = (n, c.in_channels, c.image_size, c.image_size)
    classes = c.classes + int(c.null_class)
    return dict(x=normal(gen, *shape), t=torch.randint(0, c.timesteps, (n,), generator=gen),
                y=torch.arange(n) * 3 % classes, target=normal(gen, *shape, scale=scale))


def forward_loss(model, data):
    dtype = next(model.parameters()).dtype
    output = model(data["x"].to(dtype), data["t"], data["y"])
    return output, ref.loss_function(model.config)(output, data["target"].to(dtype))


def gradients(model, data):
    model.zero_grad(set_to_none=True)
    output, loss = forward_loss(model, data)
    loss.backward()
    return output, loss, {k: p.grad for k, p in model.named_parameters() if p.requires_grad}


def max_difference(a, b):
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)


def vanishing(grads):
    """Names of parameters whose gradient is zero by mathematics, so that float32 leaves only rounding noise in it."""
    return [k for k, g in grads.items() if g.abs().max().item() < 1e-12]


def make_unet(write, write_state, name, model, data):
    c, out = model.config, Golden()
    for k, v in data.items():
        out[k] = v
    double, single = clone(model, F64), clone(model, torch.float32)
    with torch.no_grad():
        expected = double.eval()(data["x"], data["t"], data["y"])
        error = (single.eval()(data["x"].float(), data["t"], data["y"]) - expected).abs().max().item()
        out["eps"] = expected
        if c.null_class:
            null = double(data["x"], data["t"], torch.full_like(data["y"], c.classes))
            out["eps_null"], out["eps_cfg"] = null, null + 2.5 * (expected - null)
    output, loss, grads = gradients(double.train(), data)
    _, _, single_grads = gradients(single.train(), data)
    out["eps_train"] = output
    out.exact("loss", loss.item())
    for k, g in grads.items():
        out[f"grad.{k}"] = g
    for k, b in double.named_buffers():
        if "running" in k or "tracked" in k:
            out[f"after.{k}"] = b
    write_state(f"unet_{name}", arrays(model.state_dict()), None if name == "seed" else c)
    write(f"unet_{name}_io", out, f"unet_{name} once: x, t, y; eps in evaluation; eps_train in training; loss "
          f"({c.loss}, mean) against target and grad.* in training; after.* the running statistics then; eps_null: all of "
          "the null class; eps_cfg: null + 2.5 (eps - null)",
          zero_grad=json.dumps(vanishing(grads)),
          f32_error=json.dumps({"eps": error, "grad": max_difference(grads, single_grads)}))


# ---- optimiser steps ----

def run_steps(model, data, steps, make_optimiser, clip=0.0, ema=0.0):
    """Losses before each step and after the last; gradient norms; final state; final EMA of the parameters."""
    optimiser = make_optimiser(model.parameters())
    losses, norms = [], []
    average = {k: p.detach().clone() for k, p in model.named_parameters()}
    for k in range(1, steps + 1):
        _, loss, grads = gradients(model, data)
        losses.append(loss.item())
        norms.append(torch.sqrt(sum((g.double() ** 2).sum() for g in grads.values())).item())
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        decay = min(ema, (1 + k) / (10 + k))
        for name, p in model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * p.detach()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    losses.append(forward_loss(model, data)[1].item())
    return losses, norms, state, average


def make_steps(write, name, model, data):
    def adam(params):
        return torch.optim.Adam(params, lr=1e-3)

    def adamw(params):
        return torch.optim.AdamW(params, lr=1e-3, weight_decay=0.05)

    runs = {"adam": dict(make_optimiser=adam)}
    if name == "mnist":
        runs["adamw"] = dict(make_optimiser=adamw)
        runs["clip"] = dict(make_optimiser=adam, clip=1.0, ema=0.999)
    zero = vanishing(gradients(clone(model, F64).train(), data)[2])
    out, errors = Golden(), {}
    for run, options in runs.items():
        losses, norms, state, average = run_steps(clone(model, F64).train(), data, 5, **options)
        single_losses, _, single, _ = run_steps(clone(model, torch.float32).train(), data, 5, **options)
        out.exact(f"{run}.losses", losses)
        out.exact(f"{run}.grad_norms", norms)
        for k, v in state.items():
            out[f"{run}.{k}"] = v
        if options.get("ema"):
            for k, v in average.items():
                out[f"ema.{k}"] = v
        differences = torch.cat([(state[k] - single[k]).abs().flatten() for k in average if k not in zero])
        errors[run] = {"losses": float(np.abs(np.subtract(losses, single_losses)).max()),
                       "weights_max": differences.max().item(), "weights_mean": differences.mean().item()}
    write(f"unet_{name}_steps", out, f"5 steps from unet_{name} on the batch of unet_{name}_io, training mode: RUN.losses "
          "before each step and after the last, RUN.grad_norms before clipping, RUN.NAME final weights. adam: lr 1e-3, betas "
          "0.9 0.999, eps 1e-8. adamw: the same with weight decay 0.05 on every parameter. clip: adam with the gradient norm "
          "clipped at 1.0. ema.NAME: of run clip, starts at the initial weights, after step k = 1.. decay "
          "min(0.999,(1+k)/(10+k)). Adam turns the noise in zero_grad parameters into steps, and through a convolution bias "
          "into its running_mean: compare those loosely (f32_error leaves the zero_grad parameters out)",
          zero_grad=json.dumps(zero), f32_error=json.dumps(errors))


# ---- reverse steps ----

def make_diffusion(write):
    out, gen = Golden(), seeded(5)
    for schedule, timesteps in (("linear", 1500), ("cosine", 1000)):
        out.exact(f"{schedule}.alphas_cumprod", ref.Diffusion(schedule, timesteps, "eps").alphas_cumprod.numpy())
    subset = ref.timestep_subset(1000, 7)
    out["timesteps_7_of_1000"] = np.array(subset, dtype=np.int64)
    t = torch.tensor([999, 713, 284, 1, 0])
    t_prev = torch.tensor([856, 570, 141, 0, -1])
    x, output, noise = (normal(gen, len(t), 1, 3, 4) for _ in range(3))
    x0 = normal(gen, len(t), 1, 3, 4).clamp(-1, 1)
    out["t"], out["t_prev"] = t, t_prev
    out["x"], out["output"], out["noise"], out["x0"] = x, output, noise, x0
    for predict in ("eps", "v", "x0"):
        d = ref.Diffusion("cosine", 1000, predict)
        out["xt"] = d.noise(x0, noise, t)
        out[f"target.{predict}"] = d.target(x0, noise, t)
        for clip in ("x0", "xt", "none"):
            key = f"{predict}.{clip}"
            out[f"ddpm.{key}"] = d.ddpm_step(x, output, noise, t, clip)
            out[f"ddim0.{key}"] = d.ddim_step(x, output, noise, t, t_prev, 0.0, clip)
            out[f"ddim07.{key}"] = d.ddim_step(x, output, noise, t, t_prev, 0.7, clip)
    check_textbook(x, output, noise, t)
    write("diffusion", out, "alphas_cumprod of linear (T 1500) and cosine (T 1000), F64. With the cosine one: xt = forward "
          "noising of x0 by noise at t; target.P; reverse steps from x at t with the network's output: ddpm.PREDICT.CLIP, "
          "ddim0 and ddim07 (eta 0, 0.7) to t_prev (-1: clean)")


def check_textbook(x, output, noise, t):
    """The posterior written over x0 equals the usual form over eps (Ho et al., eq. 11), which the reference uses."""
    d = ref.Diffusion("cosine", 1000, "eps")
    a, before, beta = d.at(d.alphas_cumprod, t, x), d.alpha_before(t - 1, x), d.at(d.betas, t, x)
    textbook = (x - beta / (1 - a).sqrt() * output) / (1 - beta).sqrt()
    textbook = textbook + (beta * (1 - before) / (1 - a)).sqrt() * noise
    assert torch.allclose(textbook, d.ddpm_step(x, output, noise, t, "none"), rtol=1e-9, atol=1e-9)


# ---- LoRA ----

def lora_run(model, data, rank, alpha, weights=None):
    """Outputs with the adapter beside and merged into the weights, loss and gradients; weights: {name: (A, B)}."""
    net = clone(model, F64)
    adapted = ref.inject_lora(net, rank, alpha)
    if weights is None:
        gen = seeded(11)
        weights = {k: (normal(gen, *v.lora_A.shape, scale=0.3), normal(gen, *v.lora_B.shape, scale=0.3))
                   for k, v in adapted.items()}
    for k, layer in adapted.items():
        layer.lora_A.data, layer.lora_B.data = (w.clone() for w in weights[k])
    out = Golden()
    with torch.no_grad():
        out["eps"] = net.eval()(data["x"], data["t"], data["y"])
    _, loss, grads = gradients(net, data)  # in evaluation mode: the base is frozen, its statistics too
    out.exact("loss", loss.item())
    for k, g in grads.items():
        out[f"grad.{k}.weight"] = g
    ref.merge_lora(net, adapted)
    with torch.no_grad():
        out["eps_merged"] = net(data["x"], data["t"], data["y"])
    return out, weights, vanishing(grads)


def peft_config(rank, alpha):
    return {"alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": None, "bias": "none",
            "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "lora_alpha": alpha,
            "lora_dropout": 0.0, "modules_to_save": None, "peft_type": "LORA", "r": rank, "rank_pattern": {},
            "revision": None, "target_modules": ["w_k", "w_q", "w_v"], "task_type": None, "use_dora": False,
            "use_rslora": False}


def make_lora(write, folder, mnist, mnist_data, seed, seed_data):
    def f32(t):
        return t.to(torch.float32).contiguous().numpy()

    about = ("output, with the base frozen and in evaluation mode, of {0} under the adapter: eps beside the weights, "
             "eps_merged merged; loss and grad.LAYER.lora_A.weight (r,in), lora_B.weight (out,r) for the batch of {0}_io")
    rank, alpha = 4, 6
    out, weights, zero = lora_run(mnist, mnist_data, rank, alpha)
    peft, kohya = {}, {}
    for layer, (a, b) in weights.items():
        peft[f"base_model.model.{layer}.lora_A.weight"] = f32(a)
        peft[f"base_model.model.{layer}.lora_B.weight"] = f32(b)
        flat = "lora_unet_" + layer.replace(".", "_")
        kohya[f"{flat}.lora_down.weight"] = f32(a)
        kohya[f"{flat}.lora_up.weight"] = f32(b)
        kohya[f"{flat}.alpha"] = np.float32(alpha)
    (folder / "lora_peft").mkdir(exist_ok=True)
    st_io.save(folder / "lora_peft" / "adapter_model.safetensors", peft, {"format": "pt"})
    config = json.dumps(peft_config(rank, alpha), indent=2, sort_keys=True)
    (folder / "lora_peft" / "adapter_config.json").write_text(config + "\n")
    st_io.save(folder / "lora_kohya.safetensors", kohya,
               {"ss_network_dim": rank, "ss_network_alpha": alpha, "ss_network_module": "networks.lora"})
    write("lora_mnist_io", out, about.format("unet_mnist") + f"; rank {rank}, alpha {alpha}; lora_peft/ and "
          "lora_kohya.safetensors hold the same adapter", zero_grad=json.dumps(zero))

    # the reference's spelling: A and B transposed, no alpha in the file (its configuration says 1)
    rank, alpha = 3, 1
    out, weights, zero = lora_run(seed, seed_data, rank, alpha)
    transposed = {}
    for layer, (a, b) in weights.items():
        transposed[f"{layer}.lora_a"] = f32(a.t())
        transposed[f"{layer}.lora_b"] = f32(b.t())
    st_io.save(folder / "lora_reference.safetensors", transposed)
    write("lora_seed_io", out, about.format("unet_seed") + f"; rank {rank}, alpha {alpha}; lora_reference.safetensors holds "
          "the adapter, lora_a (in,r), lora_b (r,out)", zero_grad=json.dumps(zero))


# ---- all ----

def config_json(c):
    """The configuration as sdlora writes it into the metadata of a model: one channel is not said."""
    fields = {k: v for k, v in vars(c).items() if k != "loss" and (k, v) != ("in_channels", 1)}
    return json.dumps(fields, separators=(",", ":"))


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests" / "golden")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums in one order

    def write(name, tensors, about, **metadata):
        metadata.update(about=about, torch=torch.__version__, format="pt")
        st_io.save(folder / f"{name}.safetensors", tensors, metadata)

    def write_state(name, state, c):
        metadata = None if c is None else {"format": "pt", "sdlora.config": config_json(c)}
        st_io.save(folder / f"{name}.safetensors", state, metadata)

    make_ops(write)
    make_diffusion(write)
    small = dict(time_dim=32, classes=5)
    mnist = random_model(ref.preset("mnist", channels=(8, 16, 24), image_size=12, context_dim=10, qsize=6, vsize=5,
                                    fsize=12, **small), seed=2)
    seed = random_model(ref.preset("seed", channels=(8, 16, 32), image_size=16, context_dim=12, qsize=5, vsize=7,
                                   fsize=9, **small), seed=3)
    mnist_data = batch_for(mnist.config, 6, seed=21, scale=3.0)  # a loss large enough for clipping to bite
    seed_data = batch_for(seed.config, 5, seed=22, scale=1.0)
    for name, model, data in (("mnist", mnist, mnist_data), ("seed", seed, seed_data)):
        make_unet(write, write_state, name, model, data)
        make_steps(write, name, model, data)
    make_lora(write, folder, mnist, mnist_data, seed, seed_data)
    colour = random_model(ref.preset("mnist", channels=(8, 16), image_size=8, in_channels=3, context_dim=10, qsize=6,
                                     vsize=5, fsize=12, **small), seed=4)
    make_unet(write, write_state, "colour", colour, batch_for(colour.config, 5, seed=23, scale=1.0))
    for path in sorted(folder.rglob("*.*")):
        print(f"{path.stat().st_size:9,} {path.relative_to(folder)}")


if __name__ == "__main__":
    main()
