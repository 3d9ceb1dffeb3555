"""Triton Python-backend model: decodes photos and runs model.onnx beside this file; `export` copies it there.

Self-contained, so that the repository can be copied to any Triton whose Python has numpy, Pillow (and
pillow-heif for HEIC) and onnxruntime (onnxruntime-gpu for a GPU).
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

try:
    import triton_python_backend_utils as pb_utils
except ImportError:  # outside Triton, where training and evaluation decode photos with the very same function
    pb_utils = None

try:
    import pillow_heif

    pillow_heif.register_heif_opener()
except ImportError:
    pass

HEIGHT, WIDTH = 256, 192
OUTPUTS = ["SCORE", "CLASS_PROBS", "ASPECTS", "ISSUES"]
FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF")
MAX_PIXELS = int(os.environ.get("IMAGE_SCORE_MAX_PIXELS", 50_000_000))
EXIF_ORIENTATION = 0x0112

# Pillow's own bomb check only warns between one and two times its limit; ours refuses before any decode.
Image.MAX_IMAGE_PIXELS = None

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIDEWAYS = (5, 6, 7, 8)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Return the photo as [256, 192, 3] RGB: first frame, upright, transparency on white.

    A JPEG is decoded at the smallest of its 1, 1/2, 1/4, 1/8 scales that is not smaller: libjpeg's scaling is as good
    as ours, and costs a third.
    """
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS} are decoded")
    # HEIF and AVIF openers hand out an upright image already.
    orientation = image.getexif().get(EXIF_ORIENTATION, 1) if image.format in FORMATS[:3] else 1
    size = (HEIGHT, WIDTH) if orientation in _SIDEWAYS else (WIDTH, HEIGHT)
    image.draft("RGB", size)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    image = image.convert("RGB").resize(size, Image.Resampling.BOX)
    turn = _TRANSPOSE.get(orientation)
    return np.asarray(image if turn is None else image.transpose(turn))


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        providers: list[Any] = ["CPUExecutionProvider"]
        if args["model_instance_kind"] == "GPU":
            device = {"device_id": args["model_instance_device_id"]}
            providers.insert(0, ("CUDAExecutionProvider", device))
        else:
            # Instances share the cores: a thread pool in each would only make them fight.
            options.intra_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; one that holds a photo that does not decode gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        photos: list[NDArray[np.uint8]] = []
        spans: list[tuple[int, int, int]] = []
        for i, request in enumerate(requests):
            encoded = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
            try:
                decoded = [decode(data) for data in encoded.ravel()]
            except Exception as error:
                # Anything a hostile file makes a decoder raise is this request's error alone.
                text = f"photo does not decode: {type(error).__name__}: {error}"
                fault = pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG)
                responses[i] = pb_utils.InferenceResponse(error=fault)
                continue
            spans.append((i, len(photos), len(photos) + len(decoded)))
            photos += decoded
        if photos:
            values = self.session.run(OUTPUTS, {"PHOTOS": np.stack(photos)})
            for i, start, end in spans:
                tensors = [pb_utils.Tensor(n, v[start:end]) for n, v in zip(OUTPUTS, values, strict=True)]
                responses[i] = pb_utils.InferenceResponse(tensors)
        return responses
