"""Times torchvision's ImageFolder and DataLoader: decode, random crop, mirror, normalise.

Prints one JSON object with the keys of `bninception bench data --json`. The first epochs fill the
page cache and start the workers; the timed images come from workers that run already.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=2000, help="timed images")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the workers do the work
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(options.image_size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    dataset = ImageFolder(options.data_dir + "/train", transform)
    warmup = len(dataset) + options.workers * 2 * options.batch_size
    n = warmup + options.images
    sampler = RandomSampler(dataset, replacement=True, num_samples=n)
    loader = DataLoader(dataset, options.batch_size, sampler=sampler, num_workers=options.workers)
    made, timed, start = 0, 0, 0.0
    for images, _ in loader:
        made += len(images)
        if start:
            timed += len(images)
        elif made >= warmup:
            start = time.perf_counter()
    rate = timed / (time.perf_counter() - start)
    print(
        json.dumps({"images": timed, "images_per_second": rate, "workers": options.workers})
    )


if __name__ == "__main__":
    main()
