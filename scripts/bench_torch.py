#!/usr/bin/env python3
"""sdlora against PyTorch on the same cores. Started by scripts/bench_vs_torch.sh.

    bench_torch.py compare --sdlora ./sdlora [options]     both sides, interleaved; Markdown tables on stdout
    bench_torch.py measure train|sample|start [options]    one measurement of PyTorch, in a process of its own: JSON

The models are those of torch_ref.py. PyTorch runs as it comes (NCHW, eager, no environment) and tuned: the malloc
thresholds and the OpenBLAS core set right, the better of two memory formats, torch.compile where the version has it, and
with --precision bf16 or auto each of those also under autocast to bfloat16, with weights in float as here.
Every measurement is a process; the sides take turns (A B A B), and the tables show medians over the rounds. A contender
that fails (torch.compile without a C++ compiler) or takes too long is reported and left out of that row.

What is timed. Training: single optimiser steps inside the process, after a warm-up, on both sides. Sampling: PyTorch inside
the process, after a warm-up of two steps; sdlora the whole process, from start through the model's file to the PNG, and,
in the rows "sampling only", what it says it took to draw. One image: the median of five, of PyTorch in one process, of
sdlora in five. "start to PNG" is the whole process on both sides.
"""
import argparse
import json
import os
import platform
import re
import signal
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
    if args.bf16:
        inner = run

        def run(*inputs):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return inner(*inputs).float()
    return torch, ref, config, model, run


def images(torch, args, config, n):
    x = torch.randn(n, 1, config.image_size, config.image_size)
    return x.contiguous(memory_format=torch.channels_last) if args.format == "channels_last" else x


def measure_train(args):
    """Noising, forward, backward, clipping, Adam and EMA: images per second. (sdlora's preset mnist trains by Muon, which
    takes longer than Adam.)"""
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
    for step in range(args.warmup + args.steps):
        if step > args.warmup and sum(seconds[args.warmup:]) > args.budget:
            break
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
    """DDIM without guidance, all images as one batch: seconds for 50 steps (scaled up where the budget allows fewer)."""
    torch, ref, config, model, run = build(args)
    diffusion = ref.Diffusion(config.schedule, config.timesteps, config.predict)
    model.eval()
    y = torch.arange(args.batch) % config.classes

    def draw(steps):
        begin = time.perf_counter()
        diffusion.sample(run, images(torch, args, config, args.batch), y, steps=steps, clip=config.clip)
        return time.perf_counter() - begin

    with torch.inference_mode():
        draw(2)
        one = draw(2) / 2
        steps = max(2, min(50, int(args.budget / args.repeats / one)))
        times = [draw(steps) for _ in range(args.repeats)]
    return {"seconds": statistics.median(times) * 50 / steps, "steps": steps}


def measure_start(args):
    """From nothing to a PNG of one image after one step; the caller times the process."""
    torch, ref, config, model, run = build(args)
    diffusion = ref.Diffusion(config.schedule, config.timesteps, config.predict)
    with torch.inference_mode():
        x = diffusion.sample(run.eval(), images(torch, args, config, 1), torch.tensor([5]), steps=1, clip=config.clip)
    make_png(args.png, ((x[0, 0].clamp(-1, 1) + 1) * 127.5).byte().tolist())
    return {}


# ---- both sides ----

class Failure(Exception):
    """A measurement that gave nothing, and why."""


