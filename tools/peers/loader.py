"""Times this project's data loading beside torchvision's, alternately and in one run.

    python tools/peers/compare.py --setup                 once: the environment with PyTorch
    cargo build --release
    python tools/peers/loader.py --data-dir DIR           DIR/train/CLASS/*
    python tools/peers/loader.py --data-dir DIR --photos  the pictures enlarged to 12 megapixels

Both sides decode the same files, take a random crop, mirror half of them and normalise. Each
measurement is a process of its own; ratios are taken within a round, and their median counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from compare import ENVIRONMENT, HERE, OURS, ROOT, Contender, Samples, log, machine, ratio, row, speed

# Photographs have fine noise, which costs a decoder more than smooth enlarged pixels.
ENLARGE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
source, target, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
noise = np.random.default_rng(0)
files = sorted(p for p in (source / "train").rglob("*") if p.is_file())[:count]
for i, file in enumerate(files):
    image = Image.open(file).convert("RGB").resize((4000, 3000), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float32) + noise.normal(0, 4, (3000, 4000, 1))
    folder = target / "train" / "ab"[i % 2]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.jpg", quality=90)
"""


def compare(options: argparse.Namespace, data_dir: Path, images: int) -> str:
    ours = [str(options.ours), "bench", "data", "--json", "--set", "augment.colour=none"]
    ours += ["--set", "data.val_fraction=0.001", "-j", str(options.workers)]
    theirs = [str(options.python), str(HERE / "torch_loader.py"), "--workers", str(options.workers)]
    contenders = [Contender(OURS, ours), Contender("torchvision", theirs)]
    table = {contender.name: Samples() for contender in contenders}
    # Small batches, so that a handful of photos fills one.
    arguments = ["--data-dir", str(data_dir), "--images", str(images), "--batch-size", "8"]
    for round_number in range(1, options.rounds + 1):
        log(f"round {round_number} of {options.rounds}")
        for contender in contenders:
            table[contender.name].measure(contender, arguments)
    for samples in table.values():
        if samples.failure:
            sys.exit(samples.failure)
    mine, other = table[OURS], table["torchvision"]
    stages = {
        key: statistics.median(result["milliseconds"][key] for result in mine.results)
        for key in ("read", "decode", "augment")
    }
    lines = [
        "| workers | ours, img/s | torchvision, img/s | ratio | ours, ms in one thread |",
        "|---|---|---|---|---|",
        row(
            options.workers,
            speed(mine),
            speed(other),
            ratio(mine, other),
            ", ".join(f"{key} {value:.2f}" for key, value in stages.items()),
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--photos", action="store_true", help="enlarge 24 of the pictures first")
    parser.add_argument("-j", "--workers", type=int, default=cores)
    parser.add_argument("--images", type=int, help="timed images a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ours", type=Path, default=ROOT / "target/release/bninception")
    parser.add_argument("--python", type=Path, default=ENVIRONMENT / "bin/python")
    options = parser.parse_args()
    if not options.python.exists():
        sys.exit(f"no Python with PyTorch at {options.python}: run compare.py --setup first")
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        data_dir, images = options.data_dir, options.images or 2000
        if options.photos:
            log("enlarging 24 pictures to 4000 x 3000")
            command = [str(options.python), "-c", ENLARGE, str(data_dir), folder, "24"]
            subprocess.run(command, check=True)
            data_dir, images = Path(folder), options.images or 96
        report = compare(options, data_dir, images)
    print(
        f"{facts['processor']}, {images} images a round, median of {options.rounds} rounds, load "
        f"average {facts['load_average_at_start']:.1f} at the start\n\n{report}"
    )


if __name__ == "__main__":
    main()
