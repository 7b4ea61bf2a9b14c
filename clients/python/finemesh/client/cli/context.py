"""What every command shares: the common options, the connection they describe, and how failures end a
command.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar, cast, get_type_hints

import grpc
import typer
from rich.console import Console
from rich.markup import escape

from finemesh.client.connection import Connection, connect
from finemesh.client.errors import RpcError
from finemesh.client.events import SubscriptionError
from finemesh.client.settings import Settings, SettingsError, load_settings
from finemesh.client.transfer import TransferError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOT_FOUND: Final = 3
EXIT_DENIED: Final = 4
EXIT_UNAVAILABLE: Final = 5
EXIT_INTERRUPTED: Final = 130

EXIT_CODES: Final = {
    0: "done, and the outcome is good",
    EXIT_FAILED: "refused, or it ended badly: failed, cancelled, rejected, or a check that did not pass",
    EXIT_USAGE: "the command line, or the request, is wrong",
    EXIT_NOT_FOUND: "there is no such thing",
    EXIT_DENIED: "no token, or one without the right",
    EXIT_UNAVAILABLE: "the mesh cannot be reached",
    EXIT_INTERRUPTED: "interrupted",
}
_BY_STATUS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: EXIT_USAGE,
    grpc.StatusCode.NOT_FOUND: EXIT_NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: EXIT_DENIED,
    grpc.StatusCode.PERMISSION_DENIED: EXIT_DENIED,
    grpc.StatusCode.UNAVAILABLE: EXIT_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: EXIT_UNAVAILABLE,
}

_PIPED_WIDTH: Final = 240  # characters
# Progress and errors go to stderr: stdout can be piped, and in a pipe nothing limits the width of a table.
out: Final = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
err: Final = Console(stderr=True)


@dataclass
class Options:
    """The common options as they were given. They stand before or after the command's name."""

    server: str | None = None
    project: str | None = None
    token_file: str | None = None
    json: bool = False
    _connection: Connection | None = field(default=None, init=False)

    def settings(self) -> Settings:
        """Where the mesh is. Raises SettingsError."""
        return load_settings(server=self.server, project=self.project, token_file=self.token_file)

    def connection(self) -> Connection:
        """The connection, opened once per command."""
        if self._connection is None:
            self._connection = connect(self.settings())
        return self._connection


options: Final = Options()


def _remember(name: str) -> Callable[[Any], Any]:
    def callback(value: Any) -> Any:
        if value:
            setattr(options, name, value)
        return value

    return callback


def _option(flag: str, help_text: str) -> Any:
    name = flag.removeprefix("--").replace("-", "_")
    return typer.Option(flag, help=help_text, callback=_remember(name), rich_help_panel="Everywhere")


_COMMON: Final[dict[str, Any]] = {
    "common_json": Annotated[
        bool, _option("--json", "Print JSON in place of tables; streams print a line each.")
    ],
    "common_server": Annotated[
        str, _option("--server", "Gateway as host:port. Default: the mesh of this folder.")
    ],
    "common_project": Annotated[str, _option("--project", "Project of short ids. Default: demo.")],
    "common_token_file": Annotated[
        str, _option("--token-file", "File with the bearer token. Default: the mesh's.")
    ],
}

F = TypeVar("F", bound=Callable[..., Any])


def with_common_options(command: F) -> F:
    """The command with the common options as further parameters, which land in `options`."""

    @functools.wraps(command)
    def wrapper(**values: Any) -> Any:
        return command(**{name: value for name, value in values.items() if name not in _COMMON})

    hints = get_type_hints(command, include_extras=True)
    own = [
        each.replace(annotation=hints[each.name]) for each in inspect.signature(command).parameters.values()
    ]
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    common = [
        inspect.Parameter(name, keyword_only, annotation=kind, default=False if name == "common_json" else "")
        for name, kind in _COMMON.items()
    ]
    vars(wrapper)["__signature__"] = inspect.Signature([*own, *common])
    wrapper.__annotations__ = {**hints, **_COMMON}
    return cast("F", wrapper)


class Commands:
    """The commands on one noun. `@commands("list")` adds one."""

    def __init__(self, noun: str, help_text: str) -> None:
        self.noun = noun
        self.app = typer.Typer(help=help_text, no_args_is_help=True)

    def __call__(self, name: str) -> Callable[[F], F]:
        def add(command: F) -> F:
            self.app.command(name)(with_common_options(command))
            return command

        return add


def explain(error: Exception) -> int:
    """Prints what went wrong and what to do; returns the exit code."""
    if isinstance(error, RpcError):
        return _explain_rpc(error)
    err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    if isinstance(error, SettingsError):
        return EXIT_UNAVAILABLE if "no mesh" in str(error) else EXIT_DENIED
    return EXIT_UNAVAILABLE if isinstance(error, SubscriptionError) else EXIT_FAILED


def _explain_rpc(error: RpcError) -> int:
    message = error.message
    if error.code is grpc.StatusCode.UNAVAILABLE and not error.reason:
        message = f"the mesh cannot be reached ({message}); is `finemesh up` running? try `finemesh doctor`"
    if error.code is grpc.StatusCode.UNAUTHENTICATED and not error.reason:  # said by the gateway
        message = (
            f"the token is not accepted ({message}): give the mesh's with --token-file or FINEMESH_TOKEN"
        )
    if message == "Payload Too Large":  # said by the gateway
        message = "the request has more than the 16 MB that the gateway takes: send less of it at once"
    kind = error.reason or error.code.name
    err.print(f"[red]error:[/] {escape(message)} [dim]({kind})[/]", highlight=False, soft_wrap=True)
    for violation in error.violations:
        if violation.description not in message:
            err.print(
                f"  [yellow]{escape(violation.field)}[/]: {escape(violation.description)}", soft_wrap=True
            )
    return _BY_STATUS.get(error.code, EXIT_FAILED)


def run(app: typer.Typer) -> None:
    """Runs the command line; every expected failure ends with one message and its exit code."""
    try:
        app()
    except (RpcError, SettingsError, TransferError, SubscriptionError) as error:
        sys.exit(explain(error))
    except ValueError as error:
        if not str(error).startswith("Value out of range"):  # what protobuf says of a number for a field
            raise
        err.print(f"[red]error:[/] {error}: no field of the request holds it", highlight=False)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