def run_process(command, env=None, timeout=None, stop_after=None):
    """(stdout, stderr, seconds, peak resident MB) of a child. After stop_after seconds it gets SIGINT, which is no failure.

    A child's peak counts from the fork, so it is never below this process's own, about 20 MB: do not import torch here.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **(env or {})})
        stopped = late = False
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG if timeout or stop_after else 0)
            seconds = time.perf_counter() - begin
            if pid:
                break
            if stop_after and not stopped and seconds > stop_after:
                child.send_signal(signal.SIGINT)
                stopped = True
            if timeout and not late and seconds > timeout:
                child.kill()
                late = True
            time.sleep(0.0005 if seconds < 1 else 0.005)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = err.read()
        if late:
            raise Failure(f"not done after {timeout:.0f} s")
        if child.returncode != 0 and not stopped:
            lines = text.strip().splitlines() or ["nothing on stderr"]
            raise Failure(f"exit status {child.returncode}: {lines[-1]}")
        return out.read(), text, seconds, usage.ru_maxrss / 1024


class Torch:
    def __init__(self, label, env=(), fmt="contiguous", compiled=False, bf16=False):
        self.label, self.env = label + (", bf16" if bf16 else ""), dict(env)
        self.flags = ["--format", fmt] + (["--compile"] if compiled else []) + (["--bf16"] if bf16 else [])

    def measure(self, args, what, **options):
        command = [sys.executable, __file__, "measure", what, "--threads", str(args.threads), "--budget", str(args.budget),
                   "--png", str(args.work / "start.png"), *self.flags]
        for key, value in options.items():
            command += ["--" + key, str(value)]
        env = {**self.env, "OMP_NUM_THREADS": str(args.threads)}
        out, _, seconds, rss = run_process(command, env, args.timeout)
        return {"rss": rss, "wall": seconds, **json.loads(out.strip().splitlines()[-1])}

    def train(self, args, preset, batch, steps):
        return self.measure(args, "train", preset=preset, batch=batch, steps=steps)

    def sample(self, args, classes, each):
        """Only inside the process: the same number stands against the whole process of sdlora and against its drawing."""
        n = classes * each
        result = self.measure(args, "sample", batch=n, repeats=1 if n > 1 else REPEATS)
        return {**result, "drawing": result["seconds"]}

    def start(self, args):
        return self.measure(args, "start", batch=1)


class Sdlora:
    label = "sdlora"

    def train(self, args, preset, batch, steps):
        out = args.work / f"run-{preset}"
        command = [args.sdlora, "train", "--preset", preset, "--batch-size", str(batch), "--steps", str(steps + WARMUP),
                   "--out", str(out), "--data", str(args.data), "--threads", str(args.threads), "--val-images", "0",
                   "--sample-every", "0", "--log-every", "1", "--quiet", "--precision", args.precision]
        if out.exists():
            subprocess.run(["rm", "-rf", str(out)], check=True)
        _, _, seconds, rss = run_process(command, timeout=args.timeout, stop_after=args.budget + 2)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        rates = [line["images_per_s"] for line in lines if "images_per_s" in line]
        if not rates:
            raise Failure("no step within the budget")
        return {"images_per_s": statistics.median(rates[WARMUP:] or rates), "rss": rss, "wall": seconds}

    def draw(self, args, digits, each, steps):
        command = [args.sdlora, "sample", "--model", str(args.model), "--digit", digits, "-n", str(each), "--steps",
                   str(steps), "--cfg-scale", "1", "--threads", str(args.threads), "--progress", "none",
                   "--precision", args.precision, "-o", str(args.work / "sample.png")]
        _, text, seconds, rss = run_process(command, timeout=args.timeout)
        return {"seconds": seconds, "wall": seconds, "drawing": float(re.search(r"drawn in (\S+) s", text).group(1)),
                "rss": rss}

    def sample(self, args, classes, each):
        digits = "5" if classes == 1 else ",".join(map(str, range(classes)))
        results = [self.draw(args, digits, each, 50) for _ in range(1 if classes * each > 1 else REPEATS)]
        return {key: statistics.median(r[key] for r in results) for key in results[0]}

    def start(self, args):
        return self.draw(args, "5", 1, 1)


WARMUP, REPEATS = 2, 5


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
    """(version and libraries, has compile), asked of another process."""
    out, _, _, _ = run_process([sys.executable, "-c", "import torch; print(torch.__version__, hasattr(torch, 'compile'));"
                                "print(torch.__config__.show())"])
    version, compiles = out.splitlines()[0].split()
    blas = re.search(r"BLAS_INFO=(\w+)", out)
    dnnl = re.search(r"MKL-DNN v([\d.]+)|oneDNN v([\d.]+)", out)
    found = [f"BLAS {blas.group(1)}"] if blas else []
    found += [f"oneDNN {dnnl.group(1) or dnnl.group(2)}"] if dnnl else []
    return f"PyTorch {version}" + (f" ({', '.join(found)})" if found else ""), compiles == "True"


def contenders(compiles, precision):
    tuned = tuned_environment()
    found = [Torch("as it comes")]
    for bf16 in (False, True) if precision != "fp32" else (False,):
        found += [Torch("tuned", tuned, bf16=bf16), Torch("tuned, channels_last", tuned, "channels_last", bf16=bf16)]
        if compiles:
            found += [Torch("tuned, compiled", tuned, compiled=True, bf16=bf16),
                      Torch("tuned, channels_last, compiled", tuned, "channels_last", True, bf16)]
    return found


# Rows of the table: name of --only, title, function of a side, and of each result: title, key, unit, more is better.
def rows_of(args):
    steps = 3 if args.quick else 8
    return {
        "train": ("training, preset mnist, batch 128", lambda side: side.train(args, "mnist", 128, steps),
                  [("", "images_per_s", "images/s", True), (": peak memory", "rss", "MB", False)]),
        "train-seed": ("training, preset seed, batch 16", lambda side: side.train(args, "seed", 16, max(2, steps // 2)),
                       [("", "images_per_s", "images/s", True), (": peak memory", "rss", "MB", False)]),
        "sample": ("100 images, DDIM-50", lambda side: side.sample(args, 10, 10),
                   [("", "seconds", "s", False), (", sampling only", "drawing", "s", False),
                    (": peak memory", "rss", "MB", False)]),
        "latency": ("1 image, DDIM-50", lambda side: side.sample(args, 1, 1),
                    [("", "seconds", "s", False), (", sampling only", "drawing", "s", False)]),
        "start": ("1 image, 1 step, start to PNG", lambda side: side.start(args), [("", "wall", "s", False)]),
    }


OWN = ("scaling", "convs")  # tables of sdlora alone
SLOW = ("train-seed",)      # only when named


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def show(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_row(title, unit, higher, results):
    """Stock PyTorch, the best tuned one, sdlora, ratios (how many times better sdlora is)."""
    middle = {label: statistics.median(values) for label, values in results.items() if values}
    own, stock = middle.pop("sdlora"), middle.pop("as it comes", None)
    best = (max if higher else min)(middle, key=middle.get) if middle else None

    def pair(other):
        return ("failed", "") if other is None else (show(other), f"{own / other if higher else other / own:.1f}")

    (stock_text, stock_ratio), (best_text, best_ratio) = pair(stock), pair(middle.get(best))
    print(f"| {title} | {unit} | {stock_text} | {best_text} | **{show(own)}** | {stock_ratio} | {best_ratio} | "
          f"{best or ''} |", flush=True)


def cpu_name():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def measure_row(args, sides, title, function, wanted):
    """{key: {label: [one value a round]}}; a side that fails once is left out of the row."""
    results = {key: {side.label: [] for side in sides} for _, key, _, _ in wanted}
    failed = set()
    for r in range(args.rounds):
        for side in sides:
            if side.label in failed:
                continue
            try:
                result = function(side)
            except Failure as why:
                if side.label == "sdlora":
                    sys.exit(f"bench: {title}: sdlora: {why}")
                say(f"{title}: {side.label} left out: {why}")
                failed.add(side.label)
                for values in results.values():
                    values[side.label] = []
                continue
            for _, key, _, _ in wanted:
                results[key][side.label].append(result[key])
            values = "  ".join(f"{show(result[key])} {unit}" for _, key, unit, _ in wanted)
            fewer = f"  ({result['steps']} steps, scaled)" if result.get("steps", 50) < 50 else ""
            say(f"{title}, round {r + 1}, {side.label}: {values}{fewer}")
    return results


def compare_at(args, sides, names):
    print(f"\n{args.threads} thread{'s' if args.threads > 1 else ''}:\n")
    print("| | unit | PyTorch as it comes | PyTorch tuned | sdlora | x as it comes | x tuned | best tuned |")
    print("|---|---|---:|---:|---:|---:|---:|---|", flush=True)
    for name in names:
        title, function, wanted = rows_of(args)[name]
        results = measure_row(args, sides, title, function, wanted)
        for suffix, key, unit, higher in wanted:
            print_row(title + suffix, unit, higher, results[key])


def scaling(args):
    """Training images/s at one thread and at more, in turns."""
    counts = sorted({1, *args.thread_list})
    rates = {n: [] for n in counts}
    for r in range(args.rounds):
        for n in counts:
            args.threads = n
            rates[n].append(Sdlora().train(args, "mnist", 128, 3 if args.quick else 8)["images_per_s"])
            say(f"scaling, round {r + 1}, {n} threads: {show(rates[n][-1])} images/s")
    one = statistics.median(rates[1])
    print("\nsdlora, training, preset mnist, batch 128:\n\n| threads | images/s | x 1 thread |\n|---:|---:|---:|")
    for n in counts:
        middle = statistics.median(rates[n])
        print(f"| {n} | {show(middle)} | {middle / one:.2f} |", flush=True)


def convs(args):
    """Direct convolution's flops over time, within a training step, against the measured peak of multiply-adds."""
    print("\nsdlora, 3x3 convolutions in a training step, preset mnist, batch 128 (GFLOP/s of the direct algorithm):\n")
    print("| threads | peak of multiply-adds | while they run | share of peak | share of the step | over the whole step | "
          "share of peak |\n|---:|---:|---:|---:|---:|---:|---:|")
    for n in args.thread_list:
        command = [args.sdlora, "bench", "--preset", "mnist", "--threads", str(n), "--json", "--quiet", "--eval-size", "8",
                   "--runs", "3" if args.quick else "5", "--precision", args.precision]
        found = json.loads(run_process(command, timeout=args.timeout)[0])
        peak, step = found["peak_gflops"], found["train_step"]
        whole = step["conv_gflops"] * step["conv_share_of_time"]
        print(f"| {n} | {show(peak)} | {show(step['conv_gflops'])} | {step['conv_gflops'] / peak:.0%} | "
              f"{step['conv_share_of_time']:.0%} | {show(whole)} | {whole / peak:.0%} |", flush=True)


