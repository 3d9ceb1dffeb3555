"""What turns a photo into feature maps: our own compact CNN, or a timm or open_clip model with a local weights file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_models.errors import ModelError

COMPACT = "compact"


class Backbone(nn.Module):
    """Photos [N, 3, H, W] in 0..1 -> feature maps [N, C_i, H_i, W_i], finest first; `channels` are their C_i.

    `pretrained` networks keep the statistics of their batch norms while they are trained.
    """

    channels: list[int]
    pretrained = False

    def forward(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def train(self, mode: bool = True) -> Backbone:
        return super().train(mode and not self.pretrained)


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1:
            self.skip = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class Compact(Backbone):
    """A small residual CNN, from random weights."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, width, 4, 4, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList(
            [
                nn.Sequential(stem, ResidualBlock(width, width, 1)),
                ResidualBlock(width, 2 * width, 2),
                ResidualBlock(2 * width, 4 * width, 2),
                ResidualBlock(4 * width, 6 * width, 2),
            ]
        )
        self.channels = [4 * width, 6 * width]

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = x * 4 - 2, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-len(self.channels) :]


class Timm(Backbone):
    """A timm model's maps of its later stages: the first ones see texture, which the statistics see too."""

    pretrained = True
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: Path | None) -> None:
        super().__init__()
        timm = _import("timm")
        try:
            self.model = timm.create_model(name, pretrained=False)
        except Exception as error:  # timm's own kinds, of which some are private
            raise ModelError(f"timm has no model {name!r}: {error}; `timm.list_models()` names them") from None
        if weights:
            _load(self.model, weights)
        self.pretrained = weights is not None
        config = self.model.pretrained_cfg
        self.size = tuple(config["input_size"][1:]) if config.get("fixed_input_size") else None
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        self.model.reset_classifier(0)
        self.staged = hasattr(self.model, "conv_stem") and hasattr(self.model, "conv_head")
        with torch.no_grad():
            self.channels = [found.shape[1] for found in self.eval()(torch.zeros(1, 3, *(self.size or (64, 64))))]

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.size and tuple(x.shape[2:]) != self.size:
            x = F.interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        x = (x - self.mean) / self.std
        if not self.staged:
            maps: list[Tensor] = self.model.forward_intermediates(x, intermediates_only=True)
            return maps[len(maps) // 2 :]
        # The EfficientNet family: timm hands out only the stages at which the resolution changes.
        x = self.model.bn1(self.model.conv_stem(x))
        stages = []
        for block in self.model.blocks:
            x = block(x)
            stages.append(x)
        return [*stages[len(stages) // 2 :], self.model.bn2(self.model.conv_head(x))]


class OpenClip(Backbone):
    """The image tower of an open_clip model; its embedding is taken as one map of one pixel."""

    pretrained = True
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: Path | None) -> None:
        super().__init__()
        open_clip = _import("open_clip")
        try:
            model = open_clip.create_model(name, pretrained=None)
        except Exception as error:
            raise ModelError(
                f"open_clip has no model {name!r}: {error}; `open_clip.list_models()` names them"
            ) from None
        if weights:
            _load(model, weights)
        self.pretrained = weights is not None
        self.model = model.visual
        size = self.model.image_size
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.channels = [self.model.output_dim]
        self.register_buffer(
            "mean", torch.tensor(self.model.image_mean or open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
        )
        self.register_buffer("std", torch.tensor(self.model.image_std or open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        return [self.model((x - self.mean) / self.std)[:, :, None, None]]


def build(name: str, weights: Path | None = None) -> Backbone:
    """Return `compact`, `timm/NAME` or `open_clip/NAME`, with the weights of a file where one is given.

    Raises:
        ModelError: no such model, its library is not installed, or the file does not fit it.
    """
    library, _, model = name.partition("/")
    if name == COMPACT:
        compact = Compact()
        if weights:
            _load(compact, weights)
        return compact
    if library == "timm" and model:
        return Timm(model, weights)
    if library == "open_clip" and model:
        return OpenClip(model, weights)
    raise ModelError(f"backbone {name!r}: must be compact, timm/NAME or open_clip/NAME")


def _import(library: str) -> Any:
    try:
        return __import__(library)
    except ImportError as error:
        raise ModelError(f"backbone: {error}; pip install {library}") from None


def _load(model: nn.Module, path: Path) -> None:
    """Load weights by name; or, where another library named them, by order, if every shape fits."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Mapping[str, Any] = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"cannot read weights {str(path)!r}: {error}") from None
    for wrapper in ("state_dict", "model", "backbone"):
        found = found.get(wrapper, found)
    wanted = model.state_dict()
    if found.keys() == wanted.keys():
        model.load_state_dict(found)
        return
    shapes = [tuple(v.shape) for v in found.values()], [tuple(v.shape) for v in wanted.values()]
    if shapes[0] != shapes[1]:
        raise ModelError(f"weights {str(path)!r} are of another model: {len(shapes[0])} tensors for {len(shapes[1])}")
    model.load_state_dict(dict(zip(wanted, found.values(), strict=True)))
