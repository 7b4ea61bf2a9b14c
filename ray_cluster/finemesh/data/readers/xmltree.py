"""XML that nobody vouches for: without entities, without document types, of a bounded depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring, iterparse

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.polygons import is_number

_MAX_BYTES: Final = 16 << 20
_MAX_DEPTH: Final = 32
_MAX_ELEMENTS: Final = 2_000_000
"""Within one that is held whole."""
_READ_BYTES: Final = 1 << 18
# LookupError and ValueError are expat's for encodings that it does not know.
_ERRORS: Final = (ParseError, DefusedXmlException, LookupError, ValueError, RecursionError)


def parse_xml(raw: bytes, name: str) -> Element:
    """The root of a small XML file. Raises RowFault (MALFORMED_XML)."""
    if len(raw) > _MAX_BYTES:
        raise RowFault("MALFORMED_XML", f"{name} is longer than {_MAX_BYTES} bytes", name)
    try:
        return fromstring(raw, forbid_dtd=True)
    except _ERRORS as error:
        raise RowFault("MALFORMED_XML", f"{name} is not valid XML: {_said(error)}", name) from error


def iter_xml(stream: BinaryIO, name: str) -> Iterator[tuple[int, Element]]:
    """Elements of a large XML file as they end, each with its depth; the root's is 0. What lies at depth 1 is
    forgotten after it was yielded. Raises InvalidError (MALFORMED_XML, FILE_UNREADABLE).
    """
    depth, held = -1, 0
    try:
        root: Element | None = None
        bounded = _Bounded(stream, name)
        for event, element in iterparse(bounded, events=("start", "end"), forbid_dtd=True):
            bounded.silent_bytes = 0
            if event == "start":
                depth, held = depth + 1, held + 1
                root = element if root is None else root
                if depth > _MAX_DEPTH:
                    raise _malformed(name, f"elements are nested more than {_MAX_DEPTH} deep")
                if held > _MAX_ELEMENTS:
                    raise _malformed(name, f"one element holds more than {_MAX_ELEMENTS} others")
                continue
            yield depth, element
            if depth == 1 and root is not None:
                root.clear()
                held = 0
            depth -= 1
    except _ERRORS as error:
        raise _malformed(name, _said(error)) from error
    except RowFault as fault:
        raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault


class _Bounded:
    """A stream that ends where a tag or a text does not: expat starts again at the beginning of an unfinished
    tag whenever more of it comes, which takes quadratic time, and the less so the more comes at a time.

    Attributes:
        silent_bytes: read since the parser last told of an element.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.silent_bytes = 0

    def read(self, _size: int = -1) -> bytes:
        chunk = self._stream.read(_READ_BYTES)
        self.silent_bytes += len(chunk)
        if self.silent_bytes > _MAX_BYTES:
            raise _malformed(self._name, f"a tag or a text is longer than {_MAX_BYTES} bytes")
        return chunk


def _malformed(name: str, problem: str) -> InvalidError:
    message = f"{name} is not valid XML: {problem}. Export or copy it again"
    return InvalidError(message, reason="MALFORMED_XML", metadata={"file": name})


def _said(error: BaseException) -> str:
    if isinstance(error, DefusedXmlException):
        return "it declares entities or a document type, which are not read"
    return str(error)[:200]


def as_value(element: Element, depth: int = 0) -> Any:
    """An element as JSON: its text, or a mapping of its XML attributes and children, with a list for children
    of one name. Raises RowFault (MALFORMED_XML) for what is nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise RowFault("MALFORMED_XML", f"elements are nested more than {_MAX_DEPTH} deep", element.tag)
    if not len(element) and not element.attrib:
        return (element.text or "").strip()
    value: dict[str, Any] = dict(element.attrib)
    for child in element:
        inner = as_value(child, depth + 1)
        held = value.get(child.tag)
        if held is None:
            value[child.tag] = inner
        elif isinstance(held, list):
            held.append(inner)
        else:
            value[child.tag] = [held, inner]
    if text := (element.text or "").strip():
        value["text"] = text
    return value


def number_of(text: str | None, field: str) -> float:
    """The number that `text` is. Raises RowFault (COORDINATE_INVALID)."""
    try:
        value = float(text or "")
    except ValueError as error:
        raise RowFault("COORDINATE_INVALID", f"{str(text)[:40]!r} is not a number", field) from error
    if not is_number(value):
        raise RowFault("COORDINATE_INVALID", f"{str(text)[:40]!r} is no coordinate", field)
    return value
