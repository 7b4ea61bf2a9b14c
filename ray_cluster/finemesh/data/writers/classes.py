"""The numbers of classes in a form that numbers them."""

from __future__ import annotations

from typing import Any, Final

from finemesh.data.writers.form import FormContext

UNNAMED: Final = "object"


class ClassTable:
    """Classes by number, from 0: those of a COCO header in its order, whether they are used or not, then the
    others as they are known, or come. Objects without a class become UNNAMED, which is said.
    """

    def __init__(self, context: FormContext) -> None:
        self._context = context
        self._numbers: dict[str, int] | None = None

    @property
    def names(self) -> list[str]:
        return list(self._table())

    def index_of(self, class_name: str | None) -> int:
        table = self._table()
        if class_name is None:
            self._context.warn(f"objects without a class are called {UNNAMED!r}")
            class_name = UNNAMED
        if class_name not in table:
            table[class_name] = len(table)
            self._context.classes.append(class_name)
        return table[class_name]

    def _table(self) -> dict[str, int]:
        if self._numbers is None:  # late: a header that is still being read is complete with its first row
            known = [*coco_names(self._context.header), *self._context.classes]
            self._numbers = {name: number for number, name in enumerate(dict.fromkeys(known))}
        return self._numbers


def coco_names(header: Any) -> list[str]:
    """Names of the categories of all COCO files, in their order."""
    files = header.get("coco", {}).values()
    categories = [item for file in files for item in file.get("categories", [])]
    return [item["name"].strip() for item in categories if isinstance(item.get("name"), str)]
