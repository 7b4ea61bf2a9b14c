"""From raw outputs to decisions, in numpy alone: the same code for every runtime.

    task                     outputs                                      decision
    (vision-)language        logits (G, V)                                tokens (G)
    IMAGE_CLASSIFICATION     logits (C)                                   label (1)
    SEMANTIC_SEGMENTATION    logits (C, h, w)                             map (H, W)
    DETECTION                logits (Q, C), pred_boxes (Q, 4)             boxes (N, 4), scores, labels (N)
    INSTANCE_SEGMENTATION    class_queries_logits (Q, C),                 masks (N, H, W), scores, labels (N)
                             masks_queries_logits (Q, h, w)

Shape legend: G generated tokens, V vocabulary, C classes, Q queries, N objects, h, w as the model sees a
picture, H, W as it is stored. Boxes are left, top, right, bottom in stored pixels, the surest first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_OBJECTS = 100
MOST_MASKS = 20
_CERTAIN = 0.3  # score of an object that counts as found
_FEWEST = 5  # so many of the surest count, however unsure
_SAME = 0.9  # overlap from which two objects are one

Arrays = dict[str, Any]


def decide(task: str, facts: dict[str, Any], outputs: Arrays, size_px: tuple[int, int]) -> Arrays:
    """The decision that follows from the outputs of one item.

    Args:
        task: as the manifest's spec says it.
        facts: `decisions` of the manifest: how scores are read.
        outputs: of the model, without an axis for the batch.
        size_px: height and width of the picture as it is stored.
    """
    if task == "IMAGE_CLASSIFICATION":
        return {"label": np.array([outputs["logits"].argmax()])}
    if task == "SEMANTIC_SEGMENTATION":
        return {"map": resized(outputs["logits"], size_px).argmax(0).astype(np.uint8)}
    if task == "DETECTION":
        return boxes(outputs, str(facts["scores"]), size_px)
    if task == "INSTANCE_SEGMENTATION":
        return masks(outputs, size_px)
    return {"tokens": outputs["logits"].argmax(-1)}


def boxes(outputs: Arrays, scores: str, size_px: tuple[int, int]) -> Arrays:
    """Of a detector. `scores` says what its logits are: "softmax", the last class meaning nothing, or
    "sigmoid", each class by itself.
    """
    logits_QC, centred_Q4 = outputs["logits"].astype(np.float32), outputs["pred_boxes"].astype(np.float32)
    if scores == "softmax":
        sure_QC = softmax(logits_QC)[:, :-1]
        labels_N, scores_N = sure_QC.argmax(1), sure_QC.max(1)
        order = np.argsort(-scores_N, kind="stable")[:MOST_OBJECTS]
        queries, labels_N, scores_N = order, labels_N[order], scores_N[order]
    else:
        sure_QC = 1 / (1 + np.exp(-logits_QC))
        most = min(MOST_OBJECTS, len(sure_QC))
        flat = np.argsort(-sure_QC.ravel(), kind="stable")[:most]
        queries, labels_N, scores_N = flat // sure_QC.shape[1], flat % sure_QC.shape[1], sure_QC.ravel()[flat]
    middle_N2, size_N2 = centred_Q4[queries, :2], centred_Q4[queries, 2:]
    corners_N4 = np.concatenate([middle_N2 - size_N2 / 2, middle_N2 + size_N2 / 2], axis=1)
    height, width = size_px
    scale_4 = np.array([width, height, width, height], np.float32)
    return {"boxes": corners_N4 * scale_4, "scores": scores_N, "labels": labels_N.astype(np.int64)}


def masks(outputs: Arrays, size_px: tuple[int, int]) -> Arrays:
    """Of a model with a mask for each query: scored by the class and by how sure the mask is where it is."""
    sure_QC = softmax(outputs["class_queries_logits"].astype(np.float32))[:, :-1]
    best = np.argsort(-sure_QC.ravel(), kind="stable")[:MOST_MASKS]
    found: list[tuple[float, int, Any]] = []
    for place in best.tolist():
        query, label = divmod(place, sure_QC.shape[1])
        logits_HW = resized(outputs["masks_queries_logits"][query][None], size_px)[0]
        mask_HW = logits_HW > 0
        if mask_HW.any():
            sure = float((1 / (1 + np.exp(-logits_HW[mask_HW]))).mean())
            found.append((float(sure_QC[query, label]) * sure, label, mask_HW))
    found.sort(key=lambda each: -each[0])
    return {
        "masks": np.array([each[2] for each in found], np.uint8).reshape(-1, *size_px),
        "scores": np.array([each[0] for each in found], np.float32),
        "labels": np.array([each[1] for each in found], np.int64),
    }


def agreement(ours: Arrays, theirs: Arrays) -> tuple[float, float]:
    """How much of the trained model's decision `theirs` the package made too, and of how much."""
    for name in ("tokens", "label", "map"):
        if name in theirs:
            same = ours[name].shape == theirs[name].shape and ours[name] == theirs[name]
            return float(np.sum(same)), float(theirs[name].size)
    count = max(_FEWEST, int((theirs["scores"] >= _CERTAIN).sum()))
    count = min(count, len(theirs["scores"]))
    overlaps = _overlaps(theirs, ours) * (theirs["labels"][:, None] == ours["labels"][None])
    taken: set[int] = set()
    for wanted in range(count):
        free = [place for place in np.argsort(-overlaps[wanted], kind="stable") if place not in taken][:1]
        taken |= {place for place in free if overlaps[wanted, place] >= _SAME}
    return float(len(taken)), float(count)


def softmax(logits: Any) -> Any:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def resized(values_CHW: Any, size_px: tuple[int, int]) -> Any:
    """(C, h, w) to (C, H, W), bilinear between the middles of pixels, as torch's `interpolate` does it."""
    for axis, size in ((1, size_px[0]), (2, size_px[1])):
        before = values_CHW.shape[axis]
        at = np.maximum((np.arange(size) + 0.5) * before / size - 0.5, 0)
        low = np.minimum(at.astype(np.int64), before - 1)
        share = (at - low).astype(np.float32).reshape([-1, 1] if axis == 1 else [1, -1])
        high = np.minimum(low + 1, before - 1)
        values_CHW = values_CHW.take(low, axis) * (1 - share) + values_CHW.take(high, axis) * share
    return values_CHW


def _overlaps(ours: Arrays, theirs: Arrays) -> Any:
    """Intersection over union of every object with every other, (N, M)."""
    if "masks" in ours:
        one, other = (
            each["masks"].reshape(len(each["masks"]), -1).astype(np.float32) for each in (ours, theirs)
        )
        shared = one @ other.T
        areas = one.sum(1)[:, None] + other.sum(1)[None]
    else:
        one, other = ours["boxes"][:, None], theirs["boxes"][None]
        sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
        shared = np.maximum(sides, 0).prod(-1)
        areas = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1)
    return shared / np.maximum(areas - shared, 1e-9)
