#!/usr/bin/env python3
"""sdlora against PyTorch on the same cores. Started by scripts/bench_vs_torch.sh.

    bench_torch.py compare --sdlora ./sdlora [options]     both sides, interleaved; a Markdown table on stdout
    bench_torch.py measure train|sample|start [options]    one measurement of PyTorch, in a process of its own: JSON

The models are those of torch_ref.py. PyTorch runs as it comes (NCHW, eager, no environment) and tuned: the malloc
thresholds and the OpenBLAS core set right, the better of two memory formats, and torch.compile where the version has it.
Every measurement is a process; the sides take turns (A B A B), and the table shows medians over the rounds.
"""
import argparse
import json
import os
import platform
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from datetime import date
from pathlib import Path


# ---- one measurement of PyTorch ----

def make_png(path, pixels):
    """Grey PNG of rows of bytes, so that the start-up comparison ends with a file on both sides."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(row) for row in pixels)
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
                           + chunk(b"IEND", b""))


def build(args):
    import torch
    import torch_ref as ref
    torch.set_num_threads(args.threads)
    config = ref.preset(args.preset)
    model = ref.UNet(config)
    if args.format == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    run = torch.compile(model) if args.compile else model
    return torch, ref, config, model, run


def images(torch, args, config, n):
    x = torch.randn(n, 1, config.image_size, config.image_size)
    return x.contiguous(memory_format=torch.channels_last) if args.format == "channels_last" else x


def measure_train(args):
    """Noising, forward, backward, clipping, Adam and EMA, as the preset trains: images per second."""
    torch, ref, config, model, run = build(args)
    diffusion = ref.Diffusion(config.schedule, config.timesteps, config.predict)
    params = list(model.parameters())
    optimiser = torch.optim.Adam(params, lr=1e-4)
    average = [p.detach().clone() for p in params] if args.preset != "seed" else None
    loss_of = ref.loss_function(config)
    x0 = images(torch, args, config, args.batch)
    y = torch.arange(args.batch) % config.classes
    model.train()
    seconds = []
    for _ in range(args.warmup + args.steps):
        begin = time.perf_counter()
        eps, t = torch.randn_like(x0), torch.randint(0, config.timesteps, (args.batch,))
        loss = loss_of(run(diffusion.noise(x0, eps, t), t, y), diffusion.target(x0, eps, t))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if average is not None:
            torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        if average is not None:
            with torch.no_grad():
                torch._foreach_mul_(average, 0.999)
                torch._foreach_add_(average, params, alpha=0.001)
        seconds.append(time.perf_counter() - begin)
    return {"images_per_s": args.batch / statistics.median(seconds[args.warmup:])}


def measure_sample(args):
    """DDIM without guidance, all images as one batch: seconds for the whole run."""
    torch, ref, config, model, run = build(args)
    diffusion = ref.Diffusion(config.schedule, config.timesteps, config.predict)
    model.eval()
    y = torch.arange(args.batch) % config.classes
    with torch.inference_mode():
        diffusion.sample(run, images(torch, args, config, args.batch), y, steps=2, clip=config.clip)
        begin = time.perf_counter()
        diffusion.sample(run, images(torch, args, config, args.batch), y, steps=args.steps, clip=config.clip)
    return {"seconds": time.perf_counter() - begin}


def measure_start(args):
    """From nothing to a PNG of one image after one step; the caller times the process."""
    torch, ref, config, model, run = build(args)
    diffusion = ref.Diffusion(config.schedule, config.timesteps, config.predict)
    with torch.inference_mode():
        x = diffusion.sample(run.eval(), images(torch, args, config, 1), torch.tensor([5]), steps=1, clip=config.clip)
    make_png(args.png, ((x[0, 0].clamp(-1, 1) + 1) * 127.5).byte().tolist())
    return {}


# ---- both sides ----

def run_process(command, env=None):
    """(stdout, seconds, peak resident MB) of a child; its failure is ours.

    A child's peak counts from the fork, so it is never below this process's own, about 20 MB: do not import torch here.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode != 0:
            sys.exit(f"bench: '{' '.join(map(str, command))}' failed ({child.returncode}):\n{err.read()}")
        return out.read(), seconds, usage.ru_maxrss / 1024


