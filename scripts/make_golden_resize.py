#!/usr/bin/env python3
"""tests/golden/resize.bin: grey images and what Pillow's bilinear resize makes of them (needs python3-pil).

Each case: int32 h, w, oh, ow (little-endian), h*w input bytes, oh*ow output bytes.
Usage: scripts/make_golden_resize.py [OUTPUT]
"""
import random
import struct
import sys

from PIL import Image

SIZES = [  # h, w, oh, ow
    (28, 28, 48, 48), (28, 28, 48, 48), (28, 28, 32, 32), (48, 48, 28, 28), (28, 28, 28, 48), (28, 28, 48, 28),
    (28, 28, 28, 28), (13, 7, 20, 5), (1, 1, 3, 4), (50, 3, 7, 9), (5, 64, 3, 3), (2, 2, 31, 17),
]


def picture(rng, kind, h, w):
    if kind == 0:  # noise
        return bytes(rng.randrange(256) for _ in range(h * w))
    # strokes: mostly black or white with soft edges, as digits are
    px = [0] * (h * w)
    for _ in range(3):
        y, x = rng.random() * h, rng.random() * w
        for _ in range(2 * max(h, w)):
            y, x = y + rng.uniform(-1, 1), x + rng.uniform(-1, 1)
            for j in range(h):
                for i in range(w):
                    v = 255 * max(0.0, 1.5 - ((j - y) ** 2 + (i - x) ** 2) ** 0.5)
                    px[j * w + i] = max(px[j * w + i], min(255, int(v)))
    return bytes(px)


def main():
    rng = random.Random(48)
    out = open(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/resize.bin", "wb")
    for k, (h, w, oh, ow) in enumerate(SIZES):
        px = picture(rng, k % 2, h, w)
        done = Image.frombytes("L", (w, h), px).resize((ow, oh), Image.BILINEAR)
        out.write(struct.pack("<4i", h, w, oh, ow) + px + done.tobytes())


main()
