"""The models of sdlora in PyTorch: an independent implementation to compare with, not needed to build or run anything.

A class-conditional UNet with cross-attention (presets seed, mnist, tiny), LoRA, noise schedules, reverse steps. Names and
shapes of the state_dict are those of sdlora's files. Works with PyTorch 1.13 and later, in float32 or float64.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    """Network and diffusion; the fields are those of ModelConfig in include/sdlora/model.h."""
    channels: tuple = (32, 64, 128)
    image_size: int = 28
    in_channels: int = 1
    time_dim: int = 256
    qsize: int = 16
    vsize: int = 16
    fsize: int = 32
    context_tokens: int = 4
    context_dim: int = 32
    classes: int = 10
    null_class: bool = True
    norm: str = "group"     # or batch
    groups: int = 8
    act: str = "silu"       # or relu
    time_act: bool = False  # act(Linear(t)) in every block, else Linear(t)
    skip: bool = True       # a residual around the convolutions of a block
    pre_norm: bool = True   # cross-attention x + Z(LN x), else LN(x + Z)
    timesteps: int = 1000
    schedule: str = "cosine"  # or linear
    predict: str = "v"        # or eps, x0
    clip: str = "x0"          # or xt, none
    loss: str = "l2"          # or l1


def preset(name, **changes):
    """The table of presets; any field can be changed by keyword."""
    if name == "seed":
        fields = dict(channels=(64, 128, 256, 512, 1024), image_size=48, context_tokens=1, null_class=False,
                      norm="batch", act="relu", time_act=True, skip=False, pre_norm=False, timesteps=1500,
                      schedule="linear", predict="eps", clip="xt", loss="l1")
    elif name == "mnist":
        fields = {}
    elif name == "tiny":
        fields = dict(channels=(16, 32, 64))
    else:
        raise ValueError(f"unknown preset '{name}': seed, mnist or tiny")
    fields.update(changes)
    return Config(**fields)


# ---- the network ----

def activation(c):
    return nn.ReLU() if c.act == "relu" else nn.SiLU()


def norm2d(c, channels):
    if c.norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(c.groups, channels), channels)


class SinusoidalTime(nn.Module):
    """(N) timesteps -> (N, dim): sin, then cos, of t * exp(-ln(10000) i / (dim/2 - 1)).

    The argument is rounded to float32 whatever the dtype of the model, as it is in every float32 implementation: at
    t = 999 that rounding moves the features by up to 3e-5, which would otherwise hide in comparisons.
    """

    def __init__(self, dim):
        super().__init__()
        half = dim // 2
        self.register_buffer("half_embedding", torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1))))

    def forward(self, t):
        angle = t.float()[:, None] * self.half_embedding.float()[None, :]
        angle = angle.to(self.half_embedding.dtype)
        return torch.cat((angle.sin(), angle.cos()), dim=1)


class CrossAttention(nn.Module):
    """Every pixel asks the tokens of the class."""

    def __init__(self, c, channels):
        super().__init__()
        self.pre_norm = c.pre_norm
        self.w_q = nn.Linear(channels, c.qsize)
        self.w_k = nn.Linear(c.context_dim, c.qsize)
        self.w_v = nn.Linear(c.context_dim, c.vsize)
        self.z_linear = nn.Linear(c.vsize, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(nn.Linear(channels, c.fsize), activation(c), nn.Linear(c.fsize, channels))
        self.norm2 = nn.LayerNorm(channels)

    def attend(self, x, context):  # x (N,P,C), context (N,T,D)
        return self.z_linear(attention(self.w_q(x), self.w_k(context), self.w_v(context)))

    def forward(self, x, context):  # x (N,C,H,W)
        n, channels, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        if self.pre_norm:
            x = x + self.attend(self.norm1(x), context)
            x = x + self.feed_forward(self.norm2(x))
        else:
            x = self.norm1(x + self.attend(x, context))
            x = self.norm2(x + self.feed_forward(x))
        return x.transpose(1, 2).reshape(n, channels, h, w)


def attention(q, k, v):
    """softmax over tokens of q k^T / sqrt(Dq), times v: q (N,P,Dq), k (N,T,Dq), v (N,T,Dv)."""
    return torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[2]), dim=2) @ v


class Block(nn.Module):
    def __init__(self, c, cin, cout):
        super().__init__()
        self.seq1 = nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), norm2d(c, cout), activation(c))
        self.time_embedding_linear = nn.Linear(c.time_dim, cout)
        self.seq2 = nn.Sequential(nn.Conv2d(cout, cout, 3, padding=1), norm2d(c, cout), activation(c))
        self.cross_attention = CrossAttention(c, cout)
        self.time_act = activation(c) if c.time_act else nn.Identity()
        self.has_skip = c.skip
        if c.skip and cin != cout:
            self.skip = nn.Conv2d(cin, cout, 1)
        elif c.skip:
            self.skip = nn.Identity()

    def forward(self, x, time, context):
        h = self.seq1(x) + self.time_act(self.time_embedding_linear(time))[:, :, None, None]
        h = self.seq2(h)
        if self.has_skip:
            h = h + self.skip(x)
        return self.cross_attention(h, context)


class UNet(nn.Module):
    """x (N,C,H,W), C = in_channels, t (N), y (N) class ids (`classes` is the null class) -> (N,C,H,W)."""

    def __init__(self, c):
        super().__init__()
        self.config = c
        ch = list(c.channels)
        self.time_embedding = nn.Sequential(SinusoidalTime(c.time_dim), nn.Linear(c.time_dim, c.time_dim), activation(c))
        self.class_embedding = nn.Embedding(c.classes + int(c.null_class), c.context_tokens * c.context_dim)
        self.encoder_convs = nn.ModuleList([Block(c, a, b) for a, b in zip([c.in_channels] + ch[:-1], ch)])
        down = list(zip(ch[:0:-1], ch[-2::-1]))  # (1024,512), (512,256), ...
        self.deconvs = nn.ModuleList([nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in down])
        self.decoder_convs = nn.ModuleList([Block(c, 2 * b, b) for _, b in down])
        self.output = nn.Conv2d(ch[0], c.in_channels, 1)

    def forward(self, x, t, y):
        c = self.config
        time = self.time_embedding(t)
        context = self.class_embedding(y).view(-1, c.context_tokens, c.context_dim)
        kept = []
        for i, block in enumerate(self.encoder_convs):
            x = block(F.max_pool2d(x, 2) if i else x, time, context)
            kept.append(x)
        kept.pop()
        for up, block in zip(self.deconvs, self.decoder_convs):
            x = block(torch.cat((kept.pop(), up(x)), dim=1), time, context)
        return self.output(x)


def count_parameters(model):
    return sum(p.numel() for p in model.parameters())


# ---- LoRA ----

class LoraLinear(nn.Module):
    """A frozen linear layer plus (alpha/rank) (x A^T) B^T."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x):
        return self.base(x) + self.scale * ((x @ self.lora_A.t()) @ self.lora_B.t())


