"""data.yaml: the classes of a YOLO dataset, and the pictures of its splits. Or darknet's obj.data, which says
the same in `key = value` lines and names a file of class names.

Every scalar is taken as text, so that a class called `no` is not turned into False, and merge keys, which can
grow without bound, stay keys.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import Split
from finemesh.data.faults import RowFault
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.readers.context import ReadContext, read_needed
from finemesh.data.readers.pictures import Pictures, is_picture
from finemesh.data.readers.splits import SPLIT_NAMES

_MAX_BYTES: Final = 1 << 20
DARKNET: Final = ".data"
_SPLITS: Final = (Split.TRAIN, Split.VAL, Split.TEST)


@dataclass(frozen=True, slots=True)
class Config:
    """A data.yaml, or an obj.data.

    Attributes:
        file: its name in the source.
        root: the folder that its paths start from, as far as it lies in the source.
        names: of the classes by number.
        splits: what it says of each split: folders or lists of pictures.
        keypoint_shape: number of key points, and numbers for each (2 or 3); None without key points.
    """

    file: str
    root: str
    names: Mapping[int, str]
    splits: Mapping[Split, list[str]]
    keypoint_shape: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture of a split, or what is wrong with the line that should name one.

    Attributes:
        name: its path; of a faulty line, where it stands.
        listed_in: the .txt that names it, or "".
    """

    name: str
    split: Split
    listed_in: str = ""
    fault: RowFault | None = None


def load_config(context: ReadContext, name: str) -> Config:
    """Raises InvalidError (MALFORMED_YAML, MALFORMED_ANNOTATIONS). All it says goes to the header."""
    raw = read_needed(context.source, name)
    value = _darknet(context, raw, name) if name.endswith(DARKNET) else _parse(raw, name)
    if not isinstance(value, dict):
        raise malformed_annotations(name, "the top", "is no mapping with names, train and val")
    names = _names(value.get("names"), name)
    stated = value.get("nc")
    if isinstance(stated, str) and stated.strip() != str(len(names)):
        context.warn(f"{name}: nc is {stated}, but there are {len(names)} names: the names count")
    splits = {
        split: _texts(value[split.value], name, split.value) for split in _SPLITS if value.get(split.value)
    }
    if not splits:
        raise malformed_annotations(name, "train", "is missing, and so are val and test: name their folders")
    context.header.setdefault("yolo", {})[name] = value
    folder = str(PurePosixPath(name).parent)
    path = value.get("path")
    root = _resolve(folder, path) if isinstance(path, str) else folder
    return Config(name, root, names, splits, _keypoint_shape(value.get("kpt_shape"), name))


def _darknet(context: ReadContext, raw: bytes, name: str) -> dict[str, Any]:
    """An obj.data as if it were a data.yaml."""
    pairs = (line.partition("=") for line in _text(raw, name).splitlines() if "=" in line)
    said = {key.strip(): value.strip() for key, _, value in pairs}
    base = PurePosixPath(said.get("names", "").replace("\\", "/")).name
    files = [each for each in context.source.names if PurePosixPath(each).name == base]
    own = [each for each in files if PurePosixPath(each).parent == PurePosixPath(name).parent] or files
    if len(own) != 1:
        problem = f"is {said.get('names', '')!r}, and {len(own)} files are called so: put one beside {name}"
        raise malformed_annotations(name, "names", problem)
    lines = _text(read_needed(context.source, own[0]), own[0]).splitlines()
    value: dict[str, Any] = {"names": [line.strip() for line in lines if line.strip()]}
    keys = {"train": "train", "val": "valid", "test": "test", "nc": "classes"}
    return value | {key: said[stated] for key, stated in keys.items() if stated in said}


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {error.start}"
        raise malformed_annotations(name, where, "is not UTF-8: save it as plain text") from error


