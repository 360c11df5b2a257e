"""Adapters in the spellings of programs other than PEFT, for make_golden_adapters.py.

The source of each formula is named where it is used: file and function in kohya-ss/sd-scripts (networks/...),
KohakuBlueleaf/LyCORIS (lycoris/...), huggingface/diffusers (src/diffusers/...).
"""
import json
import math

import numpy as np
import torch

import make_golden as golden
import st_io

F64 = torch.float64
ATTENTION = ["w_q", "w_k", "w_v", "z_linear"]


class Factors:
    """One layer's random LoRA: B (out,r) and A (r,in...) of its weight, rank and alpha."""

    def __init__(self, gen, weight, rank, alpha):
        out_size, *rest = weight.shape
        self.shape, self.rank, self.alpha = tuple(weight.shape), rank, alpha
        self.a = golden.normal(gen, rank, *rest, scale=1 / math.sqrt(math.prod(rest)))
        self.b = golden.normal(gen, out_size, rank, scale=0.6)

    def delta(self, alpha=None, rounded=lambda v: v):
        """alpha/rank B A: networks/lora.py, merge_to."""
        scale = (self.alpha if alpha is None else alpha) / self.rank
        return (scale * rounded(self.b) @ rounded(self.a).flatten(1)).reshape(self.shape)

    def up(self):
        """B in the dimensions of a convolution where the layer is one."""
        return self.b.reshape(*self.b.shape, *(1 for _ in self.shape[2:]))


def draw_factors(net):
    gen = golden.seeded(61)
    layers = {"encoder_convs.0.cross_attention.w_q": (3, 4), "encoder_convs.1.cross_attention.w_v": (3, 4),
              "decoder_convs.0.cross_attention.z_linear": (3, 4), "encoder_convs.1.time_embedding_linear": (3, 4),
              "encoder_convs.1.seq1.0": (2, 1.5), "decoder_convs.0.seq2.0": (2, 1.5), "encoder_convs.1.skip": (2, 1.5),
              "output": (2, 1.5)}
    return {k: Factors(gen, net.state[f"{k}.weight"], *v) for k, v in layers.items()}


def f32(t):
    return t.to(torch.float32).contiguous().numpy()


def flat(layer):
    return "lora_unet_" + layer.replace(".", "_")


def scalar(value):
    return np.array(value, dtype="<f4")


def make(net, kind, tensors, weights, metadata=None, verdict="ok", note=""):
    """tensors go into the file; weights {layer: its weight under the adapter}."""
    st_io.save(net.folder / f"{kind}.safetensors", tensors, metadata)
    with torch.no_grad():
        model = net.plain()
        for k, v in weights.items():
            model.get_submodule(k).weight.copy_(v)
    out = net.run(model)
    net.errors[kind] = (net.run(model.float()).to(F64) - out).abs().max().item()
    net.add(kind, f"{kind}.safetensors", verdict, out, note)


def weight_of(net, layer):
    return net.state[f"{layer}.weight"].to(F64)


def kohya(net, factors):
    """networks/lora.py: lora_down, lora_up, alpha (0-dim); scale alpha/rank, alpha is the rank where it is missing."""
    tensors, weights = {}, {}
    for k, f in factors.items():
        tensors.update({f"{flat(k)}.lora_down.weight": f32(f.a), f"{flat(k)}.lora_up.weight": f32(f.up()),
                        f"{flat(k)}.alpha": scalar(f.alpha)})
        weights[k] = weight_of(net, k) + f.delta()
    meta = {"ss_network_dim": 3, "ss_network_alpha": 4, "ss_network_module": "networks.lora"}
    make(net, "kohya", tensors, weights, meta)

    left_out = "encoder_convs.1.seq1.0"
    del tensors[f"{flat(left_out)}.alpha"]
    weights[left_out] = weight_of(net, left_out) + factors[left_out].delta(factors[left_out].rank)
    make(net, "kohya_no_alpha", tensors, weights, note="one layer without alpha: alpha is its rank")

    def halves(v):
        return v.half().to(F64)

    def bits(v):
        return v.bfloat16().to(F64)

    for kind, rounded, store in (("kohya_f16", halves, lambda a: np.asarray(a, "<f2")),
                                 ("kohya_bf16", bits, st_io.bfloat16)):
        stored, weights = {}, {}
        for k, f in factors.items():
            stored.update({f"{flat(k)}.lora_down.weight": store(f32(f.a)),
                           f"{flat(k)}.lora_up.weight": store(f32(f.up())), f"{flat(k)}.alpha": store(scalar(f.alpha))})
            weights[k] = weight_of(net, k) + f.delta(rounded=rounded)
        make(net, kind, stored, weights, meta)


def tucker(t, a, b):
    """Sum over i, j of t[i,j,k,l] a[i,p] b[j,q]: lycoris/functional/general.py, rebuild_tucker."""
    return torch.einsum("ijkl,ip,jq->pqkl", t, a, b)


