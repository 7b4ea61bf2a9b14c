"""Checks of the table of classes, and of what the manifest alone tells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from finemesh.core.spec.data import ClassCount, DatasetManifest, ValidateOptions
from finemesh.data.validation.findings import Found

_HELD_OUT: Final = ("val", "test")
_MIN_FOR_TAIL: Final = 4  # classes; of fewer, half are no tail


def class_table(manifest: DatasetManifest) -> tuple[ClassCount, ...]:
    """The classes of the objects; of a dataset without such, those of whole rows."""
    if manifest.classes:
        return manifest.classes
    rows = manifest.row_classes.items()
    return tuple(ClassCount(name, sum(s.values()), sum(s.values()), dict(s), dict(s)) for name, s in rows)


def check_classes(classes: Sequence[ClassCount], options: ValidateOptions) -> Iterator[Found]:
    """Enough of each class, none dwarfed, no long tail, none held out that is not trained on."""
    for item in classes:
        if item.objects < options.min_class_examples:
            yield "CLASS_RARE", item.class_name, f"{item.objects} of at least {options.min_class_examples}"
        held_out = sum(item.splits.get(split, 0) for split in _HELD_OUT)
        if held_out and not item.splits.get("train"):
            yield "CLASS_NOT_TRAINED", item.class_name, f"{held_out} held out"
    yield from _check_balance(classes, options)
    yield from _check_names(classes)


def _check_balance(classes: Sequence[ClassCount], options: ValidateOptions) -> Iterator[Found]:
    ranked = sorted(classes, key=lambda item: item.objects)
    if len(ranked) < 2:
        return
    smallest, largest = ranked[0], ranked[-1]
    if largest.objects > options.max_imbalance * smallest.objects:
        evidence = f"{largest.class_name} {largest.objects}, {smallest.class_name} {smallest.objects}"
        yield "CLASS_IMBALANCE", "classes", evidence
    total = sum(item.objects for item in ranked)
    tail = ranked[: len(ranked) // 2]
    share = sum(item.objects for item in tail) / max(total, 1)
    if len(ranked) >= _MIN_FOR_TAIL and share < options.min_tail_share:
        evidence = f"the rarer {len(tail)} of {len(ranked)} classes hold {share:.1%} of the objects"
        yield "CLASS_LONG_TAIL", "classes", evidence


def _check_names(classes: Sequence[ClassCount]) -> Iterator[Found]:
    """Names that a person would take for one."""
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for item in classes:
        spellings["".join(letter for letter in item.class_name.casefold() if letter.isalnum())].append(
            item.class_name
        )
    for plain, names in spellings.items():
        if plain and len(names) > 1:
            yield "CLASS_NAMES_ALIKE", "classes", ", ".join(repr(name) for name in names)


def check_manifest(manifest: DatasetManifest, options: ValidateOptions) -> Iterator[Found]:
    """What the manifest alone tells: losses, media, class names, how much there is."""
    ledger = manifest.ledger
    if ledger.quarantined:
        share = ledger.quarantined / max(ledger.inputs, 1)
        rule = "TOO_MANY_QUARANTINED" if share > options.max_quarantined_fraction else "ROWS_QUARANTINED"
        yield rule, "ledger", f"{ledger.quarantined} of {ledger.inputs}"
    if rendered := manifest.media.get("rendered", 0):
        yield "MEDIA_RENDERED", "media", f"{rendered} of {manifest.rows} rows"
    if manifest.rows < options.min_rows:
        yield "TOO_FEW_ROWS", "rows", f"{manifest.rows} of at least {options.min_rows}"
    counted = {item.class_name for item in manifest.classes} | manifest.row_classes.keys()
    classed = manifest.has_class_names or manifest.row_classes
    if not classed and manifest.media and manifest.conversations < manifest.rows:
        yield "NO_CLASS_NAMES", "classes", "class accuracy cannot be computed"
    declared = declared_classes(manifest.header)
    if declared:
        for name in sorted(counted - declared):
            yield "CLASS_UNKNOWN", name, "the source's own list of classes lacks it"
        for name in sorted(declared - counted):
            yield "CLASS_UNUSED", name, "the source's list of classes has it, but no row"


def declared_classes(header: Mapping[str, Any]) -> frozenset[str]:
    """The classes that the source says it has: `categories` as in COCO, `names` as in YOLO's data.yaml."""
    found: set[str] = set()
    for key, value in header.items():
        if key == "categories" and isinstance(value, list):
            found |= {item["name"] for item in value if isinstance(item, dict) and _is_name(item.get("name"))}
        elif key == "names" and isinstance(value, list | dict):
            names: list[Any] = list(value.values()) if isinstance(value, dict) else value
            found |= {name for name in names if _is_name(name)}
        elif isinstance(value, dict):
            found |= declared_classes(value)
    return frozenset(name.strip() for name in found)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
