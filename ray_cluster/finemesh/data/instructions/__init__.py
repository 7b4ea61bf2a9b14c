"""Conversations from objects: what is asked, how it is said, and what is shown.

Planning reads annotations only and decides the fate of every input; making the pictures is a second pass.
"""

from finemesh.data.instructions.making import make_rows
from finemesh.data.instructions.pictures import Scene
from finemesh.data.instructions.planning import PLAN_COLUMNS, plan
from finemesh.data.instructions.questions import Plan, Question, Refusal
from finemesh.data.instructions.tasks import TASKS

__all__ = ["PLAN_COLUMNS", "TASKS", "Plan", "Question", "Refusal", "Scene", "make_rows", "plan"]
