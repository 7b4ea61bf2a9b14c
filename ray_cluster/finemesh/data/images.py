"""Pictures: judged before they are decoded, decoded before they are believed."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final

from PIL import Image, UnidentifiedImageError

from finemesh.data.faults import RowFault

FORMATS: Final = ("JPEG", "PNG", "WEBP")
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")
JPEG_QUALITY: Final = 92
# What Pillow's decoders raise on broken data.
DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    LookupError,
    struct.error,
)
FRAME, STILL, RENDERED, ABSENT = "frame", "image", "rendered", "absent"


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture. `media` is FRAME, STILL, RENDERED, or ABSENT for one of which the size alone is
    known; sizes in pixels; `name` is its path in the source.
    """

    data: bytes
    format: str
    width: int
    height: int
    media: str
    name: str = ""


def check_picture(
    data: bytes, media: str, max_pixels: int, *, decode: bool = True, name: str = ""
) -> Picture:
    """The picture in `data`, once it is known to be one.

    Raises:
        RowFault: IMAGE_FORMAT_UNSUPPORTED, IMAGE_TOO_LARGE (before it is decoded) or IMAGE_UNREADABLE.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            check_size(width, height, max_pixels)
            if decode:
                image.load()
            # A JPEG with further pictures behind the first, as some cameras write it, calls itself MPO.
            kind = "JPEG" if image.format == "MPO" else str(image.format)
    except UnidentifiedImageError as error:
        message = f"it is no {', '.join(FORMATS)} picture: convert it to one"
        raise RowFault("IMAGE_FORMAT_UNSUPPORTED", message, "image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowFault("IMAGE_TOO_LARGE", str(error), "image") from error
    except DECODER_ERRORS as error:
        raise RowFault("IMAGE_UNREADABLE", f"the picture cannot be decoded: {error}", "image") from error
    return Picture(data, kind, width, height, media, name)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises RowFault (IMAGE_TOO_LARGE) for a picture that must not be decoded or made."""
    if width * height > max_pixels:
        message = f"{width} x {height} is more than the {max_pixels} pixels allowed"
        raise RowFault("IMAGE_TOO_LARGE", message, "image")


def decode_rgb(data: bytes) -> Image.Image:
    """The picture in colours, of data that `check_picture` has let through before."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def encode_jpeg(image: Image.Image, media: str) -> Picture:
    """A picture of `image`, without loss of colour resolution."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return Picture(buffer.getvalue(), "JPEG", image.width, image.height, media)
