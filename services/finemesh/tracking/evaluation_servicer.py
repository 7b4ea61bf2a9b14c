"""`finemesh.v1.EvaluationService`: messages to use cases and back."""
# ruff: noqa: N802, ARG002  the generated base class sets names and signatures

from __future__ import annotations

from typing import Any, Final

import numpy as np

from finemesh.chassis.auth import current_principal
from finemesh.core.errors import InvalidError
from finemesh.core.names import Name, parse_name
from finemesh.core.requests import PageRequest
from finemesh.tracking.evaluation_service import Evaluations
from finemesh.tracking.evaluations import Evaluation, ItemMetric, Items
from finemesh.v1 import evaluation_pb2
from finemesh.v1 import evaluation_service_pb2 as pb
from finemesh.v1.evaluation_service_pb2_grpc import EvaluationServiceServicer

_DEFAULT_ITEMS: Final = 10_000
_MAX_ITEMS: Final = 50_000


class EvaluationServicer(EvaluationServiceServicer):
    """One method per RPC. `bucket` is where the files are."""

    def __init__(self, evaluations: Evaluations, bucket: str) -> None:
        self._evaluations = evaluations
        self._bucket = bucket

    async def LogEvaluation(
        self, request: pb.LogEvaluationRequest, context: Any
    ) -> evaluation_pb2.Evaluation:
        run = parse_name(request.parent, "runs", "parent")
        evaluation, items = _evaluation_of(run, request.evaluation), _items_of(request.items)
        return self._message(await self._evaluations.log(current_principal(), evaluation, items))

    async def GetEvaluation(
        self, request: pb.GetEvaluationRequest, context: Any
    ) -> evaluation_pb2.Evaluation:
        return self._message(await self._evaluations.get(current_principal(), _name(request.name)))

    async def ListEvaluations(
        self, request: pb.ListEvaluationsRequest, context: Any
    ) -> pb.ListEvaluationsResponse:
        run = parse_name(request.parent, "runs", "parent")
        page = PageRequest.of(request)
        found, next_page_token = await self._evaluations.list(current_principal(), run, page)
        messages = [self._message(each) for each in found]
        return pb.ListEvaluationsResponse(evaluations=messages, next_page_token=next_page_token)

    async def ReadEvaluation(
        self, request: pb.ReadEvaluationRequest, context: Any
    ) -> pb.ReadEvaluationResponse:
        if request.page_size < 0:
            raise InvalidError.of("page_size", f"{request.page_size} is negative: use 0 for the default")
        if request.page_token.strip("0123456789"):
            raise InvalidError.of("page_token", "is not a token of this list: begin without one")
        items = await self._evaluations.read(current_principal(), _name(request.name))
        start = int(request.page_token or 0)
        end = start + min(request.page_size or _DEFAULT_ITEMS, _MAX_ITEMS)
        token = str(end) if end < len(items) else ""
        return pb.ReadEvaluationResponse(items=_items_to_proto(items.part(start, end)), next_page_token=token)

    def _message(self, evaluation: Evaluation) -> evaluation_pb2.Evaluation:
        message = evaluation_pb2.Evaluation(
            name=str(evaluation.name),
            split=evaluation.split,
            variant=evaluation.variant,
            step=evaluation.step,
            attempt=evaluation.attempt,
            dataset=evaluation.dataset,
            dataset_digest=evaluation.dataset_digest,
            metrics=evaluation.metrics,
            item_count=evaluation.item_count,
            items_sha256=evaluation.items_sha256,
            sha256=evaluation.sha256,
            uri=f"s3://{self._bucket}/{evaluation.object_key}",
        )
        if evaluation.create_time is not None:
            message.create_time.FromDatetime(evaluation.create_time)
        return message


def _name(text: str) -> Name:
    return parse_name(text, "runs/evaluations")


def _evaluation_of(run: Name, message: evaluation_pb2.Evaluation) -> Evaluation:
    return Evaluation(
        run=run,
        split=message.split,
        variant=message.variant,
        step=message.step,
        attempt=message.attempt or 1,
        dataset=message.dataset,
        dataset_digest=message.dataset_digest,
    )


def _items_of(message: evaluation_pb2.EvaluationItems) -> Items:
    """The columns, not checked yet."""
    metrics = {
        each.key: ItemMetric(
            np.array(each.values, np.float64), np.array(each.weights, np.float64) if each.weights else None
        )
        for each in message.metrics
    }
    if len(metrics) < len(message.metrics):
        raise InvalidError.of("items.metrics", "names a metric twice", reason="MALFORMED_EVALUATION")
    return Items(tuple(message.ids), tuple(message.digests), tuple(message.groups), metrics)


def _items_to_proto(items: Items) -> evaluation_pb2.EvaluationItems:
    message = evaluation_pb2.EvaluationItems(ids=items.ids, digests=items.digests, groups=items.groups)
    for key, metric in items.metrics.items():
        weights = () if metric.weights is None else metric.weights.tolist()
        message.metrics.add(key=key, values=metric.values.tolist(), weights=weights)
    return message
