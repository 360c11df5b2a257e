#!/usr/bin/env python3
"""Judge generated digits with a classifier trained on the real ones. Needs PyTorch and numpy.

    scripts/judge.py train                     train the classifier once, into build/judge/cnn.pt
    scripts/judge.py score P [P...]            judge P-images-idx3-ubyte.gz and P-labels-idx1-ubyte.gz, as written by
                                               sdlora sample --format idx -o P

Conditional accuracy: the share of images that the classifier takes for the digit that was asked for. Fréchet distance:
between Gaussians fitted to the classifier's 128 features of the images and of the 10,000 real test images. Both depend on
this one classifier, so the same figures for real images are printed beside them: 10,000 training images against the test
set is the floor. Use 5,000 images or more: with few images the distance is too large.
"""
import argparse
import gzip
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parent.parent


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()

        def stage(cin, cout, size):
            return [nn.Conv2d(cin, cout, size, padding=size // 2), nn.BatchNorm2d(cout), nn.ReLU()]

        self.convs = nn.Sequential(*stage(1, 16, 3), nn.MaxPool2d(2), *stage(16, 32, 5), nn.MaxPool2d(2),
                                   *stage(32, 64, 3))
        self.hidden = nn.Linear(64 * 7 * 7, 128)
        self.output = nn.Linear(128, 10)

    def features(self, x):
        return F.relu(self.hidden(self.convs(x).flatten(1)))

    def forward(self, x):
        return self.output(F.dropout(self.features(x), 0.3, self.training))


def read_idx(path):
    """The array in an IDX file of bytes, gzipped or not."""
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    if raw[:3] != b"\0\0\x08":
        sys.exit(f"judge: '{path}' is not an IDX file of bytes")
    shape = np.frombuffer(raw, ">u4", raw[3], 4).astype(int)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def read_pair(prefix):
    pair = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        found = [p for p in (f"{prefix}-{kind}.gz", f"{prefix}-{kind}") if Path(p).exists()]
        if not found:
            sys.exit(f"judge: no '{prefix}-{kind}.gz'")
        pair.append(read_idx(found[0]))
    images, labels = pair
    if len(images) != len(labels) or images.shape[1:] != (28, 28):
        sys.exit(f"judge: '{prefix}': {images.shape} images and {len(labels)} labels; 28x28 is needed")
    return to_tensor(images), torch.from_numpy(labels.astype(np.int64))


def to_tensor(images):
    return torch.from_numpy(images.astype(np.float32))[:, None] / 255 * 2 - 1


def shift(x, generator):
    """Up to two pixels in each direction, the same for the whole batch."""
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return torch.roll(F.pad(x, (2, 2, 2, 2), value=-1.0), (dy, dx), (2, 3))[:, :, 2:-2, 2:-2]


def train(args):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    x, y = read_pair(args.data / "train")
    net = Classifier()
    steps = args.epochs * (len(x) // 128)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    begin = time.time()
    for epoch in range(args.epochs):
        net.train()
        for rows in torch.randperm(len(x), generator=generator)[: len(x) // 128 * 128].view(-1, 128):
            loss = F.cross_entropy(net(shift(x[rows], generator)), y[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{args.epochs}  {time.time() - begin:.0f} s", file=sys.stderr)
    args.weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), args.weights)


@torch.no_grad()
def look(net, x):
    """Features (N,128) in float64, and the classes that the net sees."""
    features, classes = [], []
    for part in x.split(500):
        f = net.features(part)
        features.append(f.double().numpy())
        classes.append(net.output(f).argmax(1))
    return np.concatenate(features), torch.cat(classes)


def frechet(a, b):
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of two sets of features (Dowson & Landau 1982)."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ cov_b @ root)
    distance = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b)
    return max(0.0, float(distance - 2 * np.sqrt(np.maximum(cross, 0)).sum()))


def report(name, features, seen, labels, real):
    right = (seen == labels).double()
    print(f"{name}: {len(labels)} images, conditional accuracy {100 * right.mean().item():.2f} %, "
          f"Fréchet distance {frechet(features, real):.2f}")
    per_class = [(c, 100 * right[labels == c].mean().item()) for c in sorted(set(labels.tolist()))]
    print("    per class, %: " + "  ".join(f"{c}: {p:.1f}" for c, p in per_class))


def score(args):
    if not args.weights.exists():
        train(args)
    net = Classifier()
    net.load_state_dict(torch.load(args.weights))
    net.eval()
    x, y = read_pair(args.data / "t10k")
    real, seen = look(net, x)
    report("real test set", real, seen, y, real)
    x, y = read_pair(args.data / "train")
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))[:10000]
    report("real training images (the floor)", *look(net, x[rows]), y[rows], real)
    for prefix in args.prefix:
        x, y = read_pair(prefix)
        report(prefix, *look(net, x), y, real)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "score"))
    parser.add_argument("prefix", nargs="*", help="P of P-images-idx3-ubyte.gz")
    parser.add_argument("--weights", type=Path, default=ROOT / "build" / "judge" / "cnn.pt")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "mnist", help="folder with the real digits")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_intermixed_args()
    torch.set_num_threads(args.threads)
    {"train": train, "score": score}[args.command](args)


if __name__ == "__main__":
    main()
