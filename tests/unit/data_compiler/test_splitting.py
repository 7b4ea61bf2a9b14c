"""Splits: by video, in time, deterministic, without leaks; and what the manifest says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions, Leakage, Split, SplitOptions, SplitStrategy
from finemesh.data import Progress, import_source, iter_rows, load_manifest, split_dataset
from finemesh.data.splitting import RowKey, assign_splits


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
