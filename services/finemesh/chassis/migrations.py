"""Schema migrations: each service carries an Alembic `migrations/versions` folder and runs it when it starts.

There is no `env.py` and no `alembic.ini`: the whole upgrade runs on a connection of the service's own engine,
in one transaction, so a failed migration leaves the database as it was. Two replicas that start together
take turns.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData

from finemesh.chassis.sql import Database
from finemesh.chassis.tables import chassis_tables
from finemesh.core.errors import PreconditionError


def create_chassis_tables_v1(op: Operations) -> None:
    """Create outbox, inbox, requests, attempts and clusters. For the first migration of a service.

    Frozen: when the tables change, `chassis_tables` of today stays behind as the tables of version 1, and a
    function of version 2 brings them up to date.
    """
    metadata = MetaData()
    chassis_tables(metadata)
    metadata.create_all(op.get_bind())


async def migrate(db: Database, package: str, version_table: str | None = None) -> None:
    """Bring `db` to the newest schema of a service.

    Args:
        db: the service's database.
        package: import name of the service, e.g. `finemesh.training`, which holds `migrations/versions`.
        version_table: where Alembic notes how far it came; by default `alembic_version_<service>`.

    Raises:
        PreconditionError: SCHEMA_TOO_NEW, a newer release of the service has migrated the database.
        UnavailableError: the database does not answer.
    """
    table = version_table or f"alembic_version_{package.rpartition('.')[2]}"
    folder = Path(str(resources.files(package) / "migrations"))
    async with db.begin() as tx:
        await tx.lock(table)
        await tx.connection.run_sync(_upgrade, folder, table)


def _upgrade(connection: Connection, folder: Path, version_table: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(current: Any, _context: MigrationContext) -> list[Any]:
        return script._upgrade_revs("head", current)  # noqa: SLF001  what alembic's own `upgrade` command runs

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection, version_table=version_table, transactional_ddl=True)
        try:
            environment.run_migrations()
        except CommandError as error:
            raise PreconditionError(
                f"this release does not know the database's schema ({error}): start the one that wrote it",
                reason="SCHEMA_TOO_NEW",
            ) from error
