"""Trains a network from labelled photos: see `image-score train --help`.

First by gradient descent, for `epochs` (none for a frozen backbone): checkpoints that resume exactly, early stopping on
photos kept apart, TensorBoard logs. Then, with `head: kernel`, a kernel machine is fitted on the features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from triton_models import kernel_fit, metrics
from triton_models.backbone import COMPACT, build
from triton_models.data import Data, put_flaws, to_input, vary
from triton_models.errors import ModelError
from triton_models.losses import label_loss, pair_loss
from triton_models.network import KernelHead, Network, outputs

_FEATURE_BATCH = 64


@dataclass(frozen=True)
class Config:
    """How to train. Kept in the checkpoint: a run resumes only with the very same one."""

    backbone: str = COMPACT
    weights: str = ""
    head: Literal["linear", "kernel"] = "linear"
    height: int = 256
    width: int = 192
    epochs: int = 28
    batch: int = 48
    rate: float = 2e-3
    class_loss: str = "focal"
    pair_weight: float = 1.0
    flawed_share: float = 0.35
    patience: int = 8
    landmarks: int = 1536
    seed: int = 0
    amp: bool = False


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_network(config: Config) -> Network:
    """Return an untrained network.

    Raises:
        ModelError: the backbone is not there, or its weights do not fit.
    """
    torch.manual_seed(config.seed)
    backbone = build(config.backbone, Path(config.weights) if config.weights else None)
    return Network(backbone, (config.height, config.width))


class Training:
    """Gradient descent over `data`; `validation` says when to stop; `folder` gets checkpoint and TensorBoard logs."""

    def __init__(self, config: Config, network: Network, data: Data, validation: Data, folder: Path) -> None:
        self.config, self.data, self.validation, self.folder = config, data, validation, folder
        self.device = device()
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.average = torch.optim.swa_utils.AveragedModel(self.network, avg_fn=_moving_average, use_buffers=True)
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        vectors = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.rate)
        self.steps = max(1, len(data.targets) // config.batch)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.rate, max(2, config.epochs * self.steps), pct_start=0.15
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp and self.device.type == "cuda")
        self.epoch, self.best, self.best_epoch = 0, -math.inf, 0
        self.best_state: dict[str, Tensor] = {}

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def run(self, on_epoch: Callable[[int, float], None] = lambda epoch, srcc: None) -> Network:
        """Train to the last epoch, or until `patience` epochs brought nothing; return the best network.

        Goes on from the checkpoint in `folder`, to the very same result.

        Raises:
            ModelError: the checkpoint is of another configuration, or training diverged.
        """
        from torch.utils.tensorboard import SummaryWriter

        torch.manual_seed(self.config.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.is_file():
            self._load()
        with SummaryWriter(str(self.folder)) as log:
            while self.epoch < self.config.epochs and self.epoch - self.best_epoch < self.config.patience:
                value = self._train_epoch()
                srcc = self._validate()
                self.epoch += 1
                if srcc > self.best:
                    self.best, self.best_epoch = srcc, self.epoch
                    self.best_state = {k: v.cpu().clone() for k, v in self.average.module.state_dict().items()}
                log.add_scalar("loss", value, self.epoch)
                log.add_scalar("validation/SRCC", srcc, self.epoch)
                log.add_scalar("rate", self.schedule.get_last_lr()[0], self.epoch)
                self._save()
                on_epoch(self.epoch, srcc)
        self.network.load_state_dict(self.best_state)
        return self.network.cpu().eval()

    def _train_epoch(self) -> float:
        self.network.train()
        order, total = torch.randperm(len(self.data.targets)), 0.0
        for step in range(self.steps):
            batch = order[step * self.config.batch : (step + 1) * self.config.batch]
            x, targets = put_flaws(
                vary(to_input(self.data.photos[batch])), self.data.targets[batch], self.config.flawed_share
            )
            pairs = self._some_pairs()
            if pairs is not None:
                x = torch.cat([x, vary(to_input(self.data.photos[torch.cat(pairs[:2])]))])
            x = x.to(self.device, memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp):
                logits = self.network(x)
            loss = self._loss(logits.float(), targets.to(self.device), pairs)
            if not torch.isfinite(loss):
                raise ModelError(f"training diverged in epoch {self.epoch + 1}: lower --rate")
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()
            self.average.update_parameters(self.network)
            total += loss.item()
        return total / self.steps

    def _some_pairs(self) -> tuple[Tensor, Tensor, Tensor] | None:
        if not len(self.data.better) or not self.config.pair_weight:
            return None
        rows = torch.randint(len(self.data.better), (max(1, self.config.batch // 4),))
        return self.data.better[rows], self.data.worse[rows], self.data.weights[rows]

    def _loss(self, logits: Tensor, targets: Tensor, pairs: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        loss = label_loss(logits[: len(targets)], targets, self.config.class_loss)
        if pairs is None:
            return loss
        better, worse = logits[len(targets) :].chunk(2)
        return loss + self.config.pair_weight * pair_loss(better, worse, pairs[2].to(self.device))

    def _validate(self) -> float:
        found = scores(self.average.module.eval(), self.validation.photos[: len(self.validation.targets)])
        value = metrics.srcc(found, self.validation.targets[:, 31].numpy())
        return -1.0 if math.isnan(value) else value

    def _save(self) -> None:
        state = {
            "config": asdict(self.config),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "progress": (self.epoch, self.best, self.best_epoch, self.best_state),
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if state["config"] != asdict(self.config):
            raise ModelError(f"{self.checkpoint} is of another configuration: give another --out, or remove it")
        for name in ("network", "average", "optimizer", "schedule", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        torch.set_rng_state(state["random"].cpu())
        self.epoch, self.best, self.best_epoch, self.best_state = state["progress"]


def _moving_average(average: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
    """An exponential moving average, which forgets the random start sooner than it forgets later weights."""
    return average + (new - average) * max(0.01, 9 / (10 + int(count)))


def features(
    network: Network, photos: Tensor, change: Callable[[Tensor], Tensor] = lambda x: x
) -> tuple[Tensor, Tensor]:
    """Return deep features [N, D] and statistics [N, K] of photos [N, 256, 192, 3], each batch changed first."""
    where = device()
    network = network.to(where).eval()
    parts = []
    with torch.no_grad():
        for batch in track(photos.split(_FEATURE_BATCH), "features", transient=True):
            deep, stats = network.features(change(to_input(batch)).to(where))
            parts.append((deep.cpu(), stats.cpu()))
    network.cpu()
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def fit_kernel_head(config: Config, network: Network, data: Data) -> None:
    """Replace the head by a kernel machine on the network's features of photos, mirrored ones, and flawed ones."""
    torch.manual_seed(config.seed)
    count = len(data.targets)
    plain = features(network, data.photos)
    views, targets = [plain, features(network, data.photos[:count], lambda x: x.flip(3))], [data.targets, data.targets]
    if config.flawed_share:
        chosen = torch.nonzero(torch.rand(count) < config.flawed_share).flatten()
        flawed, made = put_flaws(to_input(data.photos[chosen]), data.targets[chosen], 1.0)
        pixels = (flawed.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
        views.append(features(network, pixels))
        targets.append(made)
    deep, stats = (torch.cat([view[i] for view in views]) for i in (0, 1))
    rows = torch.cat([torch.arange(count), torch.arange(len(plain[0]), len(deep))])
    wanted = torch.cat(targets)
    head = KernelHead(network.deep_size, network.stats_size, min(config.landmarks, len(rows)))

    def loss(logits: Tensor) -> Tensor:
        value = label_loss(logits[rows], wanted, config.class_loss)
        if not len(data.better) or not config.pair_weight:
            return value
        return value + config.pair_weight * pair_loss(logits[data.better], logits[data.worse], data.weights)

    kernel_fit.fit(head, deep, stats, wanted, loss, config.seed)
    network.head = head


def train(
    config: Config,
    data: Data,
    validation: Data,
    folder: Path,
    on_epoch: Callable[[int, float], None] = lambda epoch, srcc: None,
    backbone: dict[str, Tensor] | None = None,
) -> Network:
    """Return a trained network, which starts from the state of a `backbone` where one is given (pretrain.py).

    `folder` gets its checkpoint and network.pt.

    Raises:
        ModelError: as `make_network` and `Training.run`.
    """
    network = make_network(config)
    if backbone:
        network.backbone.load_state_dict(backbone)
    if config.epochs:
        network = Training(config, network, data, validation, folder).run(on_epoch)
    if config.head == "kernel":
        fit_kernel_head(config, network, data)
    elif not config.epochs:
        raise ModelError("a linear head needs --epochs: it is trained by gradient descent")
    save(config, network, folder)
    return network.eval()


def save(config: Config, network: Network, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    landmarks = len(network.head.squares) if isinstance(network.head, KernelHead) else 0
    state = {"config": asdict(replace(config, landmarks=landmarks)), "network": network.state_dict()}
    torch.save(state, folder / "network.pt")


def load(folder: Path) -> tuple[Config, Network]:
    """Return what `train` left in `folder`.

    Raises:
        ModelError: nothing is there.
    """
    path = folder / "network.pt"
    if not path.is_file():
        raise ModelError(f"no trained network in {str(folder)!r}: run `image-score train --out {folder}` first")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    config = Config(**state["config"])
    network = make_network(replace(config, weights=""))
    if config.head == "kernel":
        network.head = KernelHead(network.deep_size, network.stats_size, config.landmarks)
    network.load_state_dict(state["network"])
    return config, network.eval()


def scores(network: nn.Module, photos: Tensor) -> np.ndarray[Any, Any]:
    """Return the scores [N] of photos [N, 256, 192, 3], reckoned where the network is."""
    where = next(network.parameters()).device
    with torch.no_grad():
        found = [outputs(network(to_input(part).to(where)))[0].cpu() for part in photos.split(_FEATURE_BATCH)]
    return torch.cat(found)[:, 0].numpy()
