"""The smallest and the largest value of each metric, and indexes to search runs by.

Those of stored runs follow from their points: the service summarises every run anew whose marks are not in
`summarized`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for name in ("min_value", "max_value"):
        op.add_column("summaries", sa.Column(name, sa.Float))
    columns = ["key", "run", "last_value", "best_value", "min_value", "max_value"]
    op.create_index("ix_summaries_search", "summaries", columns)
    op.drop_index("ix_runs_project_create_time", "runs")
    op.create_index("ix_runs_project_create_time_name", "runs", ["project", "create_time", "name"])
    op.execute("UPDATE runs SET summarized = '{}'")
