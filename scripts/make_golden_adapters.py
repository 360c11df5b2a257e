#!/usr/bin/env python3
"""Write tests/golden/adapters: adapters in the files of other programs, and what the network gives with each of them.

    scripts/make_golden_adapters.py [DIR]       (needs PyTorch and PEFT; the versions used are in DIR/versions.txt)

base.safetensors    the model
io.safetensors      x, t, y; base: its output; out.KIND: its output under the adapter of that kind (of y.KIND in place
                    of y where the adapter brings classes); computed in float64 from the files' numbers, stored as F32.
                    Metadata: f32_error, by kind, how far PyTorch's own float32 run is from that
verdicts.tsv        KIND, file or directory, ok | refused | either, tolerance of the output, note.
                    either: the output given, or a refusal; never another output
KIND/               an adapter as PEFT saves it
KIND.safetensors    an adapter in the spelling of another program (golden_spellings.py)

Expected outputs of PEFT's adapters are those of PeftModel.from_pretrained on what was saved: the files alone decide.
The same versions write the same bytes.
"""
import json
import math
import os
import shutil
import sys
import traceback
from pathlib import Path

import torch

import golden_spellings
import make_golden as golden
import st_io
import torch_ref as ref

F64 = torch.float64


class Network:
    """The base, its inputs, and the list of what was made from them."""

    def __init__(self, folder):
        self.folder = folder
        config = ref.preset("mnist", channels=(8, 16), image_size=8, time_dim=16, context_dim=6, qsize=6, vsize=5,
                            fsize=12)
        model = golden.random_model(config, seed=31)
        self.config, self.state = config, model.state_dict()
        gen = golden.seeded(32)
        self.x = golden.normal(gen, 6, 1, 8, 8)
        self.t = torch.randint(0, config.timesteps, (6,), generator=gen)
        self.y = torch.tensor([1, 4, 10, 0, 7, 9])  # 10 is the null class
        self.io = golden.Golden(x=self.x.float().numpy(), t=self.t.numpy(), y=self.y.numpy())
        self.verdicts, self.errors, self.failed = [], {}, []
        self.base = self.run(self.plain())
        self.io["base"] = self.base

    def plain(self, state=None, dtype=F64):
        """The network with these weights (the base's own where state is None)."""
        state = state or self.state
        rows = state["class_embedding.weight"].shape[0]
        model = ref.UNet(ref.Config(**{**vars(self.config), "classes": rows - 1}))
        model.load_state_dict(state)
        return model.to(dtype).eval()

    def run(self, model, y=None):
        dtype = next(p.dtype for p in model.parameters() if p.dtype.is_floating_point)
        with torch.no_grad():
            return model(self.x.to(dtype), self.t, self.y if y is None else y)

    def effect(self, out):
        """Size of the change against the size of the base's output, both root mean squares."""
        return ((out - self.base).norm() / self.base.norm()).item()

    def layers(self, *types):
        return [k for k, m in self.plain().named_modules() if isinstance(m, types)]

    def add(self, kind, path, verdict, out=None, note="", y=None):
        self.verdicts.append((kind, path, verdict, "1e-5" if out is not None else "-", note))
        if out is not None:
            self.io[f"out.{kind}"] = out
            if y is not None:
                self.io[f"y.{kind}"] = y
            print(f"{kind:24} {verdict:8} effect {self.effect(out):.2f}, largest output {out.abs().max():.2f}")

    def write(self):
        st_io.save(self.folder / "base.safetensors", golden.arrays(self.state),
                   {"format": "pt", "sdlora.config": golden.config_json(self.config)})
        st_io.save(self.folder / "io.safetensors", self.io,
                   {"format": "pt", "torch": torch.__version__, "f32_error": json.dumps(self.errors),
                    "about": "x, t, y; base, out.KIND: outputs of base.safetensors alone and under the adapter KIND, "
                    "of y.KIND in place of y where that is there"})
        rows = ["# kind\tfile\tverdict\ttolerance\tnote"] + ["\t".join(v) for v in sorted(self.verdicts)]
        (self.folder / "verdicts.tsv").write_text("\n".join(rows) + "\n")


# ---- PEFT ----

# Parts of the names of what an adapter adds, and of those that are scaled to set its effect
NEW_TENSORS = ("lora_", "hada_", "lokr_", "ia3_")
LAST_FACTORS = ("lora_B", "lora_E", "lora_embedding_B", "hada_w2_b", "lokr_w2.", "lokr_w2_b")