def inject_lora(model, rank, alpha, targets=("w_q", "w_k", "w_v")):
    """Freeze the model and adapt its layers of these names; returns {full name: LoraLinear}."""
    for p in model.parameters():
        p.requires_grad_(False)
    adapted = {}
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if last in targets and isinstance(module, nn.Linear):
            layer = LoraLinear(module, rank, alpha)
            setattr(model.get_submodule(parent), last, layer)
            adapted[name] = layer
    return adapted


def merge_lora(model, adapted):
    """W += (alpha/rank) B A, and the plain layers back in their places."""
    for name, layer in adapted.items():
        parent, _, last = name.rpartition(".")
        layer.base.weight.data += layer.scale * (layer.lora_B.data @ layer.lora_A.data)
        setattr(model.get_submodule(parent), last, layer.base)


# ---- diffusion ----

def make_betas(schedule, timesteps):
    if schedule == "linear":
        return torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64)
    if schedule == "cosine":  # Nichol & Dhariwal 2021, eq. 17
        t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        return torch.clamp(1 - f[1:] / f[:-1], max=0.999)
    raise ValueError(f"unknown schedule '{schedule}': linear or cosine")


def timestep_subset(timesteps, steps):
    """Increasing timesteps of a DDIM run, trailing spacing: the last is timesteps-1."""
    return [(j + 1) * timesteps // steps - 1 for j in range(steps)]


class Diffusion:
    """Everything takes images (N,1,H,W), timesteps (N), in any floating dtype; tables are float64."""

    def __init__(self, schedule, timesteps, predict):
        self.timesteps, self.predict = timesteps, predict
        self.betas = make_betas(schedule, timesteps)
        self.alphas_cumprod = torch.cumprod(1 - self.betas, 0)

    def at(self, table, t, like):
        return table[t].to(like.dtype)[:, None, None, None]

    def alpha_before(self, t, like):
        """alphas_cumprod at t, with 1 for t = -1."""
        table = torch.cat((self.alphas_cumprod, torch.ones(1, dtype=torch.float64)))
        return self.at(table, t, like)  # index -1 is the last

    def noise(self, x0, eps, t):
        a = self.at(self.alphas_cumprod, t, x0)
        return a.sqrt() * x0 + (1 - a).sqrt() * eps

    def target(self, x0, eps, t):
        if self.predict == "eps":
            return eps
        if self.predict == "x0":
            return x0
        a = self.at(self.alphas_cumprod, t, x0)
        return a.sqrt() * eps - (1 - a).sqrt() * x0

    def clean(self, output, xt, t):
        """x0 according to the output of the network."""
        a = self.at(self.alphas_cumprod, t, xt)
        if self.predict == "x0":
            return output
        if self.predict == "v":
            return a.sqrt() * xt - (1 - a).sqrt() * output
        return (xt - (1 - a).sqrt() * output) / a.sqrt()

    def ddpm_step(self, xt, output, noise, t, clip):
        """Posterior mean and variance of q(x_{t-1} | x_t, x_0): Ho et al. 2020, eq. 6 and 7."""
        a, before, beta = self.at(self.alphas_cumprod, t, xt), self.alpha_before(t - 1, xt), self.at(self.betas, t, xt)
        x0 = self.clean(output, xt, t)
        if clip == "x0":
            x0 = x0.clamp(-1, 1)
        mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * xt) / (1 - a)
        x = mean + (beta * (1 - before) / (1 - a)).sqrt() * noise  # the variance is 0 at t = 0
        return x.clamp(-1, 1) if clip == "xt" else x

    def ddim_step(self, xt, output, noise, t, t_prev, eta, clip):
        """Song et al. 2021, eq. 12; t_prev = -1 is the clean image. eps follows the clipped x0."""
        a, before = self.at(self.alphas_cumprod, t, xt), self.alpha_before(t_prev, xt)
        x0 = self.clean(output, xt, t)
        if clip == "x0":
            x0 = x0.clamp(-1, 1)
        eps = (xt - a.sqrt() * x0) / (1 - a).sqrt()
        sigma = eta * ((1 - before) / (1 - a)).sqrt() * (1 - a / before).sqrt()
        x = before.sqrt() * x0 + (1 - before - sigma ** 2).clamp(min=0).sqrt() * eps + sigma * noise
        return x.clamp(-1, 1) if clip == "xt" else x

    @torch.no_grad()
    def sample(self, model, x, y, steps=0, eta=0.0, cfg_scale=1.0, clip="x0", null_class=None):
        """steps 0: DDPM over all timesteps, else DDIM. Guidance mixes raw outputs: u + s (c - u)."""
        times = timestep_subset(self.timesteps, steps or self.timesteps)
        for i in reversed(range(len(times))):
            t = torch.full((len(x),), times[i], device=x.device)
            if cfg_scale == 1.0:
                output = model(x, t, y)
            else:
                null = torch.full_like(y, null_class)
                c, u = model(torch.cat((x, x)), torch.cat((t, t)), torch.cat((y, null))).chunk(2)
                output = u + cfg_scale * (c - u)
            noise = torch.randn_like(x)
            if steps:
                x = self.ddim_step(x, output, noise, t, torch.full_like(t, times[i - 1] if i else -1), eta, clip)
            else:
                x = self.ddpm_step(x, output, noise, t, clip)
        return x


def loss_function(c):
    return nn.L1Loss() if c.loss == "l1" else nn.MSELoss()


if __name__ == "__main__":
    for preset_name in ("seed", "mnist", "tiny"):
        print(f"{preset_name:6} {count_parameters(UNet(preset(preset_name))):,} parameters")
