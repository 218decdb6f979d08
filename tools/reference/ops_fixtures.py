"""Writes the parity fixtures of the network's operations: what PyTorch computes, forward and back.

One safetensors file per family of operations. A case's tensors are named `<case>/<tensor>`; the
metadata key `cases` holds a JSON object from case name to the case's attributes. Every case holds
the inputs, the parameters, `output`, a random upstream gradient `grad_output`, and the gradient
of the input and of each parameter under `grad_<name>`.

Everything drawn is random, seeded by the case's name and exact in f32; PyTorch computes in f64 and
everything real is stored as F64. A test in f32 therefore starts from the very same numbers.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

DEFAULT_OUTPUT = Path(__file__).resolve().parents[2] / "crates/model/tests/fixtures"

Tensors = dict[str, Tensor]


class Family:
    """The cases of one file."""

    def __init__(self) -> None:
        self.tensors: Tensors = {}
        self.cases: dict[str, dict[str, object]] = {}

    def add(self, case: str, tensors: Tensors, **attributes: object) -> None:
        if case in self.cases:
            raise ValueError(f"two cases are named {case}")
        self.cases[case] = attributes
        for name, tensor in tensors.items():
            self.tensors[f"{case}/{name}"] = tensor.detach().contiguous().clone()

    def save(self, path: Path) -> None:
        save_file(self.tensors, path, metadata={"cases": json.dumps(self.cases, sort_keys=True)})
        path.chmod(0o644)  # the writer makes files that only their owner can read


def seed(case: str) -> None:
    """Seeds the draws of one case, so that adding a case changes no other."""
    torch.manual_seed(zlib.crc32(case.encode()))


def normal(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
    """Normal values that are exact in f32, held as f64."""
    return (torch.randn(shape, dtype=torch.float64) * scale + mean).float().double()


def uniform(*shape: int, low: float, high: float) -> Tensor:
    """Uniform values that are exact in f32, held as f64."""
    return (torch.rand(shape, dtype=torch.float64) * (high - low) + low).float().double()


def with_gradients(inputs: Tensors, operation: Callable[..., Tensor]) -> Tensors:
    """The inputs, the operation's output, a random upstream gradient and the inputs' gradients."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    output = operation(**leaves)
    grad_output = normal(*output.shape)
    gradients = torch.autograd.grad(output, list(leaves.values()), grad_output)
    named = {f"grad_{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {**inputs, "output": output, "grad_output": grad_output, **named}


def size_name(height: int, width: int) -> str:
    return f"{height}x{width}"


def max_pool(x: Tensor, stride: int) -> Tensor:
    """3x3 max pool with ceil(n / stride) outputs. The padding that this takes is split evenly, the
    odd one goes right and below, and a padded place never wins."""
    padding = []
    for size in reversed(x.shape[-2:]):
        outputs = -(-size // stride)
        total = (outputs - 1) * stride + 3 - size
        padding += [total // 2, total - total // 2]
    return F.max_pool2d(F.pad(x, padding, value=float("-inf")), 3, stride=stride)


def check_max_pool_rule(x: Tensor, stride: int) -> None:
    """The rule in PyTorch's own options, where these can say it: Caffe's ceil rule for even sizes,
    a padding of 1 for odd sizes and for stride 1."""
    parities = {size % 2 for size in x.shape[-2:]}
    if stride == 1 or parities == {1}:
        own = F.max_pool2d(x, 3, stride=stride, padding=1)
    elif parities == {0}:
        own = F.max_pool2d(x, 3, stride=stride, ceil_mode=True)
    else:
        return
    if not torch.equal(own, max_pool(x, stride)):
        raise AssertionError(f"the pooling rule differs from PyTorch at {tuple(x.shape)}")


def max_pools() -> Family:
    family = Family()
    sizes = [(8, 8), (7, 7), (7, 6), (6, 7), (5, 5), (2, 2), (1, 1)]
    for stride in (1, 2):
        for values in ("distinct", "ties"):
            for height, width in sizes:
                case = f"s{stride}_{size_name(height, width)}" + "_ties" * (values == "ties")
                seed(case)
                if values == "distinct":
                    x = normal(2, 2, height, width)
                else:  # three values: nearly every window has equal maxima; some are negative
                    x = torch.randint(-2, 1, (2, 2, height, width)).double()
                check_max_pool_rule(x, stride)
                tensors = with_gradients({"input": x}, lambda input: max_pool(input, stride))
                family.add(case, tensors, kernel=3, stride=stride)
    return family


def average_pools() -> Family:
    """3x3 average at stride 1; the padding counts: every window divides by 9."""
    family = Family()
    for height, width in [(8, 8), (7, 5), (2, 2), (1, 1)]:
        case = f"s1_{size_name(height, width)}"
        seed(case)
        tensors = with_gradients(
            {"input": normal(2, 3, height, width)},
            lambda input: F.avg_pool2d(input, 3, stride=1, padding=1, count_include_pad=True),
        )
        family.add(case, tensors, kernel=3, stride=1, padding=1, count_include_pad=True)
    for height, width in [(7, 7), (2, 3), (1, 1)]:
        case = f"global_{size_name(height, width)}"
        seed(case)
        tensors = with_gradients(
            {"input": normal(2, 4, height, width)}, lambda input: input.mean(dim=(2, 3))
        )
        family.add(case, tensors)
    return family


def local_response_norms() -> Family:
    """Across channels: x / (k + alpha / size * sum of squares over `size` channels) ** beta.
    PyTorch and Caffe divide alpha by the size; TensorFlow does not. The sum runs over the channels
    that exist, the division is by `size` at the borders too."""
    family = Family()
    for case, channels, alpha, scale in [
        ("paper", 8, 1e-4, 300.0),  # alpha / size * sum of squares is about 9
        ("few_channels", 3, 1e-4, 300.0),
        ("alpha_1", 7, 1.0, 2.0),
    ]:
        seed(case)
        x = normal(2, channels, 4, 3, scale=scale)
        tensors = with_gradients(
            {"input": x}, lambda input: F.local_response_norm(input, 5, alpha, beta=0.75, k=1.0)
        )
        if not (tensors["output"].abs() < 0.9 * x.abs()).any():
            raise AssertionError(f"{case}: the normaliser does not matter")
        family.add(case, tensors, size=5, alpha=alpha, beta=0.75, k=1.0)
    return family


def batch_norms() -> Family:
    """In training mode: biased batch variance to normalise, unbiased into the running variance. In
    evaluation mode the running statistics normalise and stay as they are."""
    family = Family()
    activations = {"none": lambda y: y, "relu": F.relu, "sigmoid": torch.sigmoid}
    for mode, eps, activation in [
        ("train", 1e-5, "none"),
        ("train", 1e-3, "none"),
        ("train", 1e-5, "relu"),
        ("train", 1e-3, "sigmoid"),
        ("eval", 1e-5, "none"),
        ("eval", 1e-3, "relu"),
    ]:
        case = f"{mode}_eps{eps:.0e}_{activation}".replace("e-0", "e-")
        seed(case)
        channels = 4
        # From tiny variances, where epsilon shows, to means far from zero.
        deviations = torch.tensor([0.02, 0.5, 3.0, 1.0], dtype=torch.float64).view(1, -1, 1, 1)
        means = torch.tensor([0.0, -1.0, 2.0, 20.0], dtype=torch.float64).view(1, -1, 1, 1)
        x = (normal(4, channels, 5, 4) * deviations + means).float().double()
        before = {
            "running_mean": normal(channels),
            "running_var": uniform(channels, low=0.5, high=2.0),
        }
        after = {name: tensor.clone() for name, tensor in before.items()}

        def operation(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            y = F.batch_norm(
                input,
                after["running_mean"],
                after["running_var"],
                weight,
                bias,
                training=mode == "train",
                momentum=0.1,
                eps=eps,
            )
            return activations[activation](y)

        inputs = {"input": x, "weight": normal(channels, mean=0.5), "bias": normal(channels)}
        tensors = with_gradients(inputs, operation) | before
        tensors |= {f"{name}_after": tensor for name, tensor in after.items()}
        family.add(case, tensors, mode=mode, eps=eps, momentum=0.1, activation=activation)
    return family


def convolutions() -> Family:
    family = Family()
    for kernel, stride, inputs, outputs, height, width, bias in [
        (1, 1, 5, 4, 4, 3, False),
        (1, 1, 5, 4, 1, 1, True),
        (3, 1, 3, 4, 5, 6, False),
        (3, 1, 3, 4, 7, 7, True),
        (3, 1, 3, 2, 1, 1, False),
        (3, 2, 3, 4, 6, 6, False),
        (3, 2, 3, 4, 7, 6, True),
        (3, 2, 3, 4, 5, 5, False),
        (3, 2, 2, 3, 2, 2, False),
        (7, 2, 3, 2, 10, 10, False),
        (7, 2, 3, 2, 9, 8, True),
        (7, 2, 3, 2, 11, 7, False),
    ]:
        size = size_name(height, width)
        case = f"k{kernel}_s{stride}_{size}" + "_bias" * bias
        seed(case)
        tensors = {
            "input": normal(2, inputs, height, width),
            "weight": normal(outputs, inputs, kernel, kernel, scale=(inputs * kernel**2) ** -0.5),
        }
        if bias:
            tensors["bias"] = normal(outputs)
        padding = kernel // 2

        def operation(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return F.conv2d(input, weight, bias, stride=stride, padding=padding)

        tensors = with_gradients(tensors, operation)
        family.add(case, tensors, kernel=kernel, stride=stride, padding=padding, bias=bias)
    return family


def classifiers() -> Family:
    """The linear layer, and softmax cross entropy averaged over the batch. Label smoothing mixes
    the target with the uniform distribution over all classes: (1 - s) * one_hot + s / classes."""
    family = Family()
    seed("linear")
    tensors = {"input": normal(4, 6), "weight": normal(5, 6), "bias": normal(5)}
    family.add("linear", with_gradients(tensors, F.linear))

    for case, smoothing, scale in [
        ("cross_entropy", 0.0, 2.0),
        ("cross_entropy_smoothing", 0.1, 2.0),
        ("cross_entropy_large_logits", 0.1, 200.0),  # exp of these overflows f32
    ]:
        seed(case)
        classes = 7
        labels = torch.randint(classes, (5,))
        tensors = with_gradients(
            {"logits": normal(5, classes, scale=scale)},
            lambda logits: F.cross_entropy(logits, labels, label_smoothing=smoothing),
        )
        family.add(case, tensors | {"labels": labels}, label_smoothing=smoothing)
    return family


def sgd_steps() -> Family:
    """Three steps of SGD with given gradients and a learning rate that changes: the rate scales the
    step, not the momentum buffer, which starts as the first gradient. Weight decay is added to the
    gradient. Row i of `gradients`, `parameters` and `momentum_buffers` belongs to step i; the last
    two are taken after the step."""
    family = Family()
    learning_rates = [0.1, 0.05, 0.2]
    for case, momentum, weight_decay, nesterov in [
        ("plain", 0.0, 0.0, False),
        ("momentum", 0.9, 0.0, False),
        ("momentum_decay", 0.9, 0.01, False),
        ("nesterov", 0.9, 0.0, True),
        ("nesterov_decay", 0.9, 0.01, True),
    ]:
        seed(case)
        initial = normal(6)
        gradients = normal(len(learning_rates), 6)
        parameter = initial.clone().requires_grad_()
        optimizer = torch.optim.SGD(
            [parameter],
            lr=learning_rates[0],
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )
        parameters, buffers = [], []
        for learning_rate, gradient in zip(learning_rates, gradients, strict=True):
            optimizer.param_groups[0]["lr"] = learning_rate
            parameter.grad = gradient.clone()
            optimizer.step()
            parameters.append(parameter.detach().clone())
            if momentum:
                buffers.append(optimizer.state[parameter]["momentum_buffer"].clone())
        tensors = {
            "initial": initial,
            "gradients": gradients,
            "parameters": torch.stack(parameters),
        }
        if momentum:
            tensors["momentum_buffers"] = torch.stack(buffers)
        family.add(
            case,
            tensors,
            learning_rates=learning_rates,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )
    return family


FAMILIES: dict[str, Callable[[], Family]] = {
    "max_pool": max_pools,
    "avg_pool": average_pools,
    "lrn": local_response_norms,
    "batch_norm": batch_norms,
    "conv2d": convolutions,
    "classifier": classifiers,
    "sgd": sgd_steps,
}


def readme(files: dict[str, Family]) -> str:
    """The note beside the fixtures: where they come from and what each file holds."""
    lines = [
        "# Parity fixtures",
        "",
        "What PyTorch computes for each operation, forward and back. Do not edit: written by",
        "",
        "```",
        "python tools/reference/ops_fixtures.py",
        "```",
        "",
        f"with PyTorch {torch.__version__.split('+')[0]}. The script says how values are drawn and",
        "which conventions each operation follows. A case's tensors are named `<case>/<tensor>`;",
        "the metadata key `cases` holds a JSON object from case name to the case's attributes.",
        "",
        "| file | cases | tensors of a case |",
        "|---|---|---|",
    ]
    for name, family in files.items():
        cases = ", ".join(f"`{case}`" for case in family.cases)
        tensors = ", ".join(
            f"`{t}`" for t in dict.fromkeys(k.split("/")[1] for k in family.tensors)
        )
        lines.append(f"| `{name}.safetensors` | {cases} | {tensors} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write (default: %(default)s)"
    )
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums in one order, so that the files repeat bit for bit
    files = {name: make() for name, make in FAMILIES.items()}
    for name, family in files.items():
        family.save(output / f"{name}.safetensors")
    (output / "README.md").write_text(readme(files))


if __name__ == "__main__":
    main()
