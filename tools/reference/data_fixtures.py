"""Writes the fixtures of crates/data/tests: images of every kind, and what Pillow makes of them.

Run from the root of the repository:

    pip install pillow numpy torch torchvision
    python tools/reference/data_fixtures.py

decode/NAME.EXT           an image file
decode/NAME.expected.png  Pillow's `ImageOps.exif_transpose(image).convert("RGB")` of it, with the
                          exceptions that `expected_rgb` names
resize/source.png         an image; resize/CASE.png are regions of it resized by Pillow
resize/cases.txt          a line for each: name, edge, filter, size, left, top, width, height
eval/NAME.png, cases.txt  torchvision's `Resize` and `CenterCrop` of it, by Pillow: name, size, ratio
colour/source.png         an image; colour/CASE.png are torchvision's distortions of it
colour/cases.txt          a line for each: name, then operations and amounts in their order
crop/deciles.txt          of 200,000 crops of torchvision's `RandomResizedCrop`: width and height of
                          the image, what is measured, its nine deciles

The files made are deterministic for one version of Pillow; those in the tree are from Pillow 13.0.0
with libjpeg-turbo 3.2.0.
"""

import io
import math
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torchvision.transforms import RandomResizedCrop, functional

OUT = Path("crates/data/tests/fixtures")


def picture(width, height, seed=0):
    """A picture with smooth parts, edges, fine texture and saturated colours."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = x / width, y / height
    planes = [
        0.5 + 0.45 * np.sin(6.3 * (x * rng.uniform(0.5, 2) + y * rng.uniform(-1, 1)) + rng.uniform(0, 6))
        for _ in range(3)
    ]
    rgb = np.stack(planes, axis=-1) * 255 + rng.normal(0, 6, (height, width, 3))
    image = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        r = rng.uniform(0.05, 0.2) * min(width, height)
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def expected_rgb(image):
    """Pillow's RGB, but 16-bit grey by its high byte: Pillow clips at 255."""
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(np.repeat(grey[..., None], 3, axis=-1))
    return image.convert("RGB")


def save_png(image, path):
    image.save(path, optimize=True)


def png16(array, colour_type, path):
    """Pillow writes no 16-bit RGB; a PNG of one IDAT is little work."""
    import struct
    import zlib

    height, width = array.shape[:2]
    rows = array.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    )


def interlaced_png(image, path):
    """An RGB PNG with Adam7 interlacing, which Pillow reads and does not write."""
    import struct
    import zlib

    array = np.asarray(image)
    height, width = array.shape[:2]
    raw = b""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        for row in array[y0::dy, x0::dx]:
            if len(row):
                raw += b"\0" + row.tobytes()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    )


def ycck_jpeg(image, path):
    """The CMYK JPEG with the samples of a YCCK one: the Adobe marker's transform says 2, not 0.

    The colours are not those of `image`; that they are decoded alike is what counts.
    """
    buffer = io.BytesIO()
    image.convert("CMYK").save(buffer, "JPEG", quality=90)
    data = bytearray(buffer.getvalue())
    at = data.index(b"Adobe")
    data[at + 11] = 2
    path.write_bytes(bytes(data))


