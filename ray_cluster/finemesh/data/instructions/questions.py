"""What is asked, and the fate of every input."""

from __future__ import annotations

from dataclasses import dataclass, field

from finemesh.data.schema import Row


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a picture.

    Attributes:
        question_id: of the row that is made of it; unique.
        row_id: whose picture is shown.
        object_ids: the objects it is about; none for a question about the whole picture.
        question, answer: what is said, without the picture.
        label: what is balanced: the answer itself, or the answer without its wording; "" is never cut back.
        split: of the row.
    """

    question_id: str
    row_id: str
    object_ids: tuple[str, ...]
    question: str
    answer: str
    label: str
    split: str

    @property
    def parents(self) -> list[str]:
        """The annotations it stems from."""
        return [input_id(self.row_id, object_id) for object_id in self.object_ids] or [self.row_id]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is asked about an input."""

    reason: str
    message: str


@dataclass(slots=True)
class Plan:
    """What becomes of every input, by its id and in order: questions, or a refusal where there are none."""

    questions: dict[str, list[Question]] = field(default_factory=dict[str, list[Question]])
    refusals: dict[str, Refusal] = field(default_factory=dict[str, Refusal])

    def add(self, input_id: str, outcome: Question | Refusal) -> None:
        """A question outweighs a refusal; of several refusals the first stays."""
        asked = self.questions.setdefault(input_id, [])
        if isinstance(outcome, Question):
            asked.append(outcome)
        else:
            self.refusals.setdefault(input_id, outcome)

    def withdraw(self, question: Question, input_id: str, refusal: Refusal) -> None:
        """Not to ask after all; the refusal counts if nothing else is asked of the input."""
        self.questions[input_id].remove(question)
        self.refusals.setdefault(input_id, refusal)


def input_id(row_id: str, object_id: str) -> str:
    """The id of an object within a dataset."""
    return f"{row_id}#{object_id}"


def object_inputs(row: Row) -> list[str]:
    """The inputs of a task about objects: every object, or the row if it has none."""
    return [input_id(row["row_id"], item["object_id"]) for item in row["objects"]] or [row["row_id"]]


def row_inputs(row: Row) -> list[str]:
    """The input of a task about pictures."""
    return [row["row_id"]]
