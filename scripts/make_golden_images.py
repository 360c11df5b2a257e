#!/usr/bin/env python3
"""tests/golden/images: small pictures of every kind, and what Pillow makes of them (needs python3-pil, python3-numpy).

cases.tsv has a line for each case: file, how it is fitted ("whole": not at all), size, background, tolerance, and width,
height and channels of what comes out; pixels.bin has the pixels of all cases one after the other, (h,w,channels) for
"whole", else planes (channels,h,w).
Usage: scripts/make_golden_images.py [DIRECTORY]
"""
import os
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps

DIR = sys.argv[1] if len(sys.argv) > 1 else "tests/golden/images"
WHITE, GREEN = (255, 255, 255), (10, 200, 30)
cases, pixels = [], []


def waves(w, h, n):
    y, x = np.mgrid[0:h, 0:w]
    planes = [127 + 100 * np.sin(x / (7 + c) + y / (11 - c)) + 20 * np.cos(x * y / (50 + 9 * c)) for c in range(n)]
    return np.clip(np.stack(planes, -1), 0, 255)


# ---- PNG files that Pillow does not write: 16 bits, few bits, interlaced ----

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def rows(values, depth):
    """values (h,w,n) of `depth` bits each, every row behind filter type 0"""
    out = b""
    for row in values:
        bits = "".join(format(int(v), "0%db" % depth) for v in row.ravel())
        bits += "0" * (-len(bits) % 8)
        out += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return out


def png(name, values, depth, colour, before=b"", interlaced=False):
    h, w = values.shape[:2]
    data = b""
    adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for x, y, dx, dy in adam7 if interlaced else [(0, 0, 1, 1)]:
        part = values[y::dy, x::dx]
        if part.size:
            data += rows(part, depth)
    head = struct.pack(">2I5B", w, h, depth, colour, 0, 0, int(interlaced))
    with open(path(name), "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(data)) +
                chunk(b"IEND", b""))


# ---- what is expected ----

def path(name):
    return os.path.join(DIR, name)


def composed(im, background):
    """RGB or grey, what is transparent on the background"""
    grey = im.mode in ("1", "L", "LA", "I;16", "I")
    if im.mode.startswith("I"):  # 16 bits: the high byte, as Pillow has it for colours
        return Image.fromarray((np.array(im).astype(np.uint32) >> 8).astype(np.uint8))
    if "A" in im.mode or "transparency" in im.info:
        if not (grey and len(set(background)) == 1):
            grey = False
        im = im.convert("RGBA")
        ground = Image.new("RGB", im.size, background)
        ground.paste(im.convert("RGB"), mask=im.getchannel("A"))
        im = ground
    return im.convert("L" if grey else "RGB")


def fitted(im, fit, size, background):
    w, h = im.size
    if fit == "stretch":
        return im.resize((size, size), Image.BILINEAR)
    if fit == "pad":
        colour = Image.new("RGB", (1, 1), background).convert(im.mode).getpixel((0, 0))
        return ImageOps.pad(im, (size, size), method=Image.BILINEAR, color=colour)
    new = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)  # torchvision's Resize, CenterCrop
    left, top = int(round((new[0] - size) / 2)), int(round((new[1] - size) / 2))
    return im.resize(new, Image.BILINEAR).crop((left, top, left + size, top + size))


def case(name, tolerance, background=WHITE, expected=None):
    im = expected or composed(ImageOps.exif_transpose(Image.open(path(name))), background)
    add(name, "whole", 0, background, tolerance, im.size, np.array(im))


def fit_case(name, fit, size, mode, tolerance=0, background=WHITE):
    im = fitted(composed(Image.open(path(name)), background).convert(mode), fit, size, background)
    a = np.array(im).reshape(size, size, -1)
    add(name, fit, size, background, tolerance, im.size, a.transpose(2, 0, 1), a.shape[2])


def add(name, fit, size, background, tolerance, shape, a, channels=None):
    w, h = shape
    channels = channels or (1 if a.ndim == 2 else a.shape[2])
    cases.append("\t".join(map(str, [name, fit, size, "%d,%d,%d" % background, tolerance, w, h, channels])))
    pixels.append(a.astype(np.uint8).tobytes())


# ---- the pictures ----

