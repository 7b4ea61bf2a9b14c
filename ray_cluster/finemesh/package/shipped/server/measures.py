"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics


class Measures:
    """One set per server."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second series for each, which nobody reads
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "serve_requests", "Requests answered, by path and status.", ("path", "status"), registry=registry
        )
        self.seconds = Histogram(
            "serve_request_seconds", "From a request to the end of its answer.", ("path",), registry=registry
        )
        self.model_seconds = Histogram(
            "serve_model_seconds", "The model at work, a batch at a time.", registry=registry
        )
        self.batch = Histogram(
            "serve_batch_size", "Requests run together.", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self.waiting = Gauge("serve_waiting_requests", "Requests that wait for the model.", registry=registry)
        self.refused = Counter(
            "serve_refused_requests", "Requests refused since too many wait.", registry=registry
        )
        self.tokens = Counter("serve_tokens", "Tokens read and written.", ("kind",), registry=registry)
        self.ready = Gauge("serve_ready", "1 once the model is loaded.", registry=registry)
