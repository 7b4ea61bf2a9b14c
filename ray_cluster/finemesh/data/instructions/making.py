"""Making the rows of a plan: the pictures and the conversations."""

from __future__ import annotations

from collections.abc import Sequence

from finemesh.core.spec.data import ConvertOptions
from finemesh.data.instructions.pictures import Scene
from finemesh.data.instructions.questions import Question, row_inputs
from finemesh.data.instructions.tasks import TASKS
from finemesh.data.rows import IMAGE_PART, make_message, make_row, text_part
from finemesh.data.schema import Message, Row


def make_rows(row: Row, asked: Sequence[Question], scene: Scene, options: ConvertOptions) -> list[Row]:
    """The conversations of one input about `row`; questions about one picture share one, up to max_turns."""
    assert options.instruction is not None
    task = TASKS[options.instruction]
    turns = options.max_turns if task.inputs is row_inputs else 1
    batches = [asked[start : start + turns] for start in range(0, len(asked), turns)]
    return [_make_row(row, together, scene, options) for together in batches]


def _make_row(row: Row, asked: Sequence[Question], scene: Scene, options: ConvertOptions) -> Row:
    assert options.instruction is not None
    wanted = {object_id for question in asked for object_id in question.object_ids}
    objects = [item for item in row["objects"] if item["object_id"] in wanted]
    picture, shown = TASKS[options.instruction].show(scene, objects, options)
    return make_row(
        asked[0].question_id,
        source=row["source"],
        pictures=[picture],
        objects=shown,
        parents=list(dict.fromkeys(parent for question in asked for parent in question.parents)),
        video_id=row["video_id"],
        frame_index=row["frame_index"],
        messages=_conversation(asked),
        split=row["split"],
    )


def _conversation(asked: Sequence[Question]) -> list[Message]:
    messages: list[Message] = []
    for index, question in enumerate(asked):
        picture = [IMAGE_PART] if index == 0 else []
        messages.append(make_message("user", [*picture, text_part(question.question)]))
        messages.append(make_message("assistant", [text_part(question.answer)]))
    return messages