class Torch:
    def __init__(self, label, env=(), fmt="contiguous", compiled=False):
        self.label, self.env = label, dict(env)
        self.flags = ["--format", fmt] + (["--compile"] if compiled else [])

    def measure(self, args, what, preset, batch, steps, warmup=2):
        command = [sys.executable, __file__, "measure", what, "--preset", preset, "--batch", str(batch),
                   "--steps", str(steps), "--warmup", str(warmup), "--threads", str(args.threads),
                   "--png", str(args.work / "start.png")]
        out, seconds, rss = run_process(command + self.flags, {**self.env, "OMP_NUM_THREADS": str(args.threads)})
        result = json.loads(out.strip().splitlines()[-1])
        return {"rss": rss, "wall": seconds, **result}

    def train(self, args, preset, batch, steps):
        return self.measure(args, "train", preset, batch, steps)

    def sample(self, args, n, steps):
        return self.measure(args, "sample", "mnist", n, steps)

    def start(self, args):
        return self.measure(args, "start", "mnist", 1, 1)


class Sdlora:
    label = "sdlora"

    def train(self, args, preset, batch, steps):
        out = args.work / f"run-{preset}"
        command = [args.sdlora, "train", "--preset", preset, "--batch-size", str(batch), "--steps", str(steps + 2),
                   "--out", str(out), "--data", str(args.data), "--threads", str(args.threads), "--val-images", "0",
                   "--sample-every", "0", "--log-every", "1", "--quiet"]
        if out.exists():
            subprocess.run(["rm", "-rf", str(out)], check=True)
        _, seconds, rss = run_process(command)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        rates = [line["images_per_s"] for line in lines if "images_per_s" in line][2:]
        return {"images_per_s": statistics.median(rates), "rss": rss, "wall": seconds}

    def sample(self, args, n, steps):
        """The whole process, from start to PNG: more than what PyTorch is timed for."""
        command = [args.sdlora, "sample", "--model", str(args.work / "run-mnist" / "model.safetensors"), "-n", str(n),
                   "--steps", str(steps), "--cfg-scale", "1", "--threads", str(args.threads), "-o", str(args.work / "sample.png")]
        _, seconds, rss = run_process(command)
        return {"seconds": seconds, "rss": rss}

    def start(self, args):
        result = self.sample(args, 1, 1)
        return {"wall": result["seconds"], "rss": result["rss"]}


def tuned_environment():
    """What a careful user sets: no mmap per allocation, and the OpenBLAS core that the CPU deserves."""
    env = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20)}
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if " avx512f " in flags:
        env["OPENBLAS_CORETYPE"] = "SKYLAKEX"
    elif " avx2 " in flags:
        env["OPENBLAS_CORETYPE"] = "HASWELL"
    return env


def torch_facts():
    """(version, has compile), asked of another process."""
    out, _, _ = run_process([sys.executable, "-c", "import torch; print(torch.__version__, hasattr(torch, 'compile'))"])
    version, compiles = out.split()
    return version, compiles == "True"


def contenders(compiles):
    tuned = tuned_environment()
    found = [Torch("as it comes"), Torch("tuned", tuned), Torch("tuned, channels_last", tuned, "channels_last")]
    if compiles:
        found += [Torch("tuned, compiled", tuned, compiled=True),
                  Torch("tuned, channels_last, compiled", tuned, "channels_last", True)]
    return found


