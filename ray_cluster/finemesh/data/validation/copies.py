"""Copies: rows with one id, pictures that occur twice or look alike, what of val and test is in train too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from finemesh.core.spec.data import Leakage, ValidateOptions
from finemesh.data.arrow import numbers
from finemesh.data.similarity import Hashes, Pairs, iter_similar_pairs
from finemesh.data.validation.columns import Bools, Ints
from finemesh.data.validation.findings import WHOLE, Findings, Told
from finemesh.data.validation.keys import Keys
from finemesh.data.validation.pictures import Hashed

_HASH_BITS: Final = 64
_MAX_TWINS: Final = 1000  # of which a report shows a few


def check_row_ids(keys: Keys, findings: Findings) -> None:
    """Two rows with one id."""
    codes = numbers(keys.ids.combine_chunks().dictionary_encode().indices)
    again = np.ones(len(codes), np.bool_)
    again[np.unique(codes, return_index=True)[1]] = False

    def tell(row: int) -> Told:
        place = keys.place(row)
        return place, "row_id", place.row_id

    findings.add_all("DUPLICATE_ROW_ID", np.flatnonzero(again), tell)


def check_copies(keys: Keys, findings: Findings) -> None:
    """The same picture in two rows, byte for byte. Several conversations about one picture are in order."""
    pictures = np.flatnonzero(~keys.talks[keys.image_rows])
    _, first, group = np.unique(keys.contents[pictures], return_index=True, return_inverse=True)
    original = pictures[first[group.reshape(-1)]]
    again = keys.image_rows[original] != keys.image_rows[pictures]
    of = dict(zip(pictures[again].tolist(), original[again].tolist(), strict=True))

    def tell(at: int) -> Told:
        other = keys.place(int(keys.image_rows[of[at]])).row_id
        return keys.place(int(keys.image_rows[at])), f"images[{keys.image_slots[at]}]", f"the same as {other}"

    findings.add_all("DUPLICATE_IMAGE", pictures[again], tell)


@dataclass(frozen=True, slots=True, eq=False)
class Alike:
    """What the perceptual hashes tell.

    Attributes:
        pairs: how many pairs of distinct pictures look alike, those within one video left out.
        nearest: int64[N, 3], picture, the earlier one that it is most like, and the bits that differ.
        leaking: bool[rows], those of val and test that show what looks like a picture of train.
    """

    pairs: int
    nearest: Ints
    leaking: Bools


def compare(keys: Keys, hashed: Hashed, max_bits: int) -> Alike:
    """Compare every distinct picture with every other one, in bounded blocks."""
    contents = keys.contents
    firsts = np.full(int(contents.max(initial=-1)) + 1, -1)  # of each content, the first picture with a hash
    hashed_ones = np.flatnonzero(hashed.known)[::-1]
    firsts[contents[hashed_ones]] = hashed_ones
    train = np.zeros(len(firsts), np.bool_)
    train[contents[keys.in_train()[keys.image_rows]]] = True
    held_out = keys.held_out()[keys.image_rows]
    leaking = np.zeros(len(firsts), np.bool_)
    nearest = np.full((len(firsts), 2), _HASH_BITS + 1, np.int64)
    known = np.flatnonzero(firsts >= 0)
    hashes = hashed.hashes[firsts]
    total = 0
    for block in iter_similar_pairs(hashes[known], max_bits):
        pairs = known[block]
        for one, other in (pairs.T, pairs.T[::-1]):
            leaking[other[train[one]]] = True
        pairs = pairs[_of_two_shots(keys, firsts[pairs])]
        total += len(pairs)
        _note_nearest(nearest, pairs, hashes, firsts)
    rows = np.zeros(len(keys.splits), np.bool_)
    rows[keys.image_rows[held_out & leaking[contents]]] = True
    found = np.flatnonzero(nearest[:, 1] <= _HASH_BITS)
    table = np.column_stack((firsts[found], firsts[nearest[found, 0]], nearest[found, 1]))
    return Alike(total, table[np.argsort(table[:, 0])], rows)


def _of_two_shots(keys: Keys, pictures: Pairs) -> Bools:
    """Frames of one video look alike, and pictures of one row were put together on purpose."""
    rows = keys.image_rows[pictures]
    videos = keys.videos[rows]
    one_video = (videos[:, 0] == videos[:, 1]) & (videos[:, 0] >= 0)
    return ~one_video & (rows[:, 0] != rows[:, 1])


def _note_nearest(nearest: Ints, pairs: Pairs, hashes: Hashes, firsts: Ints) -> None:
    """For the later picture of each pair, keep the earlier one if it is nearer than what is known."""
    later_first = firsts[pairs[:, 0]] > firsts[pairs[:, 1]]
    pairs = np.where(later_first[:, None], pairs[:, ::-1], pairs)
    bits = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).astype(np.int64)
    order = np.lexsort((pairs[:, 0], bits, pairs[:, 1]))
    later, place = np.unique(pairs[order, 1], return_index=True)
    best = order[place]
    better = bits[best] < nearest[later, 1]
    nearest[later[better], 0] = pairs[best[better], 0]
    nearest[later[better], 1] = bits[best[better]]


def check_alike(keys: Keys, alike: Alike, findings: Findings) -> None:
    """Pictures that look like an earlier one of another row and another video."""
    shown = alike.nearest[~keys.talks[keys.image_rows[alike.nearest[:, 0]]]]

    def tell(at: int) -> Told:
        picture, other, bits = shown[at].tolist()
        row_id = keys.place(int(keys.image_rows[other])).row_id
        words = f"looks like {row_id}: {bits} of {_HASH_BITS} bits of their hashes differ"
        return keys.place(int(keys.image_rows[picture])), f"images[{keys.image_slots[picture]}]", words

    findings.add_all("NEAR_DUPLICATE_IMAGE", np.arange(len(shown)), tell)


def twins(keys: Keys, alike: Alike) -> dict[tuple[int, str], tuple[int, int]]:
    """For each picture that looks like an earlier one, by row and field, the row and place of that one."""

    def place(picture: int) -> tuple[int, int]:
        return int(keys.image_rows[picture]), int(keys.image_slots[picture])

    return {
        (place(one)[0], f"images[{place(one)[1]}]"): place(other)
        for one, other, _ in alike.nearest[:_MAX_TWINS].tolist()
    }


def check_leakage(
    keys: Keys, alike: Alike | None, options: ValidateOptions, findings: Findings
) -> Leakage | None:
    """What of val and test is also in train; None if nothing is held out."""
    held_out, train = keys.held_out(), keys.in_train()
    total = int(held_out.sum())
    if not total:
        return None
    by_video = held_out & (keys.videos >= 0) & np.isin(keys.videos, keys.videos[train])
    common = np.isin(keys.contents, keys.contents[train[keys.image_rows]])
    by_image = np.zeros(len(held_out), np.bool_)
    by_image[keys.image_rows[common]] = True
    by_image &= held_out
    leaks = {"IMAGE_LEAKAGE": by_image, "VIDEO_LEAKAGE": by_video}
    if alike is not None:
        leaks["NEAR_LEAKAGE"] = alike.leaking
    for kind, rows in leaks.items():
        share = float(rows.sum()) / total
        if share > options.max_leakage:
            examples = ", ".join(keys.place(row).row_id for row in np.flatnonzero(rows)[:3].tolist())
            findings.add(WHOLE, [(kind, "split", f"{share:.1%} of val and test, e.g. {examples}")])
    return Leakage(
        score=float(np.logical_or.reduce(list(leaks.values())).sum()) / total,
        by_video=float(by_video.sum()) / total,
        by_image=float(by_image.sum()) / total,
        by_similar=None if alike is None else float(alike.leaking.sum()) / total,
    )
