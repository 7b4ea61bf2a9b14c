"""A row in the making, to which the forms add turns, texts and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from finemesh.core.spec.data import Split
from finemesh.data.faults import RowFault
from finemesh.data.readers.conversations.fields import Fields
from finemesh.data.readers.conversations.gallery import Gallery
from finemesh.data.readers.conversations.turns import (
    ASSISTANT,
    SYSTEM,
    TOOL,
    USER,
    Turn,
    read_tools,
    read_turn,
)
from finemesh.data.rows import IMAGE_PART, make_message, make_row
from finemesh.data.schema import Message, ObjectRow, Row, SourceRef


@dataclass(slots=True)
class Draft:
    """`more` are attributes beside the fields that were not taken; `notes` gathers sentences, for people,
    about what was decided on the way.
    """

    fields: Fields
    gallery: Gallery
    messages: list[Message] = field(default_factory=list[Message])
    rejected: list[Message] = field(default_factory=list[Message])
    text: str | None = None
    captions: list[str] = field(default_factory=list[str])
    class_name: str | None = None
    objects: list[ObjectRow] = field(default_factory=list[ObjectRow])
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: list[str] = field(default_factory=list[str])

    def say(self, role: str, words: str, where: str) -> None:
        """A turn of words alone, with the pictures that they show."""
        self._add(Turn(make_message(role, self.gallery.text(words, where)), {}), where)

    def system(self, name: str = "system") -> None:
        """The field that holds the system's turn, if the record has it."""
        if words := self.fields.optional_text(name):
            self.say(SYSTEM, words, name)

    def turns(self, values: Sequence[Any], where: str, *, context: bool = False) -> None:
        """Turns of the conversation; of a mere `context`, none carries loss."""
        for index, value in enumerate(values):
            turn = read_turn(value, f"{where}[{index}]", self.gallery)
            if context and turn.message["role"] == ASSISTANT and turn.message["train"] is None:
                turn.message["train"] = False
            self._add(turn, f"{where}[{index}]")

    def reject(self, values: Sequence[Any], where: str) -> None:
        """The turns that are worse than the last."""
        for index, value in enumerate(values):
            turn = read_turn(value, f"{where}[{index}]", self.gallery)
            self._check(turn, f"{where}[{index}]")
            self._keep_more("rejected_fields", len(self.rejected), turn)
            self.rejected.append(turn.message)

    def _add(self, turn: Turn, where: str) -> None:
        if turn.message["role"] == SYSTEM and turn.empty:
            self.notes.append("empty system turns were left out")
            return
        self._check(turn, where)
        self._keep_more("message_fields", len(self.messages), turn)
        self.messages.append(turn.message)

    def _check(self, turn: Turn, where: str) -> None:
        # A function may well return nothing.
        if turn.empty and turn.message["role"] != TOOL:
            message = f"the turn of the {turn.message['role']} is empty: fill it, or remove it"
            raise RowFault("EMPTY_TURN", message, where)

    def _keep_more(self, name: str, index: int, turn: Turn) -> None:
        if turn.more:
            self.more.setdefault(name, {})[str(index)] = turn.more

    def finish(self, row_id: str, source: SourceRef, split: Split) -> Row:
        """The row. Raises RowFault (PLACEHOLDER_MISMATCH, TOOLS_INVALID, or a fault of a picture)."""
        tools: list[Any] = []
        for name in ("tools", "functions"):
            if self.fields.has(name):
                tools += read_tools(self.fields.take(name), name)
            else:
                self.fields.take(name)
        self._show_the_rest()
        return make_row(
            row_id,
            source=source,
            pictures=self.gallery.shown,
            messages=self.messages,
            rejected=self.rejected,
            tools=tools,
            text=self.text,
            captions=self.captions,
            class_name=self.class_name,
            objects=self.objects,
            parents=[f"{source['file']}#{source['key']}.objects[{i}]" for i in range(len(self.objects))],
            attributes={**self.fields.rest(), **self.more},
            split=split.value,
        )

    def _show_the_rest(self) -> None:
        """Pictures that no turn shows go before the first words of the user."""
        added = self.gallery.show_rest("images")
        if not added or not self.messages:
            return
        first = next((message for message in self.messages if message["role"] == USER), None)
        if first is None:
            message = "no turn shows the record's pictures, and none is the user's"
            raise RowFault("PLACEHOLDER_MISMATCH", message, "images")
        first["content"][:0] = [IMAGE_PART] * added
        self.notes.append("pictures that no turn shows were put before the user's first words")
