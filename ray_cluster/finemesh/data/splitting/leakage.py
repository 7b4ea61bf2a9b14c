"""What of val and test is also in train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from finemesh.core.spec.data import Leakage, Split
from finemesh.data.splitting.alike import AlikePictures
from finemesh.data.splitting.keys import RowKey

_HELD_OUT: Final = (Split.VAL, Split.TEST)


def measure_leakage(
    keys: Sequence[RowKey], splits: Mapping[str, Split], alike: AlikePictures | None = None
) -> Leakage:
    """How much of val and test is also in train: by video, by exact picture (of a row without pictures: by
    its words), and by similar picture if pictures were compared.
    """
    train = [key for key in keys if splits[key.row_id] is Split.TRAIN]
    videos = {key.video_id for key in train if key.video_id is not None}
    images = {image for key in train for image in key.images}
    words = {key.words for key in train if key.words}
    similar = _like_any_of(images, alike) if alike else set[str]()
    counts: Counter[str] = Counter()
    held_out = [key for key in keys if splits[key.row_id] in _HELD_OUT]
    for key in held_out:
        leaks = {
            "video": key.video_id in videos,
            "image": not images.isdisjoint(key.images) or key.words in words,
            "similar": not similar.isdisjoint(key.images),
        }
        counts.update(leaks, any=any(leaks.values()))
    total = max(len(held_out), 1)
    return Leakage(
        score=counts["any"] / total,
        by_video=counts["video"] / total,
        by_image=counts["image"] / total,
        by_similar=counts["similar"] / total if alike else None,
    )


def _like_any_of(images: set[str], alike: AlikePictures) -> set[str]:
    """The pictures that resemble another one of `images`."""
    inside = Counter(place for digest, place in alike.places.items() if digest in images)
    taken = np.zeros(len(alike.hashes), bool)
    taken[list(inside)] = True
    near = np.zeros(len(alike.hashes), bool)
    for block in alike.pairs():
        first, second = block[:, 0], block[:, 1]
        near[second[taken[first]]] = True
        near[first[taken[second]]] = True
    return {
        digest for digest, place in alike.places.items() if near[place] or inside[place] > (digest in images)
    }


def leakage_notes(leakage: Leakage, *, within_videos: bool) -> list[str]:
    """Sentences about what leaks, but for the videos where those are divided on purpose."""
    ways = {
        "are of a video that is in train too": 0 if within_videos else leakage.by_video,
        "show a picture, or are a text, that is in train too": leakage.by_image,
        "show a picture that resembles one in train": leakage.by_similar or 0,
    }
    return [
        f"leakage: {share:.1%} of the rows of val and test {what}" for what, share in ways.items() if share
    ]
