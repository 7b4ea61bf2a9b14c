"""Pictures: judged before they are decoded, decoded before they are believed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

from finemesh.data.faults import RowFault

FORMATS: Final = ("JPEG", "PNG", "WEBP")
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")
JPEG_QUALITY: Final = 92
FRAME, STILL, RENDERED = "frame", "image", "rendered"


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture. `media` is FRAME, STILL or RENDERED; sizes in pixels."""

    data: bytes
    format: str
    width: int
    height: int
    media: str


def check_picture(data: bytes, media: str, max_pixels: int, *, decode: bool = True) -> Picture:
    """The picture in `data`, once it is known to be one.

    Raises:
        RowFault: IMAGE_FORMAT_UNSUPPORTED, IMAGE_TOO_LARGE (before it is decoded) or IMAGE_UNREADABLE.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            name, (width, height) = image.format or "", image.size
            if name not in FORMATS:
                message = f"{name} pictures are not supported: convert them to {', '.join(FORMATS)}"
                raise RowFault("IMAGE_FORMAT_UNSUPPORTED", message, "image")
            if width * height > max_pixels:
                message = f"{width} x {height} is more than the {max_pixels} pixels allowed"
                raise RowFault("IMAGE_TOO_LARGE", message, "image")
            if decode:
                image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowFault("IMAGE_TOO_LARGE", str(error), "image") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
    ) as error:  # what Pillow's decoders raise on broken data
        raise RowFault("IMAGE_UNREADABLE", f"the picture cannot be decoded: {error}", "image") from error
    return Picture(data, name, width, height, media)


def decode_rgb(data: bytes) -> Image.Image:
    """The picture in colours, of data that `check_picture` has let through before."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def encode_jpeg(image: Image.Image, media: str) -> Picture:
    """A picture of `image`, without loss of colour resolution."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return Picture(buffer.getvalue(), "JPEG", image.width, image.height, media)
