"""Training on tiny data: losses by hand, exact resumption, heads, backbones, made flaws, pre-training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tiny_labels import write_tiny_labels
from triton_models import backbone as backbones
from triton_models import metrics, pretrain
from triton_models import train as training
from triton_models.data import Data, load_data, put_flaws, split
from triton_models.degrade import FLAWS
from triton_models.errors import LabelError, ModelError
from triton_models.labels import LabelledPhoto, pair_rows, read_labels, read_pairs
from triton_models.losses import cross_entropy, focal, label_loss, ordinal, pair_loss
from triton_models.network import KernelHead, Network
from triton_models.statistics import statistics
from triton_models.train import Config

TINY = Config(height=64, width=48, epochs=4, batch=8, flawed_share=0.2, landmarks=40)


@pytest.fixture(scope="module")
def tiny(samples: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[LabelledPhoto], Data]:
    photos, labels, pairs = write_tiny_labels(samples, tmp_path_factory.mktemp("tiny"))
    labelled = read_labels(labels)
    return labelled, load_data(photos, labelled, read_pairs(pairs))


def test_focal_loss_of_a_hand_made_case() -> None:
    probabilities = torch.tensor([[0.7, 0.1, 0.1, 0.05, 0.05]])
    target = torch.tensor([[1.0, 0, 0, 0, 0]])
    assert focal(probabilities.log(), target).item() == pytest.approx(-(0.3**2) * math.log(0.7), rel=1e-5)


def test_cross_entropy_is_torchs() -> None:
    logits, classes = torch.randn(9, 5), torch.randint(5, (9,))
    ours = cross_entropy(logits, F.one_hot(classes, 5).float())
    assert ours.item() == pytest.approx(F.cross_entropy(logits, classes).item(), rel=1e-5)


def test_ordinal_loss_of_a_near_miss_is_smaller() -> None:
    target = torch.tensor([[0.0, 0, 1, 0, 0]])
    near, far = torch.tensor([[-9.0, 9, -9, -9, -9]]), torch.tensor([[9.0, -9, -9, -9, -9]])
    assert ordinal(near, target) < ordinal(far, target)
    assert focal(near, target) == pytest.approx(focal(far, target).item())


def test_pair_loss_of_a_hand_made_case() -> None:
    better, worse = torch.zeros(2, 32), torch.zeros(2, 32)
    better[:, 31] = torch.tensor([0.6, 0.4])
    worse[:, 31] = torch.tensor([0.5, 0.5])
    expected = (3 * math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 4
    assert pair_loss(better, worse, torch.tensor([3.0, 1.0])).item() == pytest.approx(expected, rel=1e-5)


def test_target_is_the_mean_of_the_judgements(tmp_path: Path) -> None:
    aspects = '"aspects": {"lighting": 5, "sharpness": 1, "background": 3, "framing": 3, "presentation": 3, "color": 3}'
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(f'{{"photo": "x.jpg", "score": 2, {aspects}, "issues": ["dark"]}}')
    second.write_text(f'{{"photo": "x.jpg", "score": 3, {aspects}, "issues": []}}')
    (photo,) = read_labels(first, second)
    target = photo.target()
    assert target[:5] == [0, 0.5, 0.5, 0, 0]
    assert target[5:11] == [1, 0, 0.5, 0.5, 0.5, 0.5]
    assert target[11] == 0.5
    assert target[31] == pytest.approx((2.5 + 3 / 5 - 1.2) / 4.8)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"photo": "x.jpg", "score": 6}', "line 1: not a valid Label: aspects: field required"),
        ('{"photo": "x.jpg", "score": "3", "aspects": {}}', "score: input should be a valid integer"),
        ("not JSON", "line 1"),
        ("", "no labels in"),
    ],
)
def test_bad_label_is_named_by_file_line_and_field(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "labels.jsonl").write_text(line)
    with pytest.raises(LabelError, match=words):
        read_labels(tmp_path / "labels.jsonl")


def test_photo_that_is_not_there_is_named(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"photo 'bag/bag-blurred.jpg'"):
        load_data(tmp_path, tiny[0])


def test_flaw_of_strength_none_changes_nothing_and_more_strength_more(tiny: tuple[list[LabelledPhoto], Data]) -> None:
    photo = tiny[1].photos[3].permute(2, 0, 1).float() / 255
    for name, flaw in FLAWS.items():
        made = []
        for strength in (0.0, 0.5, 1.0):
            torch.manual_seed(1)
            made.append(flaw.make(photo.clone(), strength))
        assert (made[0] - photo).abs().max() < 1e-5, name
        assert (made[1] - photo).abs().mean() < (made[2] - photo).abs().mean(), name
        assert made[2].min() >= 0, name
        assert made[2].max() <= 1, name


def test_made_flaw_lowers_the_labels(tiny: tuple[list[LabelledPhoto], Data]) -> None:
    data = tiny[1]
    torch.manual_seed(0)
    photos = data.photos[:8].permute(0, 3, 1, 2).float() / 255
    flawed, targets = put_flaws(photos, data.targets[:8], 1.0)
    assert (targets[:, 31] <= data.targets[:8, 31]).all()
    assert targets[:, :5].sum(1) == pytest.approx(torch.ones(8))
    assert (targets[:, 11:31].max(1).values == 1).all()
    assert (photos == data.photos[:8].permute(0, 3, 1, 2).float() / 255).all()
    assert not torch.equal(flawed, photos)


def test_statistics_hardly_change_when_a_photo_is_mirrored(tiny: tuple[list[LabelledPhoto], Data]) -> None:
    photos = tiny[1].photos[:6].permute(0, 3, 1, 2).float() / 255
    plain, mirrored = statistics(photos), statistics(photos.flip(3))
    assert plain.isfinite().all()
    changed = (plain - mirrored).abs().max(0).values > 0.02
    assert changed.sum() <= 24  # two profiles of twelve columns


def test_statistics_of_one_colour_are_finite() -> None:
    for value in (0.0, 0.5, 1.0):
        assert statistics(torch.full((1, 3, 256, 192), value)).isfinite().all()


def train(config: Config, data: Data, folder: Path) -> Network:
    return training.train(config, data, data, folder)


def weights(network: Network) -> torch.Tensor:
    return torch.cat([p.flatten() for p in network.state_dict().values()])


def test_network_learns_which_photos_are_good(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    data = tiny[1]
    scores = training.scores(train(replace(TINY, epochs=8), data, tmp_path), data.photos)
    assert metrics.opa(scores[data.better], scores[data.worse]) > 0.8
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_interrupted_training_ends_with_the_very_same_network(
    tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path
) -> None:
    whole = train(TINY, tiny[1], tmp_path / "whole")

    class Interrupted(Exception):
        pass

    def interrupt(epoch: int, srcc: float) -> None:
        if epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        training.train(TINY, tiny[1], tiny[1], tmp_path / "parts", interrupt)
    assert torch.equal(weights(train(TINY, tiny[1], tmp_path / "parts")), weights(whole))


def test_seed_decides_the_network(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    short = replace(TINY, epochs=1)
    first, again = (weights(train(short, tiny[1], tmp_path / name)) for name in ("a", "b"))
    other = weights(train(replace(short, seed=1), tiny[1], tmp_path / "c"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_stops_when_nothing_improves(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    epochs: list[int] = []
    config = replace(TINY, epochs=50, patience=2, rate=1e-9)
    training.train(config, tiny[1], tiny[1], tmp_path, lambda epoch, _: epochs.append(epoch))
    assert len(epochs) < 20


def test_checkpoint_of_another_configuration_is_refused(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    train(replace(TINY, epochs=1), tiny[1], tmp_path)
    with pytest.raises(ModelError, match="another configuration"):
        train(replace(TINY, epochs=1, rate=1e-3), tiny[1], tmp_path)


def test_mixed_precision_trains(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    network = train(replace(TINY, epochs=1, amp=True), tiny[1], tmp_path)
    assert weights(network).isfinite().all()


@pytest.mark.parametrize("head", ["linear", "kernel"])
def test_pairs_alone_teach_the_order(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path, head: str) -> None:
    """Labels that say nothing, and pairs that say all."""
    data = tiny[1]
    flat = replace(data, targets=data.targets.mean(0, keepdim=True).expand_as(data.targets).clone())
    epochs = 8 if head == "linear" else 0
    config = replace(TINY, epochs=epochs, head=head, flawed_share=0, pair_weight=20)  # type: ignore[arg-type]
    scores = training.scores(training.train(config, flat, data, tmp_path), data.photos)
    assert metrics.opa(scores[data.better], scores[data.worse]) > 0.8


def test_kernel_head_fits_a_frozen_backbone(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    data = tiny[1]
    config = replace(TINY, epochs=0, head="kernel")
    network = train(config, data, tmp_path)
    fresh = training.make_network(config).backbone.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in network.backbone.state_dict().items())
    scores = training.scores(network, data.photos)
    assert metrics.opa(scores[data.better], scores[data.worse]) > 0.9
    _, loaded = training.load(tmp_path)
    assert training.scores(loaded, data.photos) == pytest.approx(scores, abs=1e-6)


def test_kernel_is_a_gaussian_of_the_distances(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    network = train(replace(TINY, epochs=0, head="kernel"), tiny[1], tmp_path)
    head = network.head
    assert isinstance(head, KernelHead)
    x = torch.randn(3, len(head.landmarks))
    expected = torch.exp(-head.gamma * torch.cdist(x, head.landmarks.T) ** 2)
    assert torch.allclose(head.kernel(x), expected, atol=1e-4)


def test_linear_head_without_epochs_is_refused(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--epochs"):
        train(replace(TINY, epochs=0), tiny[1], tmp_path)


@pytest.mark.parametrize("name", ["timm/tf_efficientnet_lite0", "timm/vit_tiny_patch16_224", "timm/resnet18"])
def test_timm_model_is_a_backbone_with_the_weights_of_a_local_file(name: str, tmp_path: Path) -> None:
    import timm

    model = timm.create_model(name.removeprefix("timm/"), pretrained=False)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    found = backbones.build(name, tmp_path / "weights.pth").train()
    maps = found(torch.rand(2, 3, 64, 48))
    assert [m.shape[1] for m in maps] == found.channels
    assert not any(module.training for module in found.modules() if isinstance(module, torch.nn.BatchNorm2d))
    ours = dict(found.named_parameters())
    shared = [k for k, v in model.named_parameters() if f"model.{k}" in ours and torch.equal(v, ours[f"model.{k}"])]
    assert len(shared) > 10


def test_weights_that_another_library_named_are_loaded_by_order(tmp_path: Path) -> None:
    source = backbones.Compact()
    renamed = {f"module{i}": value for i, value in enumerate(source.state_dict().values())}
    torch.save({"state_dict": renamed}, tmp_path / "weights.pth")
    found = backbones.build("compact", tmp_path / "weights.pth")
    assert torch.equal(next(found.parameters()), next(source.parameters()))


def test_open_clip_model_is_a_backbone() -> None:
    found = backbones.build("open_clip/RN50")
    assert [m.shape for m in found(torch.rand(1, 3, 64, 48))] == [(1, found.channels[0], 1, 1)]


@pytest.mark.parametrize(
    ("name", "words"),
    [("resnet", "must be compact, timm/NAME"), ("timm/nonsense", "no model 'nonsense'"), ("open_clip/x", "no model")],
)
def test_unknown_backbone_is_an_error(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        backbones.build(name)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match="of another model"):
        backbones.build("compact", tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot read weights"):
        backbones.build("compact", tmp_path / "weights.pth")


def test_pretraining_learns_to_rank_and_name_flaws(samples: dict[str, Path], tmp_path: Path) -> None:
    photos, _, _ = write_tiny_labels(samples, tmp_path)
    config = replace(TINY, seed=3)
    fresh = {k: v.clone() for k, v in training.make_network(config).backbone.state_dict().items()}
    state = pretrain.pretrain(config, photos, 3, tmp_path / "run")
    assert any(not torch.equal(state[name], fresh[name]) for name in state)
    again = pretrain.pretrain(config, photos, 3, tmp_path / "run")
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_pretraining_task_is_learned() -> None:
    """A few steps on one batch lower its loss, and rank it better than chance."""
    torch.manual_seed(0)
    config = replace(TINY, height=64, width=48)
    task = pretrain.Task(training.make_network(config)).train()
    photos = torch.rand(12, 3, 8, 6)
    photos = F.interpolate(photos, (256, 192), mode="bilinear")
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        torch.manual_seed(1)
        loss, shares = pretrain.task_loss(task, photos)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert shares["ranked"] > 0.7


def test_split_keeps_a_share_apart(tiny: tuple[list[LabelledPhoto], Data]) -> None:
    learned, apart = split(tiny[0], 0.25, seed=0)
    assert {p.photo for p in learned} | {p.photo for p in apart} == {p.photo for p in tiny[0]}
    assert len(apart) == round(0.25 * len(tiny[0]))
    with pytest.raises(LabelError, match="too few"):
        split(tiny[0][:2], 0.1, seed=0)


def test_loss_is_lowest_at_the_target(tiny: tuple[list[LabelledPhoto], Data]) -> None:
    targets = tiny[1].targets[:6]
    inverse = torch.logit(targets.clamp(0.01, 0.99))
    exact = torch.cat([targets[:, :5].clamp_min(1e-4).log(), inverse[:, 5:31], targets[:, 31:]], 1)
    torch.manual_seed(0)
    for loss in ("focal", "ordinal", "cross_entropy"):
        assert label_loss(exact, targets, loss) < label_loss(exact + torch.randn_like(exact), targets, loss)


def test_pair_without_a_label_is_named(tiny: tuple[list[LabelledPhoto], Data], tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"better": "bag/bag-good.jpg", "worse": "nowhere.jpg"}')
    with pytest.raises(LabelError, match=r"'nowhere.jpg' has no label"):
        pair_rows(read_pairs(tmp_path / "pairs.jsonl"), tiny[0])
    assert np.array_equal(pair_rows([], tiny[0])[0], np.array([], np.intp))
