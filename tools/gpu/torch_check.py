"""Compares networks that `bninception check-device networks --out` has written with PyTorch, as JSON lines.

The folder has a file for each number format and nonlinearity: images, labels and weights, and the logits and gradients
that the device made of them. PyTorch computes in f32; for tf32 and bf16 it says how far its own rounding leads, and the
device may lie twice as far from f32. Where that is as far as zeros are, as with gradients in bf16 behind ReLUs, nothing is
compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import tensors
from bn_inception import BnInception

# As in the check against the processor: a ReLU whose input lands on the other side of 0 moves a path of the gradient.
LIMITS = {
    "sigmoid": {"logits": 1e-3, "gradients": 1e-2},
    "relu": {"logits": 2e-3, "gradients": 1e-1},
}
# Zeros are 1 away from anything.
SAYS_NOTHING = 0.9


class SigmoidBnInception(BnInception):
    """The same network with the paper's other nonlinearity."""

    def _conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(getattr(self, f"{name}_bn")(getattr(self, name)(x)))


NETWORKS = {"sigmoid": SigmoidBnInception, "relu": BnInception}


def to_torch(tensor: tensors.Tensor) -> torch.Tensor:
    kind = torch.float32 if tensor.kind == "F32" else torch.int32
    return torch.frombuffer(bytearray(tensor.data), dtype=kind).reshape(tensor.shape)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    found, expected = found.double(), expected.double()
    return ((found - expected).norm() / expected.norm()).item()


def computed(
    found: dict[str, torch.Tensor], kind: type[BnInception], dtype: str, device: str
) -> dict[str, torch.Tensor]:
    """Logits with the given statistics, and gradients of the mean loss with those of the batch."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    network = kind(classes=found["logits"].shape[1])
    state = network.state_dict()
    state.update({name: found[name] for name in state if name in found})
    network.load_state_dict(state)
    network = network.to(device)
    images, labels = found["images"].to(device), found["labels"].long().to(device)
    reduced = contextlib.nullcontext()
    if dtype == "bf16":
        reduced = torch.autocast(device, dtype=torch.bfloat16)
    with torch.inference_mode(), reduced:
        logits = network.eval()(images).float().cpu()
    with reduced:
        loss = F.cross_entropy(network.train()(images).float(), labels)
    loss.backward()
    names = [name for name, _ in network.named_parameters()]
    parameters = dict(network.named_parameters())
    gradients = torch.cat([parameters[name].grad.float().cpu().flatten() for name in names])
    given = torch.cat([found[f"gradient.{name}"].flatten() for name in names])
    return {"logits": logits, "gradients": gradients, "given": given}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    holds = True
    for name, kind in NETWORKS.items():
        for dtype in ("f32", "tf32", "bf16"):
            path = options.folder / f"{dtype}-{name}.safetensors"
            found = {key: to_torch(tensor) for key, tensor in tensors.read(path).items()}
            exact = computed(found, kind, "f32", options.device)
            rounded = computed(found, kind, dtype, options.device)
            for what, given in (("logits", found["logits"]), ("gradients", exact["given"])):
                error = relative(given, exact[what])
                limit = LIMITS[name][what] + 2 * relative(rounded[what], exact[what])
                if limit < SAYS_NOTHING:
                    about = {"name": f"{what} of PyTorch, {name}", "dtype": dtype}
                    result = {**about, "error": error, "limit": limit, "holds": error <= limit}
                    holds &= result["holds"]
                    print(json.dumps(result), flush=True)
    if not holds:
        sys.exit("the device computes something else than PyTorch")


if __name__ == "__main__":
    main()
