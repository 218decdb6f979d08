"""BN-Inception (Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167) in PyTorch.

The peer of the Rust network in checks and timings: the same layers, the same pooling rule and the
same parameter names as the public port in `pretrainedmodels`, in both widths of the pool
projection of modules 4c and 4d. Run as a script it checks itself against that port.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Module(NamedTuple):
    """One row of the paper's Figure 5: the widths of an Inception module's branches."""

    name: str
    conv_1x1: int  # 0: the module has no such branch and works at stride 2
    conv_3x3_reduce: int
    conv_3x3: int
    double_3x3_reduce: int
    double_3x3: int
    pool: str
    pool_proj: int  # 0: the pool passes its input through

    @property
    def stride(self) -> int:
        return 1 if self.conv_1x1 else 2


def modules(pool_proj_4c4d: int) -> list[Module]:
    """The ten modules. The paper prints 128 for the projection of 4c and 4d, and output channels
    that need 96; Google's own code has 96, the public weights have 128."""
    return [
        Module("3a", 64, 64, 64, 64, 96, "avg", 32),
        Module("3b", 64, 64, 96, 64, 96, "avg", 64),
        Module("3c", 0, 128, 160, 64, 96, "max", 0),
        Module("4a", 224, 64, 96, 96, 128, "avg", 128),
        Module("4b", 192, 96, 128, 96, 128, "avg", 128),
        Module("4c", 160, 128, 160, 128, 160, "avg", pool_proj_4c4d),
        Module("4d", 96, 128, 192, 160, 192, "avg", pool_proj_4c4d),
        Module("4e", 0, 128, 192, 192, 256, "max", 0),
        Module("5a", 352, 192, 320, 160, 224, "avg", 128),
        Module("5b", 352, 192, 320, 192, 224, "max", 128),
    ]


def max_pool_stride2(x: Tensor) -> Tensor:
    """3x3 max pool at stride 2 with ceil(n / 2) outputs: the padding is split evenly, the odd one
    goes right and below. For even sizes that is Caffe's ceil rule, for odd ones a padding of 1."""
    height, width = x.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        return F.max_pool2d(x, 3, stride=2, ceil_mode=True)
    padding = (width % 2, 1, height % 2, 1)
    return F.max_pool2d(F.pad(x, padding, value=float("-inf")), 3, stride=2)


