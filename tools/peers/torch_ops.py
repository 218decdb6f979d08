"""Times PyTorch's convolutions of BN-Inception on the CPU, one by one and in each direction.

Prints one JSON object as `bninception bench ops --json` does: `{"ops": [{"name", "direction",
"seconds_median", "gflops"}]}`. An operation bears the name of the first layer with its shape;
directions are `forward`, `backward_input` and `backward_weight`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bn_inception import BnInception


class Shape(NamedTuple):
    """What decides the cost of a convolution; the maps are square."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    size: int

    def flops(self, batch_size: int) -> int:
        pixels = ((self.size - 1) // self.stride + 1) ** 2
        return 2 * batch_size * pixels * self.outputs * self.inputs * self.kernel**2


def network_shapes(image_size: int) -> dict[Shape, str]:
    """Each convolution shape of the network and the first layer that has it, in network order."""
    shapes: dict[Shape, str] = {}
    with torch.device("meta"):
        network = BnInception().eval()
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d):

                def record(
                    layer: nn.Conv2d, inputs: tuple[Tensor, ...], _: Tensor, name: str = name
                ) -> None:
                    shape = Shape(
                        layer.in_channels,
                        layer.out_channels,
                        layer.kernel_size[0],
                        layer.stride[0],
                        inputs[0].shape[-1],
                    )
                    shapes.setdefault(shape, name)

                layer.register_forward_hook(record)
        network(torch.empty(1, 3, image_size, image_size))
    return shapes


def directions(
    shape: Shape, batch_size: int, dtype: torch.dtype
) -> dict[str, Callable[[], object]]:
    """The shape's three passes, channels last."""

    def random(*size: int) -> Tensor:
        return torch.randn(size).to(dtype).to(memory_format=torch.channels_last)

    stride, padding = shape.stride, shape.kernel // 2
    x = random(batch_size, shape.inputs, shape.size, shape.size)
    weight = random(shape.outputs, shape.inputs, shape.kernel, shape.kernel)
    grad = random(*F.conv2d(x, weight, stride=stride, padding=padding).shape)

    def backward(mask: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, mask
        )

    passes: dict[str, Callable[[], object]] = {
        "forward": lambda: F.conv2d(x, weight, stride=stride, padding=padding),
        "backward_input": lambda: backward([True, False, False]),
        "backward_weight": lambda: backward([False, True, False]),
    }
    if shape.inputs == 3:
        del passes["backward_input"]  # nobody asks for the gradient of the image
    return passes


def median_seconds(operation: Callable[[], object], warmup: int, repeats: int) -> float:
    for _ in range(warmup):
        operation()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        operation()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--warmup", type=int, default=2, help="calls before the timed ones")
    parser.add_argument("--repeats", type=int, default=9, help="timed calls; their median counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    ops = []
    with torch.inference_mode():
        for shape, name in network_shapes(options.image_size).items():
            passes = directions(shape, options.batch_size, dtype)
            for direction, operation in passes.items():
                seconds = median_seconds(operation, options.warmup, options.repeats)
                ops.append(
                    {
                        "name": name,
                        "direction": direction,
                        "shape": shape._asdict(),
                        "seconds_median": seconds,
                        "gflops": shape.flops(options.batch_size) / seconds / 1e9,
                    }
                )
    print(json.dumps({"ops": ops}))


if __name__ == "__main__":
    main()
