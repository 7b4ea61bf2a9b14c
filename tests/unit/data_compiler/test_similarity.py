"""Pictures that look alike have close hashes, others have not."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from finemesh.data.similarity import ALIKE_BITS, hashes_of, picture_hash, similar_pairs
from PIL import Image, ImageDraw, UnidentifiedImageError


def _scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A soft ground and some shapes."""
    draw = np.random.default_rng(seed)
    ground = Image.fromarray(draw.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    image = ground.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for x, y, a, b, *colour in draw.integers(0, 200, (8, 7)).tolist():
        pen.ellipse((x, y, x + a // 2, y + b // 2), fill=tuple(colour))
    return image


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("seed", range(6))
def test_altered_copies_are_close(seed: int) -> None:
    image = _scene(seed)
    smaller = image.resize((200, 150), Image.Resampling.BICUBIC)
    marked = image.copy()
    ImageDraw.Draw(marked).text((4, 225), "somebody", fill=(255, 255, 255))
    copies = [
        _encoded(image, "PNG"),
        _encoded(image, "WEBP", quality=80),
        _encoded(image, "JPEG", quality=50),
        _encoded(smaller, "JPEG", quality=90),
        _encoded(marked, "JPEG", quality=90),
    ]
    original = picture_hash(_encoded(image, "JPEG", quality=95))
    apart = [(original ^ picture_hash(copy)).bit_count() for copy in copies]
    assert max(apart) <= ALIKE_BITS + 2, apart
    assert sum(bits <= ALIKE_BITS for bits in apart) >= 4, apart


def test_other_pictures_are_far() -> None:
    hashes = hashes_of(_encoded(_scene(seed), "JPEG") for seed in range(100, 400))
    assert len(similar_pairs(hashes, ALIKE_BITS)) == 0


def test_pictures_of_one_colour_are_like_none_but_themselves() -> None:
    plain = [_encoded(Image.new("RGB", (64, 48), (grey, grey, grey)), "JPEG") for grey in range(0, 250, 10)]
    hashes = hashes_of([*plain, plain[3]])
    assert similar_pairs(hashes, 8).tolist() == [[3, 25]]


def test_sixteen_bits_are_not_clipped_to_white() -> None:
    eight = np.asarray(_scene(7).convert("L"))
    sixteen = Image.fromarray(eight.astype(np.uint16) * 256)
    apart = picture_hash(_encoded(sixteen, "PNG")) ^ picture_hash(_encoded(Image.fromarray(eight), "PNG"))
    assert apart == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I", "F"])
def test_every_mode_has_a_hash(mode: str) -> None:
    image = _scene(8).convert("L").convert("RGB").convert(mode) if mode in "IF" else _scene(8).convert(mode)
    data = _encoded(image, "TIFF")
    assert (picture_hash(data) ^ picture_hash(_encoded(_scene(8), "PNG"))).bit_count() <= 12


def test_broken_pictures_raise_what_pillow_raises() -> None:
    data = _encoded(_scene(9), "JPEG")
    with pytest.raises(OSError, match="truncated"):
        picture_hash(data[:-400])
    with pytest.raises(UnidentifiedImageError):
        picture_hash(b"nothing")


def test_hashes_are_distinct_and_need_not_fit_a_batch() -> None:
    hashes = hashes_of(_encoded(_scene(seed, (64, 48)), "PNG") for seed in range(300))
    assert hashes.dtype == np.uint64
    assert hashes.shape == (300,)
    assert all(a != b for a, b in combinations(hashes.tolist(), 2))