class BnInception(nn.Module):
    """`[N, 3, S, S]` images to `[N, classes]` logits, for any S from 32 up."""

    def __init__(
        self, classes: int = 1000, pool_proj_4c4d: int = 96, conv_bias: bool = False
    ) -> None:
        super().__init__()
        self.conv_bias = conv_bias
        self.modules_table = modules(pool_proj_4c4d)
        self.folded = False
        self._add_conv("conv1_7x7_s2", 3, 64, kernel=7, stride=2)
        self._add_conv("conv2_3x3_reduce", 64, 64, kernel=1)
        self._add_conv("conv2_3x3", 64, 192, kernel=3)
        channels = 192
        for module in self.modules_table:
            channels = self._add_module(module, channels)
        self.last_linear = nn.Linear(channels, classes)

    def _add_conv(self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        padding = kernel // 2
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=self.conv_bias)
        self.add_module(name, conv)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1))

    def _add_module(self, module: Module, inputs: int) -> int:
        """Adds the module's convolutions in the order of the public port; returns its channels."""
        prefix = f"inception_{module.name}"
        if module.conv_1x1:
            self._add_conv(f"{prefix}_1x1", inputs, module.conv_1x1, kernel=1)
        self._add_conv(f"{prefix}_3x3_reduce", inputs, module.conv_3x3_reduce, kernel=1)
        self._add_conv(f"{prefix}_3x3", module.conv_3x3_reduce, module.conv_3x3, 3, module.stride)
        double = module.double_3x3
        self._add_conv(f"{prefix}_double_3x3_reduce", inputs, module.double_3x3_reduce, 1)
        self._add_conv(f"{prefix}_double_3x3_1", module.double_3x3_reduce, double, kernel=3)
        self._add_conv(f"{prefix}_double_3x3_2", double, double, 3, module.stride)
        if module.pool_proj:
            self._add_conv(f"{prefix}_pool_proj", inputs, module.pool_proj, kernel=1)
        return module.conv_1x1 + module.conv_3x3 + double + (module.pool_proj or inputs)

    def _conv(self, name: str, x: Tensor) -> Tensor:
        """Convolution, batch norm and ReLU."""
        x = getattr(self, name)(x)
        if not self.folded:
            x = getattr(self, f"{name}_bn")(x)
        return F.relu(x, inplace=True)

    def _module(self, module: Module, x: Tensor) -> Tensor:
        prefix = f"inception_{module.name}"
        branches = [self._conv(f"{prefix}_1x1", x)] if module.conv_1x1 else []
        branches.append(self._conv(f"{prefix}_3x3", self._conv(f"{prefix}_3x3_reduce", x)))
        double = self._conv(f"{prefix}_double_3x3_reduce", x)
        double = self._conv(f"{prefix}_double_3x3_1", double)
        branches.append(self._conv(f"{prefix}_double_3x3_2", double))
        if module.stride == 2:
            branches.append(max_pool_stride2(x))
        else:
            pool = F.avg_pool2d if module.pool == "avg" else F.max_pool2d
            branches.append(self._conv(f"{prefix}_pool_proj", pool(x, 3, stride=1, padding=1)))
        return torch.cat(branches, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = max_pool_stride2(self._conv("conv1_7x7_s2", x))
        x = self._conv("conv2_3x3", self._conv("conv2_3x3_reduce", x))
        x = max_pool_stride2(x)
        for module in self.modules_table:
            x = self._module(module, x)
        return self.last_linear(x.mean(dim=(2, 3)))

    def fold_batch_norm(self) -> BnInception:
        """Folds every batch norm into its convolution, for evaluation only; returns itself."""
        self.eval()
        for name, child in list(self.named_children()):
            if isinstance(child, nn.Conv2d):
                norm = getattr(self, f"{name}_bn")
                self.add_module(name, nn.utils.fuse_conv_bn_eval(child, norm))
                delattr(self, f"{name}_bn")
        self.folded = True
        return self


def count_macs(network: BnInception, image_size: int) -> int:
    """Multiply-adds of the convolutions and the classifier for one image."""
    macs = 0

    def count(layer: nn.Conv2d | nn.Linear, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        macs += output[0].numel() * layer.weight[0].numel()

    handles = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, image_size, image_size, device="meta"))
    for handle in handles:
        handle.remove()
    return macs


def check() -> None:
    """Checks names and results against `pretrainedmodels.bninception`, and the known counts."""
    import pretrainedmodels

    torch.manual_seed(0)
    public = pretrainedmodels.bninception(pretrained=None).eval()
    for layer in public.modules():  # fresh statistics would make batch norm the identity
        if isinstance(layer, nn.BatchNorm2d):
            ranges = {"running_mean": (-0.2, 0.2), "running_var": (0.1, 0.5)}
            ranges |= {"weight": (0.5, 1.5), "bias": (-0.2, 0.2)}
            for name, (low, high) in ranges.items():
                nn.init.uniform_(getattr(layer, name), low, high)
    network = BnInception(pool_proj_4c4d=128, conv_bias=True).eval()
    if list(network.state_dict()) != list(public.state_dict()):
        raise SystemExit("parameter names or their order differ from the public port")
    network.load_state_dict(public.state_dict())
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = public(images)
        error = ((network(images) - expected).abs().max() / expected.abs().max()).item()
        folded = network.fold_batch_norm()(images)
        folded_error = ((folded - expected).abs().max() / expected.abs().max()).item()
    if error > 1e-5 or folded_error > 1e-4:
        raise SystemExit(f"logits differ from the public port: {error:.1e}, {folded_error:.1e}")

    for pool_proj, bias, parameters, macs in [
        (96, False, 11_194_984, 2_018_851_840),
        (128, False, 11_285_224, 2_032_600_064),
        (128, True, 11_295_240, 2_032_600_064),
    ]:
        with torch.device("meta"):
            network = BnInception(pool_proj_4c4d=pool_proj, conv_bias=bias)
            found = sum(p.numel() for p in network.parameters()), count_macs(network, 224)
            if found != (parameters, macs):
                raise SystemExit(f"{pool_proj}: expected {parameters, macs}, found {found}")
            for size in (32, 33, 64, 75, 112, 299):
                network(torch.empty(2, 3, size, size))
    print(f"ok: relative error {error:.1e}, folded {folded_error:.1e}")


if __name__ == "__main__":
    check()
