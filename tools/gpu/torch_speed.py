"""Times PyTorch's training step and evaluation of BN-Inception, as JSON lines with the keys of `bench model --json`.

Images are bytes in pinned memory, copied and normalised in each step, as this program does. On a GPU with
cudnn.benchmark, channels last and a fused optimizer; `graph` captures a whole step as a CUDA graph, `compile` uses
torch.compile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from bn_inception import BnInception

CLASSES = 1000
WARM_UP = 5
REPEATS = 3
MEAN, STD = 0.45, 0.225  # any will do


class Bench:
    """One network on one batch."""

    def __init__(self, options: argparse.Namespace, mode: str, dtype: str, batch: int) -> None:
        self.on_gpu = options.device == "cuda"
        self.device, self.mode, self.dtype = options.device, mode, dtype
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype != "f32"
        network = BnInception(CLASSES).to(self.device, memory_format=torch.channels_last)
        self.network = network.train(mode == "train")
        shape = (batch, 3, options.image_size, options.image_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8)
        images = images.to(memory_format=torch.channels_last)
        labels = torch.arange(batch) * 7 % CLASSES
        self.given = (images.pin_memory(), labels.pin_memory()) if self.on_gpu else (images, labels)
        self.images, self.labels = images.to(self.device), labels.to(self.device)
        self.optimizer = torch.optim.SGD(
            network.parameters(), lr=1e-3, momentum=0.9, weight_decay=4e-5, fused=True
        )
        self.run = self.network

    def bring(self) -> None:
        """Copies the batch to the device."""
        self.images.copy_(self.given[0], non_blocking=True)
        self.labels.copy_(self.given[1], non_blocking=True)

    def compute(self) -> torch.Tensor:
        """A step on the batch that was brought; its loss or its logits."""
        images = (self.images.float() * (1 / 255) - MEAN) / STD
        reduced: contextlib.AbstractContextManager = contextlib.nullcontext()
        if self.dtype == "bf16":
            reduced = torch.autocast(self.device, dtype=torch.bfloat16, cache_enabled=False)
        if self.mode == "eval":
            with torch.no_grad(), reduced:
                return self.run(images)
        self.optimizer.zero_grad(set_to_none=True)
        with reduced:
            loss = F.cross_entropy(self.run(images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def eager(self) -> Callable[[], torch.Tensor]:
        def step() -> torch.Tensor:
            self.bring()
            return self.compute()

        return step

    def compile(self) -> Callable[[], torch.Tensor]:
        self.run = torch.compile(self.network)
        return self.eager()

    def graph(self) -> Callable[[], torch.Tensor]:
        # As https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture shows.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.bring()
                self.compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.compute()

        def step() -> torch.Tensor:
            self.bring()
            graph.replay()
            return result

        return step

    def synchronise(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, step: Callable[[], torch.Tensor], seconds: float) -> list[float]:
        """Mean seconds of a step in several repeats of at least so many seconds."""
        for _ in range(WARM_UP if self.on_gpu else 1):
            result = step()
        self.synchronise()
        begin = time.perf_counter()
        step()
        self.synchronise()
        n = max(1, round(seconds / REPEATS / (time.perf_counter() - begin)))
        means = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            for _ in range(n):
                result = step()
            self.synchronise()
            means.append((time.perf_counter() - begin) / n)
        if not torch.isfinite(result).all():
            raise SystemExit("a number is not finite: this is not a run to time")
        return means


def measure(options: argparse.Namespace, way: str, mode: str, dtype: str, batch: int) -> dict:
    on_gpu = options.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    bench = Bench(options, mode, dtype, batch)
    step = getattr(bench, way)()
    means = bench.seconds(step, options.seconds)
    median = statistics.median(means)
    return {
        "mode": mode,
        "engine": f"torch {torch.__version__}",
        "way": way,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "batch_size": batch,
        "image_size": options.image_size,
        "step_seconds_median": median,
        "step_seconds": means,
        "images_per_second": batch / median,
        "peak_device_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "seconds_with_setting_up": time.perf_counter() - begin,
    }


def words(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--modes", type=words, default=["train", "eval"])
    parser.add_argument("--dtypes", type=words, default=["bf16"])
    parser.add_argument("--ways", type=words, default=["eager"])
    parser.add_argument("--batches", type=words, default=["256"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed steps for each line")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    for mode in options.modes:
        for dtype in options.dtypes:
            for way in options.ways:
                for batch in map(int, options.batches):
                    try:
                        print(json.dumps(measure(options, way, mode, dtype, batch)), flush=True)
                    except torch.cuda.OutOfMemoryError:
                        print(json.dumps({"mode": mode, "way": way, "batch_size": batch, "error": "memory"}))


if __name__ == "__main__":
    main()
