"""The checks: each looks at a row, or at the whole, and yields what it finds as (rule, field, evidence)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

from finemesh.core.spec.data import ClassCount, DatasetManifest, Leakage, ValidateOptions, ValidationLevel
from finemesh.data.faults import RowFault
from finemesh.data.images import check_picture
from finemesh.data.rle import Mask, parse
from finemesh.data.rows import picture_size
from finemesh.data.schema import ImageRow, Message, ObjectRow, Row

Found = tuple[str, str, str]
_HELD_OUT = ("val", "test")
_MAX_PIXELS = 1 << 28


def check_images(row: Row, options: ValidateOptions) -> Iterator[Found]:
    """The pictures: decodable (in full at STRICT), as large as stated, unchanged, of ordinary shape."""
    for index, image in enumerate(row["images"]):
        yield from _check_image(image, f"images[{index}]", options)


def _check_image(image: ImageRow, field: str, options: ValidateOptions) -> Iterator[Found]:
    strict = options.level is ValidationLevel.STRICT
    if hashlib.sha256(image["data"]).hexdigest() != image["sha256"]:
        yield "IMAGE_HASH_MISMATCH", field, f"its digest is not {image['sha256'][:12]}…"
    try:
        picture = check_picture(image["data"], image["media"], _MAX_PIXELS, decode=strict)
    except RowFault as fault:
        yield "IMAGE_UNREADABLE", field, fault.message
        return
    if (picture.width, picture.height) != (image["width"], image["height"]):
        stated = f"{image['width']} x {image['height']}"
        yield "IMAGE_SIZE_MISMATCH", field, f"{picture.width} x {picture.height} instead of {stated}"
    ratio = max(picture.width, picture.height) / min(picture.width, picture.height)
    if ratio > options.max_aspect_ratio:
        yield "ASPECT_RATIO", field, f"{picture.width} x {picture.height} is {ratio:.1f} to 1"


def check_objects(row: Row, options: ValidateOptions) -> Iterator[Found]:
    """Boxes and masks: sound, within the picture, agreeing with each other, each once."""
    seen: dict[tuple[object, ...], str] = {}
    for index, item in enumerate(row["objects"]):
        field = f"objects[{index}]"
        if not item["visible"]:
            yield "OBJECT_INVISIBLE", field, f"object {item['object_id']}"
        x, y, width, height = item["bbox"]
        if not all(math.isfinite(side) for side in item["bbox"]) or width < 0 or height < 0:
            yield "BOX_INVALID", f"{field}.bbox", str(item["bbox"])
            continue
        row_width, row_height = picture_size(row)
        if x < -1 or y < -1 or x + width > row_width + 1 or y + height > row_height + 1:
            yield "BOX_OUTSIDE", f"{field}.bbox", f"{item['bbox']} in {row_width} x {row_height}"
        yield from _check_mask(row, item, field, options)
        identity = (item["class_name"], tuple(item["bbox"]), item["rle_counts"])
        if item["visible"] and identity in seen:
            yield "DUPLICATE_OBJECT", field, f"the same as object {seen[identity]}"
        seen.setdefault(identity, item["object_id"])


def _check_mask(row: Row, item: ObjectRow, field: str, options: ValidateOptions) -> Iterator[Found]:
    if item["rle_counts"] is None:
        return
    try:
        width, height = picture_size(row)
        mask = parse({"size": [height, width], "counts": item["rle_counts"]}, field)
    except RowFault as fault:
        yield "RLE_INVALID", f"{field}.rle_counts", fault.message
        return
    if item["visible"]:
        overlap = _box_iou(item["bbox"], mask)
        if overlap < options.min_box_iou:
            yield "BOX_MASK_DISAGREE", f"{field}.bbox", f"overlap (IoU) with the mask's box is {overlap:.2f}"


def _box_iou(box: Sequence[float], mask: Mask) -> float:
    ax, ay, aw, ah = box
    bx, by, bw, bh = mask.box()
    shared = max(min(ax + aw, bx + bw) - max(ax, bx), 0) * max(min(ay + ah, by + bh) - max(ay, by), 0)
    union = aw * ah + bw * bh - shared
    return shared / union if union > 0 else 0.0


def check_messages(messages: Sequence[Message], images: int) -> Iterator[Found]:
    """A conversation: perhaps a system turn, then user and assistant by turns, each picture shown once."""
    if not messages:
        return
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * (len(turns) // 2)
    if not turns or turns != expected:
        yield "ROLE_ORDER", "messages", " ".join(roles)
    shown = sum(part["type"] == "image" for message in messages for part in message["content"])
    if shown != images:
        yield "PLACEHOLDER_MISMATCH", "messages", f"{shown} shown, {images} there"
    for index, message in enumerate(messages):
        text = "".join(part["text"] for part in message["content"])
        if not text.strip():
            yield "EMPTY_TURN", f"messages[{index}]", message["role"]
        if "\ufffd" in text:
            yield "SUSPICIOUS_ENCODING", f"messages[{index}]", text[:60]


def check_classes(classes: Sequence[ClassCount], options: ValidateOptions) -> Iterator[Found]:
    """The table of classes: enough of each, none dwarfed, none held out that is not trained on."""
    for item in classes:
        if item.objects < options.min_class_examples:
            yield "CLASS_RARE", item.class_name, f"{item.objects} of at least {options.min_class_examples}"
        held_out = sum(item.splits.get(split, 0) for split in _HELD_OUT)
        if held_out and not item.splits.get("train"):
            yield "CLASS_NOT_TRAINED", item.class_name, f"{held_out} held out"
    if len(classes) > 1:
        largest, smallest = max(classes, key=_size), min(classes, key=_size)
        if largest.objects > options.max_imbalance * smallest.objects:
            evidence = f"{largest.class_name} {largest.objects}, {smallest.class_name} {smallest.objects}"
            yield "CLASS_IMBALANCE", "classes", evidence


def _size(item: ClassCount) -> int:
    return item.objects


def check_leakage(leakage: Leakage, options: ValidateOptions) -> Iterator[Found]:
    """What of val and test is also in train."""
    if leakage.by_image > options.max_leakage:
        yield "IMAGE_LEAKAGE", "split", f"{leakage.by_image:.1%} of val and test"
    if leakage.by_video > options.max_leakage:
        yield "VIDEO_LEAKAGE", "split", f"{leakage.by_video:.1%} of val and test"


def check_manifest(manifest: DatasetManifest, options: ValidateOptions) -> Iterator[Found]:
    """What the manifest alone tells: losses, media, class names."""
    ledger = manifest.ledger
    if ledger.quarantined:
        share = ledger.quarantined / max(ledger.inputs, 1)
        rule = "TOO_MANY_QUARANTINED" if share > options.max_quarantined_fraction else "ROWS_QUARANTINED"
        yield rule, "ledger", f"{ledger.quarantined} of {ledger.inputs}"
    if rendered := manifest.media.get("rendered", 0):
        yield "MEDIA_RENDERED", "media", f"{rendered} of {manifest.rows} rows"
    if not manifest.has_class_names:
        yield "NO_CLASS_NAMES", "classes", "class accuracy cannot be computed"
