"""Times PyTorch's training step or evaluation of BN-Inception on the CPU.

Prints one JSON object with the keys of `bninception bench model --json`. The images stand ready in
memory on both sides, so that the step alone is timed: forward, loss, backward and optimizer.
The allocator is a matter of the environment: see `compare.py`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from bn_inception import BnInception

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def build_network(kind: str, fold: bool) -> nn.Module:
    """The network of this project, if asked with batch norm folded into the convolutions, or the
    public port, which is wider and has biases before its batch norms."""
    if kind == "own":
        network = BnInception()
        return network.fold_batch_norm() if fold else network
    import pretrainedmodels

    return pretrainedmodels.bninception(pretrained=None)


def training_step(network: nn.Module, options: argparse.Namespace) -> Callable[[], None]:
    """One step of SGD with momentum on cross entropy."""
    images, labels = batch(options)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5, fused=True
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(options):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        if not torch.isfinite(loss):
            raise SystemExit(f"the loss is {loss.item()}: this is not a run to time")

    return step


def evaluation_step(network: nn.Module, options: argparse.Namespace) -> Callable[[], None]:
    """One batch of logits. A network cast to bf16 beforehand is no faster than autocast."""
    images, _ = batch(options)

    def step() -> None:
        with torch.inference_mode(), autocast(options):
            network(images)

    return step


def autocast(options: argparse.Namespace) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bf16")


def batch(options: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images in the layout asked for, and labels."""
    size = options.image_size
    images = torch.randn(options.batch_size, 3, size, size)
    labels = torch.randint(1000, (options.batch_size,))
    return images.to(memory_format=LAYOUTS[options.layout]), labels


def measure(options: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network = build_network(options.network, options.fold).train(options.mode == "train")
    network = network.to(memory_format=LAYOUTS[options.layout])
    if options.compile:
        network.compile()
    make_step = training_step if options.mode == "train" else evaluation_step
    step = make_step(network, options)
    for _ in range(options.warmup):
        step()
    seconds = []
    for _ in range(options.steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return {
        "mode": options.mode,
        "engine": f"torch {torch.__version__}",
        "device": "cpu",
        "dtype": options.dtype,
        "threads": options.threads,
        "batch_size": options.batch_size,
        "image_size": options.image_size,
        "step_seconds_median": median,
        "images_per_second": options.batch_size / median,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "step_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=["train", "eval"], default="train")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--layout", choices=LAYOUTS, default="channels_last")
    parser.add_argument("--network", choices=["own", "public"], default="own")
    parser.add_argument("--fold", action="store_true", help="fold batch norm (evaluation only)")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=5, help="timed steps; their median counts")
    options = parser.parse_args()
    if options.fold and (options.mode == "train" or options.network == "public"):
        parser.error("--fold needs --mode eval and --network own")
    print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