def randomize(model, gen):
    """Nothing left at its initial value, B least of all."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            if "magnitude" in name:
                p *= torch.rand(p.shape, generator=gen) * 0.7 + 0.7
            elif any(tag in name for tag in NEW_TENSORS):
                p.copy_(noise / math.sqrt(max(1, p[0].numel())))
            elif p.requires_grad:  # trained biases, modules_to_save, tokens
                p += 0.3 * noise


def set_effect(net, model, y):
    """Scale B by powers of two until the adapter changes the output by 0.4 to 0.9 of its size."""
    for _ in range(12):
        size = net.effect(net.run(model, y).to(F64))
        if 0.4 <= size <= 0.9:
            return
        factor = 2 if size < 0.4 else 0.5
        with torch.no_grad():
            for name, p in model.named_parameters():
                if any(tag in name for tag in LAST_FACTORS):
                    p *= factor


def save_peft(model, folder, **options):
    """As PEFT saves it, but with its sets of names in one order, so that the same versions write the same bytes."""
    model.save_pretrained(folder, **options)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), list):
            config[key].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True))


def peft_output(net, folder, state, y, dtype=F64):
    """What PEFT computes from the files, beside the weights and merged into them."""
    import peft
    model = peft.PeftModel.from_pretrained(net.plain(state, dtype), folder).to(dtype).eval()
    out = net.run(model, y)
    merged = net.run(model.merge_and_unload(), y)
    assert (out - merged).abs().max() < (1e-9 if dtype == F64 else 1e-3), "merging gives another output"
    return out


def expect_peft(net, kind, verdict="ok", note="", state=None, y=None):
    folder = net.folder / kind
    out = peft_output(net, folder, state, y)
    single = peft_output(net, folder, state, y, torch.float32)
    net.errors[kind] = (single.to(F64) - out).abs().max().item()
    net.add(kind, kind, verdict, out, note, y)
    return out


def make_peft(net, kind, config, verdict="ok", note="", state=None, y=None, same=True):
    """An adapter by PEFT with random numbers; `same`: the files give what the model in memory did."""
    import peft
    model = peft.get_peft_model(net.plain(state, torch.float32), config).eval()
    randomize(model, golden.seeded(sum(kind.encode())))
    set_effect(net, model, y)
    save_peft(model, net.folder / kind)
    if verdict == "refused":
        return net.add(kind, kind, verdict, note=note)
    out = expect_peft(net, kind, verdict, note, state, y)
    difference = (net.run(model, y).to(F64) - out).abs().max().item()
    assert not same or difference < 1e-4, f"the files give another output than the model in memory: {difference}"


def make_pissa(net):
    """PiSSA saved plainly, and converted to a plain LoRA against its initial state (peft_model.py, save_pretrained)."""
    import peft
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["w_q", "w_v"], init_lora_weights="pissa")
    model = peft.get_peft_model(net.plain(None, torch.float32), config).eval()
    initial = net.folder / "pissa_initial"
    model.peft_config["default"].init_lora_weights = True
    save_peft(model, initial)
    model.peft_config["default"].init_lora_weights = "pissa"
    gen = golden.seeded(41)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p += 0.7 * torch.randn(p.shape, generator=gen)
    out = net.run(model)
    save_peft(model, net.folder / "pissa_plain")
    net.add("pissa_plain", "pissa_plain", "refused", note="its base is not ours: W minus the first singular values")
    save_peft(model, net.folder / "pissa_converted", path_initial_model_for_weight_conversion=str(initial))
    shutil.rmtree(initial)
    converted = expect_peft(net, "pissa_converted", note="rank and alpha doubled, a plain LoRA")
    assert (out.to(F64) - converted).abs().max() < 1e-4


def respell_peft(net):
    """Copies of lora_qkv: in bfloat16, and with a configuration that leaves a layer of the file out."""
    source = net.folder / "lora_qkv"
    for kind in ("lora_bf16", "lora_untargeted"):
        shutil.copytree(source, net.folder / kind, dirs_exist_ok=True)
    weights = net.folder / "lora_bf16" / "adapter_model.safetensors"
    tensors, metadata = st_io.load(weights)
    st_io.save(weights, {k: st_io.bfloat16(v) for k, v in tensors.items()}, metadata)
    expect_peft(net, "lora_bf16", note="lora_qkv in bfloat16")
    path = net.folder / "lora_untargeted" / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = ["w_q", "w_v"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
    expect_peft(net, "lora_untargeted", "either", "tensors of w_k, which target_modules leaves out: PEFT ignores them")


def more_classes(net):
    """The base with three classes more, its null class last as before."""
    old = net.state["class_embedding.weight"]
    new = torch.randn(3, old.shape[1], generator=golden.seeded(51))
    return {**net.state, "class_embedding.weight": torch.cat((old[:10], new, old[10:]))}


def peft_kinds(net):
    from peft import AdaLoraConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, TrainableTokensConfig
    linear, conv = net.layers(torch.nn.Linear), net.layers(torch.nn.Conv2d)
    qkv, some_conv = ["w_q", "w_k", "w_v"], ["encoder_convs.1.seq1.0", "encoder_convs.1.skip", "decoder_convs.0.seq2.0"]
    mixed = ["w_q", "w_v", "time_embedding_linear", *some_conv]

    def lora(target, r=2, lora_alpha=3, **more):
        return LoraConfig(target_modules=target, r=r, lora_alpha=lora_alpha, **more)

    def add(kind, config, **options):
        yield kind, lambda: make_peft(net, kind, config(), **options)

    yield from add("lora_qkv", lambda: lora(qkv, r=4, lora_alpha=6))
    yield "lora_qkv copies", lambda: respell_peft(net)
    yield from add("lora_all_linear", lambda: lora("all-linear", lora_dropout=0.1), note="with a dropout")
    yield from add("lora_rslora", lambda: lora(mixed, r=3, lora_alpha=2.5, use_rslora=True))
    yield from add("lora_regex", lambda: lora(
        r".*coder_convs\.[01]\.(cross_attention\.(w_[qv]|z_linear)|seq2\.0)", init_lora_weights="gaussian"))
    yield from add("lora_exclude", lambda: lora(
        ["w_q", "w_v"], exclude_modules=r"decoder_convs\..*", init_lora_weights="orthogonal"))
    yield from add("lora_patterns", lambda: lora(
        [*golden_spellings.ATTENTION, "seq1.0", "skip"], r=3, lora_alpha=4,
        rank_pattern={"w_q": 1, r"encoder_convs\.\d+\.cross_attention\.w_[kv]": 2, "decoder_convs.0.seq1.0": 4},
        alpha_pattern={"encoder_convs.0.cross_attention.w_q": 5, "cross_attention.w_q": 7, "w_[qk]": 3,
                       r"(en|de)coder_convs\.[01]\.seq1\.0": 6.5, "^encoder_convs.1.skip": 1, "q": 99, "linear": 98,
                       "onvs.1.skip": 97}),
        same=False, note="several keys match a layer: the first in the (sorted) file counts; q, linear, onvs.1.skip "
        "match none")
    yield from add("lora_patterns_rslora", lambda: lora(
        ["w_q", "w_v"], use_rslora=True, rank_pattern={r".*\.1\..*": 4}, alpha_pattern={"w_v|w_x": 2}))
    yield from add("lora_patterns_python", lambda: lora(
        ["w_q", "w_v"], alpha_pattern={r"(?!decoder).*\.w_q": 6, r"(?:en|de)coder_convs\.0\.\w+\.w_v": 2}),
        verdict="either", note="expressions of Python that POSIX does not have")
    yield from add("lora_conv", lambda: lora(conv))
    yield from add("lora_embedding", lambda: lora(["class_embedding"]))
    yield from add("lora_all", lambda: lora([*linear, *conv, "class_embedding"], r=2))
    yield from add("lora_bias", lambda: lora(mixed, lora_bias=True), note="lora_B has a bias, scaled as it is")
    yield from add("bias_lora_only", lambda: lora(mixed, bias="lora_only"))
    yield from add("bias_all", lambda: lora(["w_q", "seq1.0"], bias="all"))
    yield from add("dora_linear", lambda: lora(golden_spellings.ATTENTION, use_dora=True))
    yield from add("dora_conv", lambda: lora([*some_conv, "output"], use_dora=True, use_rslora=True),
                   note="with rslora")
    yield from add("dora_embedding", lambda: lora(["class_embedding", "w_v"], use_dora=True))
    yield from add("dora_patterns", lambda: lora(
        mixed, use_dora=True, rank_pattern={"w_q": 1}, alpha_pattern={"seq2.0": 5}))
    yield from add("saved_modules", lambda: lora(
        ["w_q"], modules_to_save=["norm1", "encoder_convs.0.seq1.1", "class_embedding", "deconvs.0", "output"]))
    yield from add("saved_block", lambda: lora(
        ["encoder_convs.0.seq1.0"], modules_to_save=["decoder_convs.0.cross_attention"]),
        note="modules_to_save names a module of many layers")
    yield from add("saved_bias_all", lambda: lora(["w_q"], bias="all", modules_to_save=["norm1"]), verdict="either",
                   note="has NAME.original_module.bias and NAME.modules_to_save.bias besides, which PEFT does not need")
    yield from add("new_classes", lambda: lora(qkv, modules_to_save=["class_embedding"]),
                   state=more_classes(net), y=torch.tensor([0, 9, 10, 11, 12, 13]),
                   note="three classes more: rows 10 to 12; 13 is the null class")
    yield from add("tokens", lambda: lora(["w_v"], trainable_token_indices={"class_embedding": [1, 4, 10]}),
                   note="rows of the embedding are replaced")
    yield "pissa", lambda: make_pissa(net)

    def loha(target, **more):
        return LoHaConfig(target_modules=target, r=2, alpha=3, **more)

    def lokr(target, r=2, **more):
        return LoKrConfig(target_modules=target, r=r, alpha=3, **more)

    yield from add("loha_linear", lambda: loha(["w_q", "w_v", "z_linear"]))
    yield from add("loha_conv", lambda: loha(some_conv))
    yield from add("loha_conv_effective", lambda: loha(some_conv, use_effective_conv2d=True),
                   note="with hada_t1, hada_t2")
    yield from add("loha_patterns", lambda: loha(
        mixed, rank_pattern={"w_q": 1}, alpha_pattern={"seq1.0": 5, "w_q": 2}))
    yield from add("loha_saved", lambda: loha(["w_q"], modules_to_save=["norm2"]))
    yield from add("lokr_linear", lambda: lokr(["w_q", "w_v", "time_embedding_linear"], decompose_factor=2))
    yield from add("lokr_full", lambda: lokr(mixed, r=8), note="both factors full: alpha/r all the same")
    yield from add("lokr_both", lambda: lokr(
        ["time_embedding_linear", "seq2.0"], r=1, decompose_both=True, decompose_factor=4),
        note="with lokr_w1_a, lokr_w1_b")
    yield from add("lokr_conv", lambda: lokr(some_conv, r=1))
    yield from add("lokr_conv_effective", lambda: lokr(some_conv, use_effective_conv2d=True, decompose_factor=2),
                   note="with lokr_t2")
    yield from add("lokr_patterns", lambda: lokr(
        mixed, decompose_factor=8, rank_pattern={"w_q": 1}, alpha_pattern={"w_q": 2}))

    kinds = "another kind of adapter"
    yield from add("adalora", lambda: AdaLoraConfig(init_r=2, target_r=2, total_step=10, target_modules=["w_q"]),
                   verdict="refused", note=kinds)
    yield from add("ia3", lambda: IA3Config(target_modules=["w_q", "w_v"], feedforward_modules=[]),
                   verdict="refused", note=kinds)
    yield from add("trainable_tokens", lambda: TrainableTokensConfig(
        target_modules=["class_embedding"], token_indices=[1, 4]), verdict="refused", note=kinds)


def main():
    os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests" / "golden" / "adapters")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.set_num_threads(1)  # sums in one order
    net = Network(folder)
    print(f"base: root mean square {net.base.pow(2).mean().sqrt():.2f}")
    import peft
    (folder / "versions.txt").write_text(f"peft {peft.__version__}\ntorch {torch.__version__}\n")
    for kinds in (peft_kinds, golden_spellings.kinds):
        for kind, make in kinds(net):
            try:
                make()
            except Exception:
                net.failed.append(kind)
                print(f"--- {kind} failed", *traceback.format_exc().splitlines()[-8:], sep="\n")
    net.write()
    print(f"float32 against float64: {max(net.errors.values(), default=0):.1e}")
    print(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()), "bytes")
    if net.failed:
        sys.exit(f"failed: {', '.join(net.failed)}")


if __name__ == "__main__":
    main()