def kohya_mid(net, factors):
    """A factored convolution: lycoris/modules/locon.py, make_weight."""
    gen, tensors, weights = golden.seeded(62), {}, {}
    for k in ("encoder_convs.1.seq1.0", "decoder_convs.0.seq2.0", "encoder_convs.0.cross_attention.w_q"):
        f, name = factors[k], flat(k)
        tensors[f"{name}.alpha"] = scalar(f.alpha)
        tensors[f"{name}.lora_up.weight"] = f32(f.up())
        if len(f.shape) == 2:
            tensors[f"{name}.lora_down.weight"] = f32(f.a)
            weights[k] = weight_of(net, k) + f.delta()
            continue
        down = golden.normal(gen, f.rank, f.shape[1], 1, 1, scale=1 / math.sqrt(f.shape[1]))
        mid = golden.normal(gen, f.rank, f.rank, 3, 3, scale=0.5)
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_mid.weight"] = f32(down), f32(mid)
        delta = tucker(mid, f.b.t(), down[:, :, 0, 0])
        weights[k] = weight_of(net, k) + f.alpha / f.rank * delta
    make(net, "kohya_mid", tensors, weights, note="factored convolutions: lora_mid")


def kohya_dora(net, factors):
    """dora_scale: lycoris/modules/locon.py, apply_weight_decompose; of outputs today, of inputs once (wd_on_out)."""
    for kind, axis, note in (("kohya_dora", 0, "dora_scale (out,1,...)"),
                             ("kohya_dora_in", 1, "dora_scale (1,in,...), as once")):
        gen, tensors, weights = golden.seeded(63), {}, {}
        for k, f in factors.items():
            v = weight_of(net, k) + f.delta()
            over = tuple(i for i in range(v.dim()) if i != axis)
            norm = v.pow(2).sum(over, keepdim=True).sqrt()
            scale = golden.round32(norm * (0.7 + 0.7 * torch.rand(norm.shape, generator=gen, dtype=F64)))
            weights[k] = v * scale / (norm + torch.finfo(torch.float32).eps)
            tensors.update({f"{flat(k)}.lora_down.weight": f32(f.a), f"{flat(k)}.lora_up.weight": f32(f.up()),
                            f"{flat(k)}.alpha": scalar(f.alpha), f"{flat(k)}.dora_scale": f32(scale)})
        make(net, kind, tensors, weights, verdict="ok" if axis == 0 else "either", note=note)


def draw(gen, *shape):
    return golden.normal(gen, *shape, scale=0.6)


def lycoris_loha(net):
    """lycoris/functional/loha.py, diff_weight: alpha/rank times the entries' product of two products."""
    gen, tensors, weights = golden.seeded(64), {}, {}
    for k, factored in (("encoder_convs.1.cross_attention.w_q", False), ("encoder_convs.1.seq2.0", False),
                        ("decoder_convs.0.seq2.0", True), ("encoder_convs.1.skip", False)):
        w, r, alpha, halves = weight_of(net, k), 2, 1.5, []
        for i in "12":
            if factored:
                part = {"w%s_a": draw(gen, r, w.shape[0]), "w%s_b": draw(gen, r, w.shape[1]),
                        "t%s": draw(gen, r, r, 3, 3)}
                halves.append(tucker(part["t%s"], part["w%s_a"], part["w%s_b"]))
            else:
                part = {"w%s_a": draw(gen, w.shape[0], r), "w%s_b": draw(gen, r, w[0].numel())}
                halves.append((part["w%s_a"] @ part["w%s_b"]).reshape(w.shape))
            tensors.update({f"{flat(k)}.hada_{n % i}": f32(v) for n, v in part.items()})
        tensors[f"{flat(k)}.alpha"] = scalar(alpha)
        weights[k] = w + alpha / r * halves[0] * halves[1]
    make(net, "lycoris_loha", tensors, weights)


