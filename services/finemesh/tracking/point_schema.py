"""The tables of the points file, and how files of earlier releases become what this one reads.

A point is in one of three tables of equal columns, which it passes in this order:

    tail     as it was committed; no segment holds it yet
    fresh    in a segment, sorted together with those of its segment
    points   sorted together with millions of others, so that a curve lies in few places

None has an index. `everything` is all three, oldest first.
"""

from __future__ import annotations

from typing import Any, Final

from finemesh.core.errors import PreconditionError

SCHEMA_VERSION: Final = 2
COLUMNS: Final = "run_key, metric_key, attempt, step, time, value"
# Of equal steps of an attempt the one that was appended last counts, wherever it is moved to.
SORTED: Final = "run_key, metric_key, step, attempt, rowid"
POINT_TABLES: Final = ("points", "fresh", "tail")

_POINT: Final = """(
    run_key INTEGER NOT NULL, metric_key INTEGER NOT NULL, attempt SMALLINT NOT NULL,
    step BIGINT NOT NULL, time TIMESTAMP NOT NULL, value DOUBLE NOT NULL
)"""
_TABLES: Final = f"""
CREATE TABLE schema_version(version INTEGER NOT NULL);
CREATE TABLE runs(run_key INTEGER NOT NULL, run VARCHAR NOT NULL);
CREATE TABLE metrics(metric_key INTEGER NOT NULL, key VARCHAR NOT NULL);
CREATE TABLE marks(
    run_key INTEGER NOT NULL, attempt SMALLINT NOT NULL, sequence BIGINT NOT NULL,
    thinned BIGINT DEFAULT 0
);
CREATE TABLE tail{_POINT};
INSERT INTO schema_version VALUES (1);
"""  # noqa: S608  constants
# From version 1, whose points had one table and were in no segment.
_SECOND: Final = f"""
CREATE TABLE fresh{_POINT};
CREATE TABLE points{_POINT};
CREATE TABLE deleted(run VARCHAR NOT NULL);
CREATE TABLE archive(id VARCHAR NOT NULL, segment BIGINT NOT NULL);
INSERT INTO archive VALUES (uuid()::VARCHAR, 0);
CREATE VIEW everything AS
    SELECT * FROM points UNION ALL SELECT * FROM fresh UNION ALL SELECT * FROM tail;
UPDATE schema_version SET version = 2;
"""  # noqa: S608  constants
_FROM_FIRST: Final = f"""
ALTER TABLE points RENAME TO tail;
ALTER TABLE marks ADD COLUMN thinned BIGINT DEFAULT 0;
{_SECOND}
"""


def prepare(connection: Any, where: str) -> None:
    """Make the tables, or bring those of an earlier release up to date; all of it or nothing.

    Raises PreconditionError, reason POINTS_TOO_NEW.
    """
    connection.begin()
    tables = "SELECT table_name FROM duckdb_tables() WHERE table_name = 'schema_version'"
    if not connection.execute(tables).fetchall():
        connection.execute(_TABLES + _SECOND)
    [(version,)] = connection.execute("SELECT version FROM schema_version").fetchall()
    if version > SCHEMA_VERSION:
        connection.rollback()
        raise PreconditionError(
            f"{where} has schema {version}, above {SCHEMA_VERSION}: start the release that wrote it",
            reason="POINTS_TOO_NEW",
        )
    if version == 1:
        connection.execute(_FROM_FIRST)
    connection.commit()
