"""What certificates need: losses and weights of checkpoints, and the step after which a probe is killed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "training_jobs", sa.Column("kill_after_step", sa.BigInteger, nullable=False, server_default="0")
    )
    for name, length in (("loss_digest", 128), ("weights_sha256", 64)):
        op.add_column("checkpoints", sa.Column(name, sa.String(length), nullable=False, server_default=""))
