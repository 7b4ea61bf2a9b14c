"""The smallest and the largest value of each metric.

Those of stored runs follow from their points: the service summarises every run anew whose marks are not in
`summarized`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"


def upgrade() -> None:
    for name in ("min_value", "max_value"):
        op.add_column("summaries", sa.Column(name, sa.Float))
    op.execute("UPDATE runs SET summarized = '{}'")