def make_model(args):
    """Any model of preset mnist: what it draws does not matter."""
    out = args.work / "run-model"
    run_process([args.sdlora, "train", "--preset", "mnist", "--steps", "1", "--batch-size", "8", "--out", str(out), "--data",
                 str(args.data), "--val-images", "0", "--sample-every", "0", "--quiet"], timeout=args.timeout)
    return out / "model.safetensors"


def header(args, facts):
    version, _, _, _ = run_process([args.sdlora, "--version"])
    load = os.getloadavg()[0]
    if load > 0.3:
        say(f"the machine is busy (load {load:.2f}): figures will be unreliable")
    print(f"{cpu_name()}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}; {facts}; "
          f"{version.splitlines()[0]}, {args.precision}; {date.today()}; medians of {args.rounds} interleaved "
          f"round{'s' if args.rounds > 1 else ''}{', quick' if args.quick else ''}.", flush=True)


def compare(args):
    torch_rows = [name for name in args.only if name not in OWN]
    facts, compiles = torch_facts() if torch_rows else ("", False)
    if args.quick:
        args.budget = min(args.budget, 8)
    args.timeout = args.timeout or 120 + 10 * args.budget
    header(args, facts or "PyTorch not measured")
    sides = contenders(compiles, args.precision)
    sides.insert(1, Sdlora())  # between the two that matter most
    with tempfile.TemporaryDirectory() as work:
        args.work = Path(work)
        args.model = make_model(args)
        for threads in args.thread_list if torch_rows else ():
            args.threads = threads
            compare_at(args, sides, torch_rows)
        if "scaling" in args.only:
            scaling(args)
        if "convs" in args.only:
            convs(args)


