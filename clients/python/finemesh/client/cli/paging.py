"""Lists over all their pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Annotated, Any, TypeVar

import typer

T = TypeVar("T")

Filter = Annotated[str, typer.Option("--filter", help="Which to show, e.g. 'state = \"SUCCEEDED\"'.")]
OrderBy = Annotated[str, typer.Option("--order-by", "--sort", help="Order, e.g. 'create_time desc'.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="At most this many.")]


def collect(
    call: Callable[[Any], Any], request: Any, items: Callable[[Any], Iterator[T]], limit: int
) -> list[T]:
    """At most `limit` items of a list method, page by page. `request` is changed."""

    def pages() -> Iterator[T]:
        while True:
            response = call(request)
            yield from items(response)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    request.page_size = min(limit, 500)
    return list(islice(pages(), limit))