def lycoris_lokr(net):
    """lycoris/functional/lokr.py, diff_weight: alpha/rank times the Kronecker product; rank is that of a factored half,
    and the scale 1 where neither is (rank = gamma there)."""
    gen, tensors, weights = golden.seeded(65), {}, {}
    r, alpha = 2, 3
    cases = (  # layer, shape of the first half, is it a product?, the second half
        ("encoder_convs.1.time_embedding_linear", (4, 4), False, "low"),
        ("encoder_convs.0.time_embedding_linear", (2, 2), True, "low"),
        ("encoder_convs.1.cross_attention.w_v", (1, 2), False, "full"),
        ("encoder_convs.1.seq2.0", (2, 4), False, "low"),
        ("decoder_convs.0.seq2.0", (2, 2), False, "factored"),
        ("encoder_convs.1.seq1.0", (4, 2), False, "full"),
        ("encoder_convs.1.skip", (4, 2), True, "full"))
    for k, (a, c), low1, half2 in cases:
        w, name, part = weight_of(net, k), flat(k), {}
        b, d, window = w.shape[0] // a, w.shape[1] // c, w.shape[2:]
        if low1:
            part["w1_a"], part["w1_b"] = draw(gen, a, r), draw(gen, r, c)
            w1 = part["w1_a"] @ part["w1_b"]
        else:
            w1 = part["w1"] = draw(gen, a, c)
        if half2 == "full":
            w2 = part["w2"] = draw(gen, b, d, *window)
        elif half2 == "low":
            part["w2_a"], part["w2_b"] = draw(gen, b, r), draw(gen, r, d * math.prod(window))
            w2 = (part["w2_a"] @ part["w2_b"]).reshape(b, d, *window)
        else:
            part["t2"], part["w2_a"], part["w2_b"] = draw(gen, r, r, 3, 3), draw(gen, r, b), draw(gen, r, d)
            w2 = tucker(part["t2"], part["w2_a"], part["w2_b"])
        tensors.update({f"{name}.lokr_{n}": f32(v) for n, v in part.items()})
        tensors[f"{name}.alpha"] = scalar(alpha)
        scale = 1 if not low1 and half2 == "full" else alpha / r
        letters = "kl"[:len(window)]
        weights[k] = w + scale * torch.einsum(f"ac,bd{letters}->abcd{letters}", w1, w2).reshape(w.shape)
    make(net, "lycoris_lokr", tensors, weights, note="two layers with both halves full: scale 1")


def diffusers(net, factors):
    """src/diffusers: utils/state_dict_utils.py; loaders/lora_base.py (metadata); utils/peft_utils.py (alpha)."""
    def spell(a, b):
        return {f"unet.{k}.{n}.weight": f32(v) for k, f in factors.items() for n, v in ((a, f.a), (b, f.up()))}

    scaled = {k: weight_of(net, k) + f.delta() for k, f in factors.items()}
    unscaled = {k: weight_of(net, k) + f.delta(f.rank) for k, f in factors.items()}
    conv = [k for k, f in factors.items() if f.rank == 2]
    settings = {"peft_type": "LORA", "r": 3, "lora_alpha": 4, "rank_pattern": {k: 2 for k in conv},
                "alpha_pattern": {k: 1.5 for k in conv}, "target_modules": sorted(factors), "use_rslora": False,
                "use_dora": False, "bias": "none", "lora_bias": False, "init_lora_weights": True}
    text = json.dumps({f"unet.{k}": v for k, v in settings.items()}, indent=2, sort_keys=True)
    make(net, "diffusers", spell("lora_A", "lora_B"), scaled, {"format": "pt", "lora_adapter_metadata": text})
    make(net, "diffusers_plain", spell("lora_A", "lora_B"), unscaled, {"format": "pt"},
              note="no metadata: alpha is the rank")
    make(net, "diffusers_old", spell("lora.down", "lora.up"), unscaled, {"format": "pt"})

    # The oldest: the adapter sat in the processor of an attention with the layers to_q, to_k, to_v, to_out
    names = dict(zip(("to_q", "to_k", "to_v", "to_out"), ATTENTION))
    gen, tensors, weights = golden.seeded(66), {}, {}
    for block in ("encoder_convs.0", "encoder_convs.1", "decoder_convs.0"):
        for theirs, ours in names.items():
            layer = f"{block}.cross_attention.{ours}"
            f = Factors(gen, net.state[f"{layer}.weight"], 2, 2)
            f.b *= 2
            stem = f"unet.{block}.cross_attention.processor.{theirs}_lora"
            tensors[f"{stem}.down.weight"], tensors[f"{stem}.up.weight"] = f32(f.a), f32(f.b)
            weights[layer] = weight_of(net, layer) + f.delta()
    make(net, "diffusers_processor", tensors, weights, note="to_q, to_k, to_v, to_out are w_q, w_k, w_v, z_linear")
    bare = {k[len("unet."):]: v for k, v in tensors.items()}
    make(net, "diffusers_attention", bare, weights, note="the same without the prefix")


def reference(net):
    """The reference's own: x lora_a lora_b, alpha 1."""
    gen, tensors, weights = golden.seeded(67), {}, {}
    for block in ("encoder_convs.0", "encoder_convs.1", "decoder_convs.0"):
        for name in ATTENTION[:3]:
            layer = f"{block}.cross_attention.{name}"
            f = Factors(gen, net.state[f"{layer}.weight"], 3, 1)
            f.b *= 4
            tensors[f"{layer}.lora_a"], tensors[f"{layer}.lora_b"] = f32(f.a.t()), f32(f.b.t())
            weights[layer] = weight_of(net, layer) + f.delta()
    make(net, "reference", tensors, weights)


def kinds(net):
    factors = draw_factors(net)
    for spell in (kohya, kohya_mid, kohya_dora, diffusers):
        yield spell.__name__, lambda spell=spell: spell(net, factors)
    for spell in (lycoris_loha, lycoris_lokr, reference):
        yield spell.__name__, lambda spell=spell: spell(net)
