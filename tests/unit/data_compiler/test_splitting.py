"""Splits: by video, in time, deterministic, without leaks; and what the manifest says of them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import (
    DatasetFormat,
    DatasetManifest,
    DatasetOrigin,
    ImportOptions,
    Leakage,
    Split,
    SplitOptions,
    SplitStrategy,
)
from finemesh.data import Progress, import_source, iter_rows, load_manifest, split_dataset
from finemesh.data.images import STILL, Picture
from finemesh.data.rows import make_message, make_object, make_row, text_part
from finemesh.data.schema import Row
from finemesh.data.splitting import AlikePictures, RowKey, assign_splits
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter
from PIL import Image

S = SplitStrategy


def test_no_video_lies_in_two_splits(divided: Path) -> None:
    manifest = load_manifest(divided)
    where: dict[str | None, set[str]] = {}
    for row in iter_rows(divided, columns=["video_id", "split"]):
        where.setdefault(row["video_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in where.values())
    assert manifest.splits == {"train": 12, "val": 6, "test": 6}
    assert manifest.leakage == Leakage(0.0, 0.0, 0.0, 0.0)


def test_split_keeps_rows_and_lineage(imported: Path, divided: Path) -> None:
    before, after = list(iter_rows(imported)), list(iter_rows(divided))
    assert [row | {"split": ""} for row in after] == before
    assert load_manifest(divided).parents == (load_manifest(imported).digest,)
    assert load_manifest(divided).ledger.check().kept == len(before)


def test_rows_of_one_split_are_read_alone(divided: Path) -> None:
    rows = list(iter_rows(divided, split="val", columns=["row_id"]))
    assert len(rows) == 6
    assert {row["split"] for row in rows} == {"val"}


def test_single_video_is_cut_in_time_with_a_gap(samples: Path, tmp_path: Path, silent: Progress) -> None:
    import_source(samples / "sav/sav_000001_manual.json", tmp_path / "in", ImportOptions(), silent)
    manifest = split_dataset(tmp_path / "in", tmp_path / "out", SplitOptions(gap_frames=6), silent)
    assert manifest.splits == {"train": 65, "gap": 12, "val": 11, "test": 33}
    assert "one video: temporal split with a gap of 6 frames" in manifest.warnings
    assert manifest.leakage is not None
    assert (manifest.leakage.by_video, manifest.leakage.by_image) == (1.0, 0.0)
    order = [row["split"] for row in iter_rows(tmp_path / "out", columns=["split"])]
    assert order == ["train"] * 65 + ["gap"] * 6 + ["val"] * 11 + ["gap"] * 6 + ["test"] * 33


def test_too_few_videos_are_refused(imported: Path, tmp_path: Path, silent: Progress) -> None:
    keys = [RowKey("a/0", "a", 0, ("x",)), RowKey("b/0", "b", 0, ("y",))]
    with pytest.raises(InvalidError) as error:
        assign_splits(keys, SplitOptions())
    assert error.value.reason == "SPLIT_IMPOSSIBLE"
    options = SplitOptions(SplitStrategy.TEMPORAL, gap_frames=5)
    with pytest.raises(InvalidError) as error:
        split_dataset(imported, tmp_path / "out", options, silent)
    assert (error.value.reason, error.value.violations[0].field) == ("SPLIT_IMPOSSIBLE", "options.gap_frames")
    assert not (tmp_path / "out").exists()


def test_stills_have_no_time(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="belongs to no video"):
        assign_splits([RowKey("a", None, None, ("x",))], SplitOptions(SplitStrategy.TEMPORAL))


def test_identical_pictures_of_two_videos_stay_together() -> None:
    keys = [RowKey(f"{video}/{i}", video, i, (f"{video}{i}",)) for video in "abcdef" for i in range(3)]
    keys.append(RowKey("f/3", "f", 3, ("a0",)))
    for seed in range(20):
        splits, _ = assign_splits(keys, SplitOptions(seed=seed))
        assert splits["f/0"] is splits["a/0"]


def test_two_way_split_has_no_third_part() -> None:
    keys = [RowKey(f"v/{i}", "v", i, (str(i),)) for i in range(20)]
    splits, _ = assign_splits(keys, SplitOptions(train=0.8, val=0.0, test=0.2, gap_frames=2))
    counts = [
        sum(split is wanted for split in splits.values()) for wanted in (Split.TRAIN, Split.GAP, Split.TEST)
    ]
    assert counts == [14, 2, 4]
    assert Split.VAL not in splits.values()


# Pictures


Made = Callable[[Sequence[Row]], Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A canonical dataset of rows."""

    def make(rows: Sequence[Row]) -> Path:
        out = tmp_path / "made"
        with DatasetWriter(DatasetFormat.CANONICAL, FormContext(out)) as writer:
            for row in rows:
                writer.take()
                writer.keep(row["row_id"], [row])
            writer.commit(DatasetOrigin.IMPORT, options={})
        return out

    return make


