"""Writes the parity fixture of whole networks: what PyTorch computes in f64, forward and back.

Weights and images are not stored: both sides make them from their names by `uniform`, a hash that
any language computes alike. So a complete BN-Inception at several sizes and with several options
is checked by a file of some 70 kB, and the project's tests need no download.

For each case the file holds `eval_logits`, `train_logits`, `loss`, and for each gradient and each
running statistic after one step a row of nine numbers: its norm and its first eight values.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools/peers"))
from bn_inception import BnInception, max_pool_stride2  # noqa: E402

DEFAULT_OUTPUT = ROOT / "crates/engine/tests/fixtures/networks.safetensors"
HEAD = 8

# Each case: the options of the network, the batch, and label smoothing. The batches are such that no
# input of a ReLU lies so near to 0 that rounding in f32 puts it on the other side: one such value
# moves the gradients of all layers before it by some per cent.
CASES: dict[str, dict[str, object]] = {
    "plain": {"image_size": 64, "pool_proj_4c4d": 96, "batch": 4},
    "odd_biased_smoothed": {
        "image_size": 47, "pool_proj_4c4d": 128, "batch": 3, "conv_bias": True,
        "label_smoothing": 0.1,
    },
    "sigmoid": {"image_size": 33, "pool_proj_4c4d": 96, "batch": 4, "activation": "sigmoid"},
    "without_batch_norm": {
        "image_size": 32, "pool_proj_4c4d": 96, "batch": 3, "conv_bias": True,
        "batch_norm": False, "lrn": True,
    },
}  # fmt: skip
CLASSES = 10


class Variant(BnInception):
    """BN-Inception with the options of the Rust network that the peer does not have."""

    def __init__(self, case: dict[str, object]) -> None:
        super().__init__(CLASSES, int(case["pool_proj_4c4d"]), bool(case.get("conv_bias")))
        self.activation = torch.sigmoid if case.get("activation") == "sigmoid" else F.relu
        self.lrn = bool(case.get("lrn"))
        if not case.get("batch_norm", True):
            for name in [n for n, _ in self.named_children() if n.endswith("_bn")]:
                delattr(self, name)
            self.folded = True  # the convolutions stand alone

    def _conv(self, name: str, x: Tensor) -> Tensor:
        x = getattr(self, name)(x)
        if not self.folded:
            x = getattr(self, f"{name}_bn")(x)
        return self.activation(x)

    def _lrn(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0) if self.lrn else x

    def forward(self, x: Tensor) -> Tensor:
        x = self._lrn(max_pool_stride2(self._conv("conv1_7x7_s2", x)))
        x = self._lrn(self._conv("conv2_3x3", self._conv("conv2_3x3_reduce", x)))
        x = max_pool_stride2(x)
        for module in self.modules_table:
            x = self._module(module, x)
        return self.last_linear(x.mean(dim=(2, 3)))


def uniform(name: str, count: int) -> np.ndarray:
    """`count` values in [-1, 1) with 24 random bits each: splitmix64 of the FNV-1a hash of `name`
    plus a counter."""
    with np.errstate(over="ignore"):
        start = np.uint64(0xCBF29CE484222325)
        for byte in name.encode():
            start = (start ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        z = start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0


def fill(network: Variant) -> None:
    """Sets every tensor by its name; all values are exact in f32."""
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        values = uniform(name, tensor.numel())
        if tensor.dim() > 1:
            values = values * np.sqrt(6.0 / tensor[0].numel())
        elif name.endswith("_bn.weight") or name.endswith("running_var"):
            values = 1.0 + 0.5 * values
        else:
            values = 0.25 * values
        values = values.astype(np.float32).astype(np.float64)
        tensor.copy_(torch.from_numpy(values).reshape(tensor.shape))


def row(tensor: Tensor) -> Tensor:
    """The norm of a tensor and its first values."""
    return torch.cat([tensor.norm().reshape(1), tensor.flatten()[:HEAD]])


def run(case: dict[str, object]) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """All results of one case, and the names of the rows."""
    network = Variant(case).double()
    with torch.no_grad():
        fill(network)
    size, batch = int(case["image_size"]), int(case["batch"])
    images = 2.0 * uniform("images", batch * 3 * size * size)
    images = torch.from_numpy(images).reshape(batch, 3, size, size)
    labels = torch.arange(batch) * 3 % CLASSES

    network.eval()
    with torch.no_grad():
        eval_logits = network(images)
    network.train()
    train_logits = network(images)
    smoothing = float(case.get("label_smoothing", 0.0))
    loss = F.cross_entropy(train_logits, labels, label_smoothing=smoothing)
    loss.backward()

    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    statistics = {name: b for name, b in network.named_buffers() if "running" in name}
    tensors = {
        "eval_logits": eval_logits,
        "train_logits": train_logits.detach(),
        "loss": loss.detach().reshape(1),
        "gradients": torch.stack([row(tensor) for tensor in gradients.values()]),
    }
    if statistics:
        tensors["statistics"] = torch.stack([row(tensor) for tensor in statistics.values()])
    return tensors, {"gradients": list(gradients), "statistics": list(statistics)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    output = parser.parse_args().output
    tensors: dict[str, Tensor] = {}
    cases: dict[str, dict[str, object]] = {}
    for name, case in CASES.items():
        results, rows = run(case)
        tensors |= {f"{name}/{key}": tensor.contiguous() for key, tensor in results.items()}
        cases[name] = case | {"rows": rows}
        print(f"{name}: loss {results['loss'].item():.12f}")
    output.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"cases": json.dumps(cases, sort_keys=True), "torch": torch.__version__}
    save_file(tensors, output, metadata=metadata)
    output.chmod(0o644)
    print(f"{output}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
