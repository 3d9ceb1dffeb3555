"""Exports a trained network to ONNX, as the next version of the model in a Triton repository."""

from __future__ import annotations

import copy
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from triton_models.card import write_card
from triton_models.errors import ModelError
from triton_models.evaluate import OUTPUTS
from triton_models.network import Deployed, Network
from triton_models.photos import HEIGHT, WIDTH
from triton_models.serving.versions import Repository

TOLERANCE = 1e-3
MAX_BYTES = 10_000_000
_HALVED = 4096
"""Weights of at least so many numbers are stored as 16-bit floats, and computed with as 32-bit ones."""
_SERVED = Path(__file__).parent / "serving" / "model.py"


def to_onnx(network: Network, path: Path) -> None:
    """Write the deployed network, with 16-bit weights; its batch size is free. Rounds the network's weights alike."""
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point() and tensor.numel() >= _HALVED:
                tensor.copy_(tensor.half().float())
    names = ["PHOTOS", *OUTPUTS]
    deployed = Deployed(copy.deepcopy(network)).eval()
    _fix_padding(deployed)
    torch.onnx.export(
        deployed,
        (torch.zeros(2, HEIGHT, WIDTH, 3, dtype=torch.uint8),),
        str(path),
        input_names=names[:1],
        output_names=names[1:],
        dynamic_axes={name: {0: "batch"} for name in names},
        opset_version=17,
        dynamo=False,
    )
    _fold_constants(path)
    model = onnx.load(path)
    _fold_pads(model)
    _halve(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)


class _FixedPadding(nn.Module):
    """A convolution that reckons its padding from the size of its input, for one size of input."""

    def __init__(self, conv: nn.Conv2d, height: int, width: int) -> None:
        super().__init__()
        self.conv, pads = copy.copy(conv), []
        for size, kernel, stride in zip((width, height), conv.kernel_size[::-1], conv.stride[::-1]):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        self.pads = pads

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        return F.conv2d(F.pad(x, self.pads), conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def _fix_padding(network: nn.Module) -> None:
    """Replace timm's convolutions with TensorFlow's "same" padding: traced, they would ask for the size each time."""
    sizes: dict[str, tuple[int, int]] = {}
    found = {name: module for name, module in network.named_modules() if type(module).__name__ == "Conv2dSame"}
    hooks = [
        module.register_forward_pre_hook(lambda _, x, name=name: sizes.update({name: (x[0].shape[2], x[0].shape[3])}))
        for name, module in found.items()
    ]
    with torch.no_grad():
        network(torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    for name, module in found.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, _FixedPadding(cast(nn.Conv2d, module), *sizes[name]))


def _fold_constants(path: Path) -> None:
    """Let onnxruntime do what needs no input; what it writes is plain ONNX."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _fold_pads(model: onnx.ModelProto) -> None:
    """Give convolutions the zeros that a Pad lays around their input (TensorFlow's "same"), which saves a copy each."""
    graph = model.graph
    known = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    known |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for conv in graph.node:
        pad = pads.get(conv.input[0]) if conv.op_type == "Conv" else None
        if pad is None or pad.input[1] not in known or sum(conv.input[0] in n.input for n in graph.node) > 1:
            continue
        _, _, top, left, _, _, bottom, right = known[pad.input[1]].tolist()
        (own,) = [a for a in conv.attribute if a.name == "pads"]
        own.CopyFrom(helper.make_attribute("pads", [a + b for a, b in zip(own.ints, (top, left, bottom, right))]))
        conv.input[0] = pad.input[0]
        graph.node.remove(pad)
    used = {name for node in graph.node for name in node.input}
    for weight in [w for w in graph.initializer if w.name not in used]:
        graph.initializer.remove(weight)


def _halve(model: onnx.ModelProto) -> None:
    """Store large weights as 16-bit floats behind a cast, which the runtime does once, when it loads the model."""
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _HALVED:
            continue
        small = f"{weight.name}.half"
        casts.append(helper.make_node("Cast", [small], [weight.name], to=TensorProto.FLOAT))
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), small))
    for node in reversed(casts):
        model.graph.node.insert(0, node)


def check(network: Network, path: Path, photos: NDArray[np.uint8]) -> float:
    """Return the largest difference of any output from PyTorch's, over photos [N, 256, 192, 3] in batches of 1, 3, ...

    Raises:
        ModelError: it is over 1e-3, or the file is over 10 MB.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(
            f"{path.stat().st_size:,} bytes; at most {MAX_BYTES:,}: use fewer --landmarks, or a smaller backbone"
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    deployed, worst, start = Deployed(network).eval(), 0.0, 0
    for size in (1, 3, 8, len(photos)):
        batch = photos[start : start + size]
        if not len(batch):
            break
        start += size
        with torch.no_grad():
            ours = [part.numpy() for part in deployed(torch.from_numpy(batch))]
        theirs = session.run(OUTPUTS, {"PHOTOS": batch})
        worst = max(worst, *(float(np.abs(a - b).max()) for a, b in zip(ours, theirs)))
    if not worst <= TOLERANCE:
        raise ModelError(f"ONNX differs from PyTorch by {worst:.4f}; at most {TOLERANCE}: do not serve it")
    return worst


def write_version(
    model: Path, repository: Repository, target: Path, figures: dict[str, Any], training: dict[str, Any]
) -> None:
    """Write a version's folder `target` with model.onnx, model.py, metrics.json and its card.

    The folder appears whole, so that a Triton that looks meanwhile never sees a part of it. It is not served before
    it is promoted, where another version has been.
    """
    if repository.versions():
        repository.pin()
    with tempfile.TemporaryDirectory(dir=repository.path, prefix=".export-") as part:
        folder = Path(part) / "version"
        folder.mkdir()
        shutil.copy(model, folder / "model.onnx")
        shutil.copy(_SERVED, folder / "model.py")
        kept = {name: value for name, value in figures.items() if name != "predictions"} | {"training": training}
        (folder / "metrics.json").write_text(json.dumps(kept, indent=2) + "\n")
        write_card(kept, int(target.name), folder / "MODEL_CARD.md")
        folder.rename(target)
