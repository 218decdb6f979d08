"""Writes the fixtures of crates/data/tests: images of every kind, and what Pillow makes of them.

Run from the root of the repository:

    pip install pillow numpy torch torchvision
    python tools/reference/data_fixtures.py [PART...]

A part is a folder; without one all are written. colour and crop alone need torch.

decode/NAME.EXT           an image file
decode/NAME.expected.png  Pillow's `ImageOps.exif_transpose(image).convert("RGB")` of it, with the
                          exceptions that `expected_rgb` names
kinds/                    as decode/: what tags of TIFF, frames of GIF and metadata can say
refused/NAME.EXT          a file that is not read
refused/cases.txt         a line for each: name, tab, a part of the reason
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

import math
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from image_files import decode_fixtures, kinds_fixtures, picture, refused_fixtures, save_png

OUT = Path("crates/data/tests/fixtures")


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
    from torchvision.transforms import functional

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
    import torch
    from torchvision.transforms import RandomResizedCrop

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
    parts = {
        "decode": decode_fixtures,
        "kinds": kinds_fixtures,
        "refused": refused_fixtures,
        "resize": resize_fixtures,
        "eval": eval_fixtures,
        "colour": colour_fixtures,
        "crop": crop_fixtures,
    }
    for name in sys.argv[1:] or parts:
        write = parts[name]
        shutil.rmtree(OUT / name, ignore_errors=True)
        (OUT / name).mkdir(parents=True)
        write(OUT / name)


if __name__ == "__main__":
    main()
