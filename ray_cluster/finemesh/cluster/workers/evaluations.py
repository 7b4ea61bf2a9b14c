"""What a training run makes of its held-out items, put down for Tracking."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from finemesh.chassis.client_channel import DEFAULT_MAX_MESSAGE_BYTES
from finemesh.chassis.logs import get_logger
from finemesh.cluster.evaluations import SUFFIX, write_evaluation
from finemesh.core.errors import FinemeshError
from finemesh.finetune.item_results import item_digests, read_results, row_digests
from finemesh.v1.evaluation_pb2 import Evaluation, EvaluationItems, ItemMetric
from finemesh.v1.evaluation_service_pb2 import LogEvaluationRequest

MAX_BYTES: Final = DEFAULT_MAX_MESSAGE_BYTES - (1 << 20)  # of a request

_log = get_logger("finemesh.worker.evaluations")


class EvaluationSpool:
    """Puts down the evaluations of one attempt. Used from one thread; never ends a run.

    Args:
        folder: where the spools of the job are.
        run: their run.
        attempt: who evaluates.
        dataset: local folder of the dataset, and in `about` its name and digest.
        max_tokens: at which long texts are cut.
    """

    def __init__(
        self, folder: Path, run: str, attempt: int, dataset: Path, about: Evaluation, max_tokens: int
    ) -> None:
        self._folder = folder
        self._run = run
        self._attempt = attempt
        self._dataset = dataset
        self._about = about
        self._max_tokens = max_tokens
        self._digests: dict[str, dict[str, str]] = {}

    def put(self, split: str, step: int, results: Path) -> None:
        """Keep what an evaluation wrote of its items, all its variants."""
        try:
            self._put(split, step, results)
        except (OSError, FinemeshError) as error:  # a full disk, or rows that are gone
            _log.error("evaluation_lost", split=split, step=step, error=str(error))

    def _put(self, split: str, step: int, results: Path) -> None:
        for number, request in enumerate(self._requests(split, step, results)):
            path = self._folder / f"{self._attempt:06d}-{step:012d}-{split}-{number}{SUFFIX}"
            content = request.SerializeToString()
            if len(content) > MAX_BYTES:
                _log.warning("evaluation_too_large", split=split, step=step, bytes=len(content))
                continue
            write_evaluation(path, content)

    def _requests(self, split: str, step: int, results: Path) -> list[LogEvaluationRequest]:
        requests: list[LogEvaluationRequest] = []
        for found in read_results(results, split):
            if split not in self._digests:
                rows = {part for each in found.ids for part in (each, each.rpartition("#")[0])}
                self._digests[split] = row_digests(self._dataset, rows)
            metrics = [
                ItemMetric(key=key, values=values, weights=found.weights.get(key))
                for key, values in found.values.items()
            ]
            items = EvaluationItems(
                ids=found.ids,
                digests=item_digests(found.ids, self._digests[split], self._max_tokens),
                groups=found.groups,
                metrics=metrics,
            )
            request = LogEvaluationRequest(parent=self._run, evaluation=self._about, items=items)
            request.evaluation.MergeFrom(
                Evaluation(split=split, variant=found.variant, step=step, attempt=self._attempt)
            )
            requests.append(request)
        return requests
