"""Exports that share packages and expire, the garbage of the object store, and retention."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from finemesh.chassis.sql import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    numbers: dict[str, Any] = {
        "step": sa.BigInteger(),
        "download_count": sa.BigInteger(),
        "link_count": sa.BigInteger(),
    }
    texts: dict[str, Any] = {
        "group_id": sa.String(63),
        "content_key": sa.String(64),
        "waits_for": sa.String(63),
        "made_by": sa.String(512),
    }
    for name, kind in numbers.items():
        op.add_column("exports", sa.Column(name, kind, nullable=False, server_default="0"))
    for name, kind in texts.items():
        op.add_column("exports", sa.Column(name, kind, nullable=False, server_default=""))
    op.add_column("exports", sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("exports", sa.Column("files", sa.JSON(none_as_null=True)))
    op.add_column("exports", sa.Column("expire_time", UtcDateTime))
    op.add_column("exports", sa.Column("last_download_time", UtcDateTime))
    op.create_index("ix_exports_project_content", "exports", ["project", "content_key"])
    op.create_index("ix_exports_state_waits", "exports", ["state", "waits_for"])
    op.create_index("ix_exports_output", "exports", ["output_uri"])
    _fill_in_steps()
    op.create_table(
        "garbage",
        sa.Column("uri", sa.String(1024), primary_key=True),
        sa.Column("due_time", UtcDateTime, primary_key=True),
    )
    op.create_table(
        "retentions",
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("keep_last", sa.Integer),
        sa.Column("max_age_seconds", sa.Float),
        sa.Column("update_time", UtcDateTime, nullable=False),
    )


def _fill_in_steps() -> None:
    columns = [sa.column(name) for name in ("project", "id", "step")]
    exports = sa.table("exports", *columns, sa.column("source", sa.JSON))
    bind = op.get_bind()
    for project, export, source in bind.execute(
        sa.select(exports.c.project, exports.c.id, exports.c.source)
    ).fetchall():
        bind.execute(
            sa.update(exports)
            .where(exports.c.project == project, exports.c.id == export)
            .values(step=source["checkpoint"]["step"])
        )


def downgrade() -> None:
    raise RuntimeError("schemas only move forward: restore a backup to go back")