class _Loader(yaml.BaseLoader):
    """Refuses aliases, by which a short text can stand for an endless value."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read: write the value out")
        return super().compose_node(parent, index)


def _parse(raw: bytes, name: str) -> Any:
    if len(raw) > _MAX_BYTES:
        raise _malformed_yaml(name, f"it is longer than {_MAX_BYTES} bytes")
    try:
        return yaml.load(raw, Loader=_Loader)  # noqa: S506 - it makes texts, lists and mappings alone
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _malformed_yaml(name, str(error)) from error


def _malformed_yaml(name: str, problem: str) -> InvalidError:
    message = f"{name} is not valid YAML: {problem[:400]}. Mend it at that place"
    return InvalidError(message, reason="MALFORMED_YAML", metadata={"file": name})


def _names(value: Any, file: str) -> dict[int, str]:
    """Class names by number, of a list or of a mapping."""
    if isinstance(value, list):
        pairs: list[tuple[Any, Any]] = [(str(number), name) for number, name in enumerate(value)]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        raise malformed_annotations(file, "names", "is neither a list nor a mapping of class names")
    names: dict[int, str] = {}
    for key, name in pairs:
        if not isinstance(key, str) or not re.fullmatch(r"\d{1,9}", key):
            raise malformed_annotations(file, "names", f"has the key {str(key)[:40]!r}, no whole number")
        if not isinstance(name, str) or not name.strip():
            raise malformed_annotations(file, f"names[{key}]", "is empty or no text")
        names[int(key)] = name.strip()
    return names


def _texts(value: Any, file: str, key: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in values):
        raise malformed_annotations(file, key, "is no folder, no list of folders and no .txt file")
    return [item for item in values if item.strip()]


def _keypoint_shape(value: Any, file: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sound = (
        isinstance(value, list) and len(value) == 2 and all(re.fullmatch(r"\d{1,4}", str(n)) for n in value)
    )
    if not sound or int(value[0]) < 1 or int(value[1]) not in {2, 3}:
        raise malformed_annotations(file, "kpt_shape", f"is {value!r}, not [number of points, 2 or 3]")
    return int(value[0]), int(value[1])


def listed_pictures(context: ReadContext, config: Config, pictures: Pictures) -> list[Listed]:
    """The pictures of all splits, each once. Raises InvalidError (MALFORMED_ANNOTATIONS) for none."""
    found: dict[str, Listed] = {}
    repeated = 0
    for split, values in config.splits.items():
        for value in values:
            for item in _of_value(context, config, split, value, pictures):
                repeated += item.name in found
                found.setdefault(item.name, item)
    if repeated:
        context.warn(f"{config.file} names {repeated} pictures again: each is kept in its first split")
    if not found:
        said = "; ".join(f"{split} is {', '.join(values)}" for split, values in config.splits.items())
        raise malformed_annotations(
            config.file, "train", f"leads to no pictures ({said}): mend the paths, or put the pictures in"
        )
    left = [name for name in pictures.names if name not in found]
    if left:
        context.warn(f"{len(left)} pictures, such as {left[0]}, are in no split of {config.file}: left out")
    return list(found.values())


def _of_value(
    context: ReadContext, config: Config, split: Split, value: str, pictures: Pictures
) -> Iterator[Listed]:
    """The pictures of a folder, or of a .txt file with a picture per line."""
    for place, warned in _places(config, split, value):
        if place.lower().endswith(".txt") and place in pictures.files:
            found = list(_of_list(context, split, place, config, pictures))
        else:
            start = "" if place == "." else place + "/"
            found = [Listed(name, split) for name in pictures.names if name.startswith(start)]
        if found:
            if warned:
                context.warn(f"{config.file}: {split} is {value!r}, which is not there: read from {place!r}")
            yield from found
            return
    context.warn(f"{config.file}: {split} is {value!r}, which is not there: it gives no rows")


def _places(config: Config, split: Split, value: str) -> Iterator[tuple[str, bool]]:
    """Where the pictures of `value` may be, and whether that needs a warning: as it says; without its leading
    `../`, as ultralytics does; then less and less of the path, with the split's folder under other names.
    """
    folder = str(PurePosixPath(config.file).parent)
    plain = value.strip().replace("\\", "/")
    for start in dict.fromkeys((config.root, folder)):
        for said in dict.fromkeys((plain, plain.removeprefix("../"))):
            yield _resolve(start, said), False
    parts = [part for part in plain.split("/") if part not in {"", ".", ".."}]
    synonyms = SPLIT_NAMES[split]
    telling = [index for index, part in enumerate(parts) if part.lower() in synonyms]
    # Without the part that tells the split, a path would lead to the pictures of all.
    for first in range(telling[-1] + 1 if telling else len(parts)):
        for variant in _renamed(parts[first:], synonyms):
            yield _resolve(folder, "/".join(variant)), True
    for name in synonyms:
        yield _resolve(folder, f"images/{name}"), True
        yield _resolve(folder, name), True


def _renamed(parts: list[str], synonyms: tuple[str, ...]) -> Iterator[list[str]]:
    yield parts
    for index, part in enumerate(parts):
        if part.lower() in synonyms:
            yield from ([*parts[:index], name, *parts[index + 1 :]] for name in synonyms if name != part)


def _resolve(folder: str, path: str) -> str:
    """`path` from `folder`, without leaving the source; "." is the source itself."""
    joined = posixpath.normpath(posixpath.join("/", folder, path.strip().replace("\\", "/").lstrip("/")))
    return joined.lstrip("/") or "."


def _of_list(
    context: ReadContext, split: Split, name: str, config: Config, pictures: Pictures
) -> Iterator[Listed]:
    """The pictures that a .txt names, a line each; of a path that leads nowhere its end counts."""
    starts = (str(PurePosixPath(name).parent), config.root)
    for number, line in enumerate(_text(read_needed(context.source, name), name).splitlines(), start=1):
        if not (said := line.strip().replace("\\", "/")):
            continue
        parts = said.split("/")
        ends = (_resolve(start, "/".join(parts[at:])) for at in range(len(parts)) for start in starts)
        found = next((path for path in ends if path in pictures.files and is_picture(path)), None)
        where = f"{name}:{number}"
        try:
            yield Listed(found or pictures.find(said, where), split, name)
        except RowFault as fault:
            yield Listed(where, split, name, fault)
