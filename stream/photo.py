"""Checks a photo's header, before anything decodes it."""

from __future__ import annotations

import io

import pillow_heif
from PIL import Image, UnidentifiedImageError

from schemas import PhotoErrorType
from stream.errors import PhotoRejected

pillow_heif.register_heif_opener()

FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF")

# Pillow only warns between one and two times its own limit; ours is exact.
Image.MAX_IMAGE_PIXELS = None


def check_header(data: bytes, max_pixels: int) -> None:
    """Read type and size from the first bytes of a photo; nothing is decoded.

    Raises:
        PhotoRejected: not a JPEG, PNG, WebP, HEIC or AVIF file, or more than `max_pixels` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except UnidentifiedImageError:
        message = f"starts with {data[:12]!r}: not a JPEG, PNG, WebP, HEIC or AVIF photo"
        raise PhotoRejected(PhotoErrorType.NOT_AN_IMAGE, message) from None
    except Exception as error:
        # A hostile header may make a parser raise anything; the photo is to blame, not the scorer.
        message = f"header cannot be read ({type(error).__name__}: {error}): upload the photo again"
        raise PhotoRejected(PhotoErrorType.UNREADABLE, message) from None
    if width * height > max_pixels:
        message = f"{width} x {height} pixels are more than {max_pixels}: upload a smaller photo"
        raise PhotoRejected(PhotoErrorType.TOO_MANY_PIXELS, message)
