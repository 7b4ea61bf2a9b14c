"""What a validation can find: one rule per kind of finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from finemesh.core.spec.data import Severity

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of finding. A dataset with an ERROR must not be trained on as it is."""

    severity: Severity
    title: str
    remedy: str


RULES: Final[dict[str, Rule]] = {
    # the files
    "CHECKSUM_MISMATCH": Rule(ERROR, "a file differs from the manifest", "fetch the dataset again"),
    "ROW_COUNT_MISMATCH": Rule(ERROR, "there are more or fewer rows than stated", "fetch the dataset again"),
    "LEDGER_UNBALANCED": Rule(ERROR, "the ledger does not account for every input", "make the dataset again"),
    "DUPLICATE_ROW_ID": Rule(ERROR, "two rows share an id", "make the dataset again"),
    # what was lost on the way
    "TOO_MANY_QUARANTINED": Rule(
        ERROR, "too large a share was quarantined", "read the ledger, mend the source"
    ),
    "ROWS_QUARANTINED": Rule(WARNING, "rows were quarantined", "read the ledger, mend the source"),
    # pictures
    "IMAGE_MISSING": Rule(ERROR, "a picture is not there", "add it to the source"),
    "IMAGE_UNREADABLE": Rule(ERROR, "a picture cannot be decoded", "replace it in the source"),
    "IMAGE_TRUNCATED": Rule(ERROR, "a picture ends too early", "replace it in the source"),
    "IMAGE_TOO_LARGE": Rule(
        ERROR, "a picture has too many pixels", "scale it down, or raise max_image_pixels"
    ),
    "IMAGE_HASH_MISMATCH": Rule(ERROR, "a picture differs from its digest", "fetch the dataset again"),
    "IMAGE_SIZE_MISMATCH": Rule(ERROR, "a picture is not of its stated size", "correct the source"),
    "IMAGE_FORMAT_MISMATCH": Rule(
        WARNING, "a picture is of another format than stated", "make the dataset again"
    ),
    "IMAGE_BLANK": Rule(WARNING, "a picture is of one colour", "remove it, or replace it in the source"),
    "ASPECT_RATIO": Rule(
        WARNING, "a picture is very long or very tall", "crop it, or raise max_aspect_ratio"
    ),
    "DUPLICATE_IMAGE": Rule(WARNING, "the same picture occurs twice", "remove one of the two"),
    "NEAR_DUPLICATE_IMAGE": Rule(
        WARNING, "two pictures look alike", "remove one of the two, or lower max_similar_bits"
    ),
    "MEDIA_RENDERED": Rule(
        WARNING, "pictures were rendered from masks", "import with the video or its frames"
    ),
    # objects
    "RLE_INVALID": Rule(ERROR, "a mask cannot be decoded", "correct the source"),
    "MASK_SIZE_MISMATCH": Rule(
        ERROR, "a mask is not of the size of its picture", "correct the mask, or the picture's stated size"
    ),
    "MASK_EMPTY": Rule(
        WARNING, "the mask of a visible object is empty", "remove the object, or draw its mask"
    ),
    "BOX_INVALID": Rule(ERROR, "a box is not finite, or its sides are negative", "correct the source"),
    "BOX_EMPTY": Rule(
        WARNING, "the box of a visible object has no area", "remove the object, or draw its box"
    ),
    "BOX_OUTSIDE": Rule(WARNING, "a box reaches out of its picture", "clip it in the source"),
    "BOX_MASK_DISAGREE": Rule(WARNING, "a box does not fit its mask", "correct the one that is wrong"),
    "DUPLICATE_OBJECT_ID": Rule(ERROR, "two objects of a row share an id", "correct the source"),
    "DUPLICATE_OBJECT": Rule(WARNING, "an object is annotated twice", "remove one of the two"),
    "OBJECT_INVISIBLE": Rule(INFO, "an object is hidden in a frame", "nothing: instructions leave it out"),
    # classes
    "NO_CLASS_NAMES": Rule(
        WARNING, "objects have no class names", "give them names to measure class accuracy"
    ),
    "CLASS_UNKNOWN": Rule(
        WARNING, "a class is not in the source's list", "add it to the list, or correct the annotations"
    ),
    "CLASS_UNUSED": Rule(INFO, "a class of the source's list has no example", "add examples, or drop it"),
    "CLASS_NAMES_ALIKE": Rule(
        WARNING, "names of classes differ in their spelling alone", "give them one name if they are one class"
    ),
    "TOO_FEW_ROWS": Rule(WARNING, "there are few rows", "add examples, or lower min_rows"),
    "CLASS_RARE": Rule(WARNING, "a class has few examples", "add examples, or merge it with another"),
    "CLASS_IMBALANCE": Rule(
        WARNING, "the largest class dwarfs the smallest", "balance, or weigh the metrics"
    ),
    "CLASS_LONG_TAIL": Rule(
        WARNING,
        "half of the classes have next to no examples",
        "add examples of the rare ones, or merge them",
    ),
    "CLASS_NOT_TRAINED": Rule(
        WARNING, "a class is held out but not trained on", "split again, or add examples"
    ),
    # conversations
    "ROLE_ORDER": Rule(
        ERROR, "turns are not user and assistant by turns, results behind calls", "correct the source"
    ),
    "EMPTY_TURN": Rule(ERROR, "a turn says nothing", "correct the source"),
    "EMPTY_TEXT": Rule(ERROR, "a text or caption says nothing", "correct the source"),
    "ALL_MASKED": Rule(
        ERROR, "no turn of a row carries loss", "set train (or weight) of a turn to 1, or drop the row"
    ),
    "SAME_ANSWERS": Rule(WARNING, "the chosen answer is also the rejected one", "remove the pair"),
    "PLACEHOLDER_MISMATCH": Rule(
        ERROR, "a conversation does not show each picture once", "correct the source"
    ),
    "SUSPICIOUS_ENCODING": Rule(
        WARNING, "a text was read in the wrong encoding", "export the source in UTF-8, and import it again"
    ),
    "TOKENS_TRUNCATED": Rule(
        WARNING, "a text is longer than the limit and would be cut", "shorten it, or raise max_tokens"
    ),
    # splits
    "IMAGE_LEAKAGE": Rule(
        ERROR, "pictures of val or test are also in train", "split again: copies stay together"
    ),
    "NEAR_LEAKAGE": Rule(
        WARNING,
        "pictures of val or test look like pictures of train",
        "split again with similar pictures on one side",
    ),
    "VIDEO_LEAKAGE": Rule(
        WARNING, "videos of val or test are also in train", "split by video if there are several"
    ),
}