def decode_fixtures(out):
    base = picture(61, 47)
    alpha = Image.fromarray((np.mgrid[0:47, 0:61][1] * 4).astype(np.uint8))
    rgba = base.copy()
    rgba.putalpha(alpha)
    la = base.convert("LA")
    la.putalpha(alpha)
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 65536, (19, 23, 4))

    base.save(out / "rgb_444.jpg", quality=92, subsampling=0)
    base.save(out / "rgb_422.jpg", quality=92, subsampling=1)
    base.save(out / "rgb_420.jpg", quality=92, subsampling=2)
    base.save(out / "progressive.jpg", quality=92, progressive=True)
    base.save(out / "restart.jpg", quality=92, restart_marker_rows=1)
    base.convert("L").save(out / "grey.jpg", quality=92)
    base.convert("CMYK").save(out / "cmyk.jpg", quality=92)
    ycck_jpeg(base, out / "ycck.jpg")
    small = picture(40, 24, seed=2)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        small.save(out / f"exif_{orientation}.jpg", quality=92, subsampling=0, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    small.save(out / "exif_6.png", exif=exif)
    small.save(out / "exif_6.webp", exif=exif, lossless=True)
    small.save(out / "exif_6.tiff", tiffinfo={0x0112: 6})

    base.save(out / "rgb.png")
    rgba.save(out / "rgba.png")
    la.save(out / "grey_alpha.png")
    base.convert("L").save(out / "grey.png")
    base.convert("1").save(out / "one_bit.png")
    interlaced_png(base, out / "interlaced.png")
    palette = base.quantize(32)
    palette.save(out / "palette.png")
    palette.save(out / "palette_transparency.png", transparency=3)
    base.quantize(4).save(out / "palette_2_bits.png", bits=2)
    png16(wide[..., :1], 0, out / "grey_16.png")
    png16(wide[..., :2], 4, out / "grey_alpha_16.png")
    png16(wide[..., :3], 2, out / "rgb_16.png")
    png16(wide, 6, out / "rgba_16.png")

    frames = [picture(61, 47, seed=s).quantize(64) for s in (0, 5, 6)]
    frames[0].save(out / "animated.gif", save_all=True, append_images=frames[1:], duration=50)
    palette.save(out / "transparent.gif", transparency=5)
    base.save(out / "rgb.bmp")
    palette.save(out / "palette.bmp")
    base.convert("1").save(out / "one_bit.bmp")
    base.save(out / "lossless.webp", lossless=True)
    base.save(out / "lossy.webp", quality=90)
    rgba.save(out / "lossy_alpha.webp", quality=90)
    base.save(out / "rgb.tiff")
    base.save(out / "lzw.tiff", compression="tiff_lzw")
    base.save(out / "deflate.tiff", compression="tiff_adobe_deflate")
    base.convert("L").save(out / "grey.tiff", compression="tiff_lzw")
    base.convert("CMYK").save(out / "cmyk.tiff", compression="tiff_lzw")
    base.convert("1").save(out / "fax.tiff", compression="group4")

    for path in sorted(out.iterdir()):
        with Image.open(path) as image:
            save_png(expected_rgb(image), out / f"{path.name}.expected.png")


def resize_fixtures(out):
    source = picture(151, 113, seed=3)
    save_png(source, out / "source.png")
    filters = {
        "nearest": Image.Resampling.NEAREST,
        "area": Image.Resampling.BOX,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
    }
    regions = {"whole": (0, 0, 151, 113), "part": (31, 17, 77, 91), "tiny": (100, 50, 9, 7)}
    # Odd sides of target and regions: then no centre of a source pixel lies on the border of a
    # target pixel or the other way round, where the last bit of a float would decide.
    size = 41
    lines = []
    for filter_name, resample in filters.items():
        for region_name, (left, top, width, height) in regions.items():
            name = f"{filter_name}_{region_name}"
            cut = source.crop((left, top, left + width, top + height))
            save_png(cut.resize((size, size), resample), out / f"{name}.png")
            lines.append(f"{name} cut {filter_name} {size} {left} {top} {width} {height}")
    for filter_name in ("bilinear", "bicubic"):
        box = (20.3, 11.7, 20.3 + 95.25, 11.7 + 80.5)
        name = f"{filter_name}_continue"
        save_png(source.resize((size, size), filters[filter_name], box=box), out / f"{name}.png")
        lines.append(f"{name} continue {filter_name} {size} 20.3 11.7 95.25 80.5")
    (out / "cases.txt").write_text("\n".join(lines) + "\n")


def eval_fixtures(out):
    """torchvision's arithmetic (transforms.functional: `_compute_resized_output_size`,
    `center_crop`) with Pillow's resize, which is what torchvision calls for Pillow images."""
    lines = []
    cases = [(150, 113, 64, 0.875), (113, 150, 64, 0.875), (64, 64, 56, 0.875), (50, 199, 32, 1.0), (30, 21, 48, 0.8)]
    for i, (width, height, size, ratio) in enumerate(cases):
        source = picture(width, height, seed=10 + i)
        save_png(source, out / f"{i}.source.png")
        short = math.floor(size / ratio)
        if width <= height:
            new_width, new_height = short, int(short * height / width)
        else:
            new_width, new_height = int(short * width / height), short
        resized = source.resize((new_width, new_height), Image.Resampling.BILINEAR)
        top = int(round((new_height - size) / 2.0))
        left = int(round((new_width - size) / 2.0))
        save_png(resized.crop((left, top, left + size, top + size)), out / f"{i}.png")
        lines.append(f"{i} {size} {ratio}")
    (out / "cases.txt").write_text("\n".join(lines) + "\n")


def colour_fixtures(out):
    """torchvision's functional operations on tensors: chains on floats, single ones on bytes."""
    source = picture(24, 20, seed=4)
    save_png(source, out / "source.png")
    operations = {
        "brightness": functional.adjust_brightness,
        "contrast": functional.adjust_contrast,
        "saturation": functional.adjust_saturation,
        "hue": functional.adjust_hue,
    }
    chains = {
        "all_a": [("brightness", 0.9), ("contrast", 1.4), ("saturation", 1.3), ("hue", 0.15)],
        "all_b": [("hue", 0.15), ("saturation", 1.3), ("contrast", 1.4), ("brightness", 0.9)],
        "all_c": [("contrast", 0.6), ("hue", -0.18), ("brightness", 1.12), ("saturation", 0.7)],
        "all_d": [("saturation", 0.7), ("brightness", 1.12), ("hue", -0.18), ("contrast", 0.6)],
    }
    amounts = {
        "brightness": (1 - 32 / 255, 1 + 32 / 255),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-0.2, 0.2),
    }
    lines = []
    for name, chain in chains.items():
        x = functional.to_tensor(source)
        for operation, amount in chain:
            x = operations[operation](x, amount)
        levels = np.round(x.numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        save_png(Image.fromarray(levels), out / f"{name}.png")
        lines.append(" ".join([name, *(f"{operation} {amount}" for operation, amount in chain)]))
    for operation, pair in amounts.items():
        for i, amount in enumerate(pair):
            name = f"{operation}_{i}"
            levels = operations[operation](functional.pil_to_tensor(source), amount)
            save_png(functional.to_pil_image(levels), out / f"{name}.png")
            lines.append(f"{name} {operation} {amount}")
    (out / "cases.txt").write_text("\n".join(lines) + "\n")


def crop_fixtures(out):
    """Deciles of torchvision's random crops: left, top, width and height, and their correlation."""
    torch.manual_seed(0)
    n = 200_000
    lines = []
    for width, height in [(500, 375), (300, 400), (640, 200)]:
        # Only the sizes of the image count.
        image = torch.zeros(1, height, width)
        draws = [RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(n)]
        top, left, crop_height, crop_width = np.array(draws, dtype=np.float64).T
        for name, values in [
            ("left", left), ("top", top), ("width", crop_width), ("height", crop_height),
            ("area", crop_width * crop_height),
        ]:  # fmt: skip
            deciles = np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf")
            lines.append(f"{width} {height} {name} " + " ".join(f"{v:.0f}" for v in deciles))
    (out / "deciles.txt").write_text("\n".join(lines) + "\n")


def main():
    if OUT.exists():
        shutil.rmtree(OUT)
    for name, write in [
        ("decode", decode_fixtures),
        ("resize", resize_fixtures),
        ("eval", eval_fixtures),
        ("colour", colour_fixtures),
        ("crop", crop_fixtures),
    ]:
        (OUT / name).mkdir(parents=True)
        write(OUT / name)


if __name__ == "__main__":
    main()