def photograph(number: int) -> Image.Image:
    """Soft shapes, as different from each other as photographs are."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return coarse.resize((240, 180), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **how)
    return buffer.getvalue()


def still(row_id: str, data: bytes, **more: Any) -> Row:
    picture = Picture(data, "PNG", 240, 180, STILL, f"photos/{row_id}.png")
    return make_row(row_id, source={"file": "list.json", "key": row_id}, pictures=[picture], **more)


def with_copies(count: int) -> list[Row]:
    """Pictures, each also scaled down and recompressed."""
    rows: list[Row] = []
    for number in range(count):
        image = photograph(number)
        small = image.resize((120, 90), Image.Resampling.LANCZOS)
        rows.append(still(f"{number}/whole", encoded(image), class_name="ab"[number % 2]))
        rows.append(still(f"{number}/small", encoded(small, "JPEG", quality=75)))
        rows.append(
            still(f"{number}/worse", encoded(image, "JPEG", quality=40), attributes={"n": number % 9})
        )
    return rows


def sides_of(out: Path) -> dict[str, set[str]]:
    """The splits of each picture and its copies."""
    sides: dict[str, set[str]] = {}
    for row in iter_rows(out, columns=["row_id", "split"]):
        sides.setdefault(row["row_id"].split("/")[0], set()).add(row["split"])
    return sides


@pytest.mark.parametrize(
    "options",
    [
        SplitOptions(S.RANDOM),
        SplitOptions(S.BY_VIDEO),
        SplitOptions(S.STRATIFIED),
        SplitOptions(S.GROUPED, group_key="n"),
    ],
    ids=lambda options: options.strategy,
)
def test_altered_copies_of_a_picture_stay_on_one_side(
    made: Made, tmp_path: Path, silent: Progress, options: SplitOptions
) -> None:
    dataset = made(with_copies(30))
    manifest = split_dataset(dataset, tmp_path / "out", options, silent)
    assert {len(sides) for sides in sides_of(tmp_path / "out").values()} == {1}
    assert manifest.leakage == Leakage(0.0, 0.0, 0.0, 0.0)
    assert any("4 of 64 bits" in warning for warning in manifest.warnings)
    if options.strategy is not S.GROUPED:
        assert manifest.splits == {"train": 54, "val": 9, "test": 27}
    alone = replace(options, max_similar_bits=-1)
    manifest = split_dataset(dataset, tmp_path / "alone", alone, silent)
    assert {len(sides) for sides in sides_of(tmp_path / "alone").values()} > {1}
    assert manifest.leakage == Leakage(0.0, 0.0, 0.0, None)


def test_copies_that_a_cut_or_a_list_divides_are_reported(
    made: Made, tmp_path: Path, silent: Progress
) -> None:
    rows = with_copies(10)
    for number, row in enumerate(rows):  # ten pictures, then their small copies, then the worse ones
        row["video_id"], row["frame_index"] = "film", number // 3 + 10 * (number % 3)
    dataset = made(rows)
    third = SplitOptions(S.TEMPORAL, 1 / 3, 1 / 3, 1 / 3, gap_frames=0)
    manifest = split_dataset(dataset, tmp_path / "cut", third, silent)
    assert manifest.leakage == Leakage(1.0, 1.0, 0.0, 1.0)
    assert "leakage: 100.0% of the rows of val and test show a picture that resembles one in train" in (
        manifest.warnings
    )
    lists = {"0/whole": "train", "0/small": "test", "1/whole": "val", "1/worse": "gap", "*": "gap"}
    listed = SplitOptions(S.PREDEFINED, assignments=lists)
    manifest = split_dataset(dataset, tmp_path / "listed", listed, silent)
    assert manifest.leakage == Leakage(1.0, 1.0, 0.0, 0.5)
    assert "26 rows are in no list and lie in gap, as * says" in manifest.warnings


def test_pictures_are_read_only_to_be_compared(made: Made, tmp_path: Path, silent: Progress) -> None:
    dataset = made([still(str(number), b"no picture %d" % number) for number in range(10)])
    manifest = split_dataset(dataset, tmp_path / "blind", SplitOptions(max_similar_bits=-1), silent)
    assert not manifest.warnings
    manifest = split_dataset(dataset, tmp_path / "seen", SplitOptions(), silent)
    assert manifest.warnings == ("10 pictures cannot be decoded: compared byte for byte alone",)
    assert manifest.splits == {"train": 6, "val": 1, "test": 3}


def test_chain_of_similar_pictures_is_refused() -> None:
    """Each picture is one bit from the next, the ends are far apart."""
    keys = [RowKey(f"{place:02d}", None, None, (str(place),)) for place in range(64)]
    hashes = np.array([(1 << place) - 1 for place in range(64)], np.uint64)
    chain = AlikePictures.of([str(place) for place in range(64)], hashes, 1)
    with pytest.raises(InvalidError, match=r"tie 64 of 64 rows together.*lower max_similar_bits") as error:
        assign_splits(keys, SplitOptions(S.RANDOM, max_similar_bits=1), chain)
    assert (error.value.reason, error.value.violations[0].field) == (
        "SPLIT_IMPOSSIBLE",
        "options.max_similar_bits",
    )
    hashes[25:] = np.random.default_rng(0).integers(1 << 63, 1 << 64, 39, np.uint64)
    part = AlikePictures.of([str(place) for place in range(64)], hashes, 1)
    splits, notes = assign_splits(keys, SplitOptions(S.RANDOM, max_similar_bits=1), part)
    assert len({splits[f"{place:02d}"] for place in range(25)}) == 1
    assert notes == ["24 groups were joined to others because their pictures differ in at most 1 of 64 bits"]


def test_equal_texts_stay_on_one_side(made: Made, tmp_path: Path, silent: Progress) -> None:
    rows: list[Row] = []
    for number in range(30):
        messages = [make_message("user", [text_part(f"What is {number // 3}?")])]
        rows.append(make_row(f"{number // 3}/{number}", source={"file": "", "key": ""}, messages=messages))
    rows += [make_row(f"{n}/empty", source={"file": "", "key": ""}) for n in range(100, 110)]
    manifest = split_dataset(made(rows), tmp_path / "out", SplitOptions(S.RANDOM), silent)
    assert {len(sides) for sides in sides_of(tmp_path / "out").values()} == {1}
    assert all(
        abs(manifest.splits[split] - share * 40) <= 3 for split, share in SplitOptions().ratios.items()
    )
    assert manifest.leakage == Leakage(0.0, 0.0, 0.0, None)
    lists = SplitOptions(S.PREDEFINED, assignments={"0/0": "train", "0/1": "test", "*": "gap"})
    manifest = split_dataset(tmp_path / "made", tmp_path / "torn", lists, silent)
    assert manifest.leakage == Leakage(1.0, 0.0, 1.0, None)


# Classes


def test_stratified_split_is_nearer_to_the_shares_than_chance() -> None:
    """Objects of 30 classes, the first 100 times as frequent as the last."""
    random = np.random.default_rng(7)
    share = np.geomspace(100, 1, 30)
    keys: list[RowKey] = []
    for row in range(2000):
        names = random.choice(30, random.poisson(4), p=share / share.sum()).tolist()
        counts = Counter(f"class {name}" for name in names)
        keys.append(RowKey(f"{row}", f"film {row // 2}", row, (), classes=counts))
    options = SplitOptions(S.STRATIFIED)
    off = {
        strategy: worst_share(keys, replace(options, strategy=strategy))
        for strategy in (S.STRATIFIED, S.BY_VIDEO)
    }
    assert off[S.STRATIFIED] < off[S.BY_VIDEO] / 4


def test_stratified_split_keeps_the_ratios_of_rows_where_classes_pull_to_one_side() -> None:
    """Each class has one row, which train lacks most of."""
    keys = [RowKey(str(row), None, None, (), classes={str(row): 1}) for row in range(100)]
    splits, _ = assign_splits(keys, SplitOptions(S.STRATIFIED))
    assert Counter(splits.values()) == {Split.TRAIN: 60, Split.VAL: 10, Split.TEST: 30}


def worst_share(keys: list[RowKey], options: SplitOptions) -> float:
    """The largest difference between the share of a class that a split got and the one it should have."""
    splits, _ = assign_splits(keys, options)
    total: Counter[str] = Counter()
    got: Counter[tuple[str, Split]] = Counter()
    for key in keys:
        total.update(key.classes)
        got.update({(name, splits[key.row_id]): count for name, count in key.classes.items()})
    return max(
        abs(got[name, split] / total[name] - share)
        for name in total
        for split, share in options.ratios.items()
    )


def test_stratified_split_takes_classes_of_rows_or_none(made: Made, tmp_path: Path, silent: Progress) -> None:
    rows = [still(f"{n:03d}", b"%d" % n, class_name="cat" if n < 20 else "dog") for n in range(100)]
    options = SplitOptions(S.STRATIFIED, max_similar_bits=-1)
    manifest = split_dataset(made(rows), tmp_path / "out", options, silent)
    assert manifest.row_classes == {
        "cat": {"test": 6, "train": 12, "val": 2},
        "dog": {"test": 24, "train": 48, "val": 8},
    }
    keys = [RowKey(str(number), None, None, ()) for number in range(10)]
    splits, notes = assign_splits(keys, options)
    assert Counter(splits.values()) == {Split.TRAIN: 6, Split.VAL: 1, Split.TEST: 3}
    assert notes == ["no row has a class: divided by video, as there is nothing to stratify by"]


def test_class_table_counts_visible_objects_and_their_rows(
    made: Made, tmp_path: Path, silent: Progress
) -> None:
    def objects(*shown: bool) -> list[Any]:
        box = [0.0, 0.0, 9.0, 9.0]
        return [make_object(str(n), "cat", bbox=box, visible=visible) for n, visible in enumerate(shown)]

    shown = [(True, True), (True, False), (False,), ()]
    rows = [still(f"r{n}", b"%d" % n, objects=objects(*each)) for n, each in enumerate(shown)]
    lists = {"r0": "train", "r1": "train", "r2": "test", "*": "test"}
    options = SplitOptions(S.PREDEFINED, assignments=lists, max_similar_bits=-1)
    [found] = split_dataset(made(rows), tmp_path / "out", options, silent).classes
    assert (found.objects, found.visible, found.splits, found.rows) == (5, 3, {"train": 3}, {"train": 2})
    assert DatasetManifest.from_json(load_manifest(tmp_path / "out").to_json()).classes == (found,)
    older = load_manifest(tmp_path / "out").to_json()
    del older["row_classes"], older["classes"][0]["rows"], older["leakage"]["by_similar"]
    assert DatasetManifest.from_json(older).classes == (replace(found, rows={}),)


# Keys and lists


def test_rows_are_grouped_by_any_key(made: Made, tmp_path: Path, silent: Progress) -> None:
    rows = [still(f"r{n:02d}", b"%d" % n, attributes={"site": [n % 7, "x"]}) for n in range(70)]
    rows += [still("lost", b"lost")]
    dataset = made(rows)
    options = SplitOptions(S.GROUPED, group_key="site", max_similar_bits=-1)
    manifest = split_dataset(dataset, tmp_path / "site", options, silent)
    where: dict[int, set[str]] = {}
    for row in iter_rows(tmp_path / "site"):
        if row["row_id"] != "lost":
            where.setdefault(int(row["row_id"][1:]) % 7, set()).add(row["split"])
    assert {len(sides) for sides in where.values()} == {1}
    assert "1 rows have no site, e.g. lost: grouped by video, or each alone" in manifest.warnings
    with pytest.raises(InvalidError, match="no row has 'colour'") as error:
        split_dataset(dataset, tmp_path / "no", replace(options, group_key="colour"), silent)
    assert error.value.reason == "SPLIT_IMPOSSIBLE"
    with pytest.raises(InvalidError, match="1 videos"):  # all lie in one folder
        split_dataset(dataset, tmp_path / "no", replace(options, group_key="folder"), silent)


def test_lists_name_rows_pictures_videos_and_files() -> None:
    keys = [
        RowKey("a/0", "a", 0, ("0",), names=("x/one.jpg",), source_file="a.json"),
        RowKey("a/1", "a", 1, ("1",), names=("x/two.jpg",), source_file="a.json"),
        RowKey("b/0", "b", 0, ("2",), names=("y/one.jpg", "y/six.jpg"), source_file="b.json"),
    ]

    def look_up(**lists: str) -> list[str]:
        splits, _ = assign_splits(keys, SplitOptions(S.PREDEFINED, assignments=lists))
        return [splits[key.row_id] for key in keys]

    assert look_up(**{"a": "train", "b.json": "val"}) == ["train", "train", "val"]
    assert look_up(**{"a.json": "train", "a": "test", "b": "val"}) == ["test", "test", "val"]
    assert look_up(**{"one.jpg": "val", "two": "test"}) == ["val", "test", "val"]
    assert look_up(**{"one": "val", "x/one.jpg": "gap", "a/1": "train"}) == ["gap", "train", "val"]
    for lists, reason, told in [
        ({"a": "train", "b": "val", "c": "val", "": "val"}, "ASSIGNMENT_UNKNOWN", r"2 of 4 .*\(, c\)"),
        ({"a": "train"}, "ASSIGNMENT_INCOMPLETE", r"1 rows are in no list \(b/0\)"),
        ({"a": "train", "one.jpg": "val", "six.jpg": "test"}, "ASSIGNMENT_CONFLICT", "row b/0"),
    ]:
        with pytest.raises(InvalidError, match=told) as error:
            look_up(**lists)
        assert (error.value.reason, error.value.violations[0].field) == (reason, "options.assignments")


def test_splits_that_the_source_names_are_kept_or_replaced_with_a_word(
    made: Made, tmp_path: Path, silent: Progress
) -> None:
    names = ["train", "train", "val", "test", ""]
    dataset = made([still(f"r{n}", b"%d" % n, split=name) for n, name in enumerate(names)])
    options = SplitOptions(S.PREDEFINED, max_similar_bits=-1)
    with pytest.raises(InvalidError, match=r"1 rows have no split from the source \(r4\)"):
        split_dataset(dataset, tmp_path / "no", options, silent)
    options = replace(options, assignments={"*": "gap"})
    manifest = split_dataset(dataset, tmp_path / "kept", options, silent)
    assert manifest.splits == {"gap": 1, "test": 1, "train": 2, "val": 1}
    manifest = split_dataset(dataset, tmp_path / "new", SplitOptions(max_similar_bits=-1), silent)
    assert "the splits it had before are replaced (test 1, train 2, val 1): predefined keeps them" in (
        manifest.warnings
    )


def test_options_of_another_strategy_are_refused() -> None:
    with pytest.raises(InvalidError) as error:
        SplitOptions(S.RANDOM, group_key="site", assignments={"a": "train"})
    assert [each.field for each in error.value.violations] == ["options.group_key", "options.assignments"]