def main():
    os.makedirs(DIR, exist_ok=True)
    colour = waves(45, 37, 3)
    rgb = Image.fromarray(colour.astype(np.uint8))
    grey = rgb.convert("L")
    alpha = Image.fromarray(waves(45, 37, 4)[..., 3].astype(np.uint8))
    table = rgb.quantize(17)

    def save(name, im, tolerance=0, background=WHITE, **how):
        im.save(path(name), **how)
        case(name, tolerance, background)

    # PNG
    save("rgb.png", rgb)
    save("grey.png", grey)
    save("bits1.png", grey.convert("1"))
    save("palette.png", table)
    save("palette_clear.png", table, 0, GREEN, transparency=bytes([0, 255, 128, 7]))
    save("rgba.png", Image.merge("RGBA", rgb.split() + (alpha,)), 0, GREEN)
    clear = Image.merge("LA", (grey, alpha))
    save("grey_alpha.png", clear, 0, (77, 77, 77))
    case("grey_alpha.png", 0, GREEN)
    png("bits2.png", np.array(grey)[..., None] >> 6, 2, 0)
    png("bits4.png", np.array(grey)[..., None] >> 4, 4, 0)
    for name in "bits2.png", "bits4.png":
        case(name, 0)
    deep = (colour * 257).astype(np.uint16)
    png("deep.png", deep[:9, :11], 16, 2)
    png("deep_grey.png", deep[:9, :11, :1], 16, 0)
    png("deep_alpha.png", np.dstack([deep, deep[..., 2]])[:9, :11], 16, 6)
    for name in "deep.png", "deep_grey.png":
        case(name, 0)
    case("deep_alpha.png", 0, GREEN)
    png("key.png", colour[:9, :11].astype(np.uint8), 8, 2, chunk(b"tRNS", struct.pack(">3H", *map(int, colour[3, 4]))))
    case("key.png", 0, GREEN)
    for name, values, depth, kind in (("interlaced.png", colour[:19, :21].astype(np.uint8), 8, 2),
                                      ("interlaced_deep.png", np.dstack([deep, deep[..., 1]])[:5, :3], 16, 6),
                                      ("interlaced_bits1.png", np.array(grey)[:19, :21, None] >> 7, 1, 0)):
        png(name, values, depth, kind, interlaced=True)
        case(name, 0)
    png("one.png", colour[:1, :1].astype(np.uint8), 8, 2)
    case("one.png", 0)

    # JPEG: each decoder rounds in its own way; of 4:2:2 stb_image weighs the last pixels but one the wrong way round
    for s, kind in enumerate(("444", "422", "420")):
        save("rgb%s.jpg" % kind, rgb.crop((0, 0, 44, 37)), 3 if s != 1 else 16, quality=90, subsampling=s)
    save("progressive.jpg", rgb, 3, quality=90, progressive=True, subsampling=0)
    save("grey.jpg", grey, 1, quality=90)
    cmyk = Image.fromarray(waves(45, 37, 4).astype(np.uint8), "CMYK")
    save("cmyk.jpg", cmyk, 1, quality=90)
    with open(path("cmyk.jpg"), "rb") as f:
        data = f.read()
    adobe = data.index(b"\xff\xee")
    with open(path("cmyk_plain.jpg"), "wb") as f:
        f.write(data[:adobe] + data[adobe + 16:])
    case("cmyk_plain.jpg", 1)
    for o in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = o
        save("turned%d.jpg" % o, grey.crop((0, 0, 16, 11)), 1, quality=90, exif=exif)
        save("turned%d.png" % o, rgb.crop((0, 0, 6, 4)), exif=exif)
    with open(path("turned6.jpg"), "rb") as f:  # in the other byte order
        data = f.read()
    at = data.index(b"Exif\0\0") + 6
    order, mark = (">", b"MM") if data[at:at + 2] == b"II" else ("<", b"II")
    block = mark + struct.pack(order + "HIH", 42, 8, 1) + struct.pack(order + "HHIHHI", 0x112, 3, 1, 6, 0, 0)
    length = struct.pack(">H", 2 + 6 + len(block))
    end = data.index(b"\xff\xdb")
    with open(path("turned6_other.jpg"), "wb") as f:
        f.write(data[:at - 8] + length + b"Exif\0\0" + block + data[end:])
    case("turned6_other.jpg", 1)

    # BMP, GIF
    save("rgb.bmp", rgb.crop((0, 0, 11, 9)))
    for name, im in ("grey.bmp", grey), ("bits1.bmp", grey.convert("1")):  # BMP knows palettes, not grey
        im.crop((0, 0, 11, 9)).save(path(name))
        case(name, 0, expected=im.crop((0, 0, 11, 9)).convert("RGB"))
    save("palette.gif", table)
    save("palette_clear.gif", table, 0, GREEN, transparency=2)
    table.save(path("many.gif"), save_all=True, append_images=[table.transpose(Image.FLIP_LEFT_RIGHT)])
    case("many.gif", 0)

    # fitted
    for fit in "crop", "pad", "stretch":
        for size in 8, 13, 37, 60:
            for mode in "L", "RGB":
                fit_case("rgb.png", fit, size, mode, 0, GREEN)
        fit_case("grey.png", fit, 16, "RGB", 0, GREEN)
        fit_case("turned1.png", fit, 5, "RGB", 0, GREEN)
        fit_case("rgb420.jpg", fit, 12, "RGB", 1)
    with open(path("cases.tsv"), "w") as f:
        f.write("\n".join(cases) + "\n")
    with open(path("pixels.bin"), "wb") as f:
        f.write(b"".join(pixels))


main()