def tasks(args):
    """(row of the table, key of a result, unit, higher is better, function of a side)."""
    steps, evaluations = (3, 5) if args.quick else (8, 50)
    scale = 50 / evaluations

    def trained(preset, batch, n):
        return lambda side: side.train(args, preset, batch, n)

    def sampled(n):
        def run(side):
            result = side.sample(args, n, evaluations)
            result["seconds"] *= scale
            return result

        return run

    return [
        ("training, preset mnist, batch 128", trained("mnist", 128, steps),
         [("images_per_s", "images/s", True), ("rss", "MB, peak", False)]),
        ("training, preset seed, batch 16", trained("seed", 16, max(2, steps // 2)),
         [("images_per_s", "images/s", True), ("rss", "MB, peak", False)]),
        ("sampling 100 images, DDIM-50", sampled(100), [("seconds", "s", False), ("rss", "MB, peak", False)]),
        ("sampling 1 image, DDIM-50", sampled(1), [("seconds", "s", False)]),
        ("`sample --steps 1`, start to PNG", lambda side: side.start(args), [("wall", "s", False)]),
    ]


def show(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows, sides):
    """Markdown: stock PyTorch, the best tuned one, sdlora, ratios (how many times better sdlora is)."""
    print("| | unit | PyTorch as it comes | PyTorch tuned | sdlora | x as it comes | x tuned | best tuned |")
    print("|---|---|---:|---:|---:|---:|---:|---|")
    for name, unit, higher, results in rows:
        middle = {side.label: statistics.median(results[side.label]) for side in sides}
        own = middle.pop("sdlora")
        stock = middle.pop("as it comes")
        best = (max if higher else min)(middle, key=middle.get)

        def ratio(other):
            return own / other if higher else other / own

        print(f"| {name} | {unit} | {show(stock)} | {show(middle[best])} | **{show(own)}** | {ratio(stock):.1f} | "
              f"{ratio(middle[best]):.1f} | {best} |")


def cpu_name():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def compare_at(args, sides):
    rows = []
    for name, function, wanted in tasks(args):
        results = {key: {side.label: [] for side in sides} for key, _, _ in wanted}
        for r in range(args.rounds):
            for side in sides:
                result = function(side)
                for key, _, _ in wanted:
                    results[key][side.label].append(result[key])
                values = "  ".join(f"{show(result[key])} {unit}" for key, unit, _ in wanted)
                print(f"bench: {name}, round {r + 1}, {side.label}: {values}", file=sys.stderr)
        rows += [(name, unit, higher, results[key]) for key, unit, higher in wanted]
    table(rows, sides)


def compare(args):
    torch_version, compiles = torch_facts()
    sides = contenders(compiles)
    sides.insert(1, Sdlora())  # between the two that matter most
    version, _, _ = run_process([args.sdlora, "--version"])
    load, cores = os.getloadavg()[0], os.cpu_count()
    if load > 0.3:
        print(f"bench: the machine is busy (load {load:.2f}): figures will be unreliable", file=sys.stderr)
    print(f"{cpu_name()}, {cores} processors, {platform.system()} {platform.machine()}; PyTorch {torch_version}, "
          f"{version.splitlines()[0]}; {date.today()}; {args.rounds} interleaved rounds, medians"
          + (", quick: sampling times scaled up from 5 steps" if args.quick else "") + ".")
    with tempfile.TemporaryDirectory() as work:
        args.work = Path(work)
        for threads in args.thread_list:
            args.threads = threads
            print(f"\n{threads} thread{'s' if threads > 1 else ''}:\n")
            compare_at(args, sides)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    c = commands.add_parser("compare")
    c.add_argument("--sdlora", default="./sdlora")
    c.add_argument("--data", type=Path, default=Path(__file__).resolve().parent.parent / "data" / "mnist")
    c.add_argument("--rounds", type=int, default=3)
    c.add_argument("--threads", dest="thread_list", default=str(os.cpu_count()), help="one number or several: 1,2,4",
                   type=lambda text: [int(n) for n in text.split(",")])
    c.add_argument("--quick", action="store_true", help="fewer steps: a first look in a few minutes")
    m = commands.add_parser("measure")
    m.add_argument("what", choices=("train", "sample", "start"))
    m.add_argument("--preset", default="mnist")
    m.add_argument("--batch", type=int, default=128)
    m.add_argument("--steps", type=int, default=8)
    m.add_argument("--warmup", type=int, default=2)
    m.add_argument("--threads", type=int, default=os.cpu_count())
    m.add_argument("--format", choices=("contiguous", "channels_last"), default="contiguous")
    m.add_argument("--compile", action="store_true")
    m.add_argument("--png", default=os.devnull)
    args = parser.parse_args()
    if args.command == "compare":
        compare(args)
    else:
        print(json.dumps({"train": measure_train, "sample": measure_sample, "start": measure_start}[args.what](args)))


if __name__ == "__main__":
    main()