def numbers(text):
    found = [int(n) for n in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError("thread counts begin at 1")
    return found


def row_names(text):
    known = [*rows_of(argparse.Namespace(quick=False)), *OWN]
    names = [name for name in known if name not in SLOW] if text == "default" else known if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no row '{name}'; there are {', '.join(known)}, and all")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    c = commands.add_parser("compare")
    c.add_argument("--sdlora", default="./sdlora")
    c.add_argument("--data", type=Path, default=Path(__file__).resolve().parent.parent / "data" / "mnist")
    c.add_argument("--rounds", type=int, default=3)
    c.add_argument("--threads", dest="thread_list", default=str(os.cpu_count()), type=numbers,
                   help="one number or several: 1,2,4")
    c.add_argument("--only", default="default", type=row_names,
                   help="rows: train,train-seed,sample,latency,start,scaling,convs; all; default: all but train-seed")
    c.add_argument("--budget", type=float, default=60, help="seconds that one measurement may take, start-up apart")
    c.add_argument("--timeout", type=float, default=0, help="seconds after which a process is given up; 0: from the budget")
    c.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="fp32",
                   help="of sdlora's products; but for fp32 PyTorch runs in bf16, too")
    c.add_argument("--quick", action="store_true", help="fewer steps, a budget of 8 s: a first look in a few minutes")
    m = commands.add_parser("measure")
    m.add_argument("what", choices=("train", "sample", "start"))
    m.add_argument("--preset", default="mnist")
    m.add_argument("--batch", type=int, default=128)
    m.add_argument("--steps", type=int, default=8)
    m.add_argument("--warmup", type=int, default=WARMUP)
    m.add_argument("--repeats", type=int, default=1)
    m.add_argument("--budget", type=float, default=60)
    m.add_argument("--threads", type=int, default=os.cpu_count())
    m.add_argument("--format", choices=("contiguous", "channels_last"), default="contiguous")
    m.add_argument("--compile", action="store_true")
    m.add_argument("--bf16", action="store_true")
    m.add_argument("--png", default=os.devnull)
    args = parser.parse_args()
    if args.command == "measure":
        print(json.dumps({"train": measure_train, "sample": measure_sample, "start": measure_start}[args.what](args)))
        return
    try:
        compare(args)
    except Failure as why:
        sys.exit(f"bench: {why}")


if __name__ == "__main__":
    main()
