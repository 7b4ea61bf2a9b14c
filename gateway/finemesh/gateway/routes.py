"""Where a request goes: the route table, and which routes need a token."""

from __future__ import annotations

from typing import Any, Final

from finemesh.gateway.config import GatewayConfig, ObjectStore, Upstream
from finemesh.gateway.methods import Methods

_TYPE: Final = "@type"
HEALTH_PREFIX: Final = "/grpc.health.v1.Health/"
LIVENESS_PATH: Final = "/healthz"
REFLECTION_PREFIXES: Final = (
    "/grpc.reflection.v1alpha.ServerReflection/",
    "/grpc.reflection.v1.ServerReflection/",
)
HEALTH_METADATA: Final = "finemesh.health"
OBJECT_STORE_CLUSTER: Final = "object_store"

# A request that no server has seen can be sent again, whatever it does: these cover the restart of a service.
_UNSEEN: Final = "connect-failure,refused-stream,reset-before-request"
# A read may have been seen.
_READ: Final = f"{_UNSEEN},unavailable,reset"


def seconds(value: float) -> str:
    """A protobuf Duration in JSON."""
    return f"{value:g}s"


def route_table(config: GatewayConfig, methods: dict[str, Methods]) -> dict[str, Any]:
    """The RouteConfiguration. First match wins."""
    routes: list[dict[str, Any]] = [_liveness()]
    if config.object_store:
        routes.append(_presigned(config.object_store, config))
    routes += _health(config)
    for prefix in REFLECTION_PREFIXES:
        routes.append(_streaming({"prefix": prefix}, config.upstreams[0].name, config))
    for upstream in config.upstreams:
        for service in upstream.services:
            routes += _service(upstream, service, methods[service], config)
    host: dict[str, Any] = {"name": "finemesh", "domains": ["*"], "routes": routes}
    if config.cors_origins:
        host["typed_per_filter_config"] = {"envoy.filters.http.cors": _cors(config.cors_origins)}
    return {"name": "finemesh", "virtual_hosts": [host]}


def token_rules(config: GatewayConfig, provider: str) -> list[dict[str, Any]]:
    """Rules of jwt_authn: everything needs a token but health checks and what S3 itself authenticates."""
    free: list[dict[str, Any]] = [{"match": {"path": LIVENESS_PATH}}, {"match": {"prefix": HEALTH_PREFIX}}]
    if config.object_store:
        free.append({"match": _presigned_match(config.object_store)})
    return [*free, {"match": {"prefix": "/"}, "requires": {"provider_name": provider}}]


def _liveness() -> dict[str, Any]:
    return {
        "match": {"path": LIVENESS_PATH},
        "direct_response": {"status": 200, "body": {"inline_string": '{"status":"SERVING"}\n'}},
        "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"}}],
    }


def _presigned_match(store: ObjectStore) -> dict[str, Any]:
    signature = {"name": "X-Amz-Signature", "present_match": True}
    return {"prefix": f"/{store.bucket}/", "query_parameters": [signature]}


def _presigned(store: ObjectStore, config: GatewayConfig) -> dict[str, Any]:
    """Presigned requests go on with their Host header, which the signature covers."""
    off = {_TYPE: "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    names = ("envoy.filters.http.grpc_json_transcoder", "envoy.filters.http.grpc_web")
    route = _streaming(_presigned_match(store), OBJECT_STORE_CLUSTER, config)
    route["route"]["retry_policy"] = _retry(_UNSEEN)
    route["typed_per_filter_config"] |= dict.fromkeys(names, off)
    return route


def _health(config: GatewayConfig) -> list[dict[str, Any]]:
    """Health checks by the service they name. For a name that nobody has, the first upstream: NOT_FOUND."""
    routes: list[dict[str, Any]] = []
    named_by = [(upstream, service) for upstream in config.upstreams for service in upstream.services]
    for upstream, service in named_by:
        named = {
            "filter": HEALTH_METADATA,
            "path": [{"key": "service"}],
            "value": {"string_match": {"exact": service}},
        }
        match = {"prefix": HEALTH_PREFIX, "dynamic_metadata": [named]}
        routes.append(_streaming(match, upstream.name, config))
    return [*routes, _streaming({"prefix": HEALTH_PREFIX}, config.upstreams[0].name, config)]


def _service(
    upstream: Upstream, service: str, methods: Methods, config: GatewayConfig
) -> list[dict[str, Any]]:
    unary: dict[str, Any] = {"cluster": upstream.name, "timeout": seconds(config.unary_timeout_seconds)}
    unary["max_stream_duration"] = {"grpc_timeout_header_max": seconds(config.unary_timeout_seconds)}
    prefix, read = f"/{service}/", unary | {"retry_policy": _retry(_READ)}
    return [
        *(_streaming({"path": prefix + name}, upstream.name, config) for name in methods.streaming),
        *({"match": {"path": prefix + name}, "route": read} for name in methods.reading),
        {"match": {"prefix": prefix}, "route": unary | {"retry_policy": _retry(_UNSEEN)}},
    ]


def _streaming(match: dict[str, Any], cluster: str, config: GatewayConfig) -> dict[str, Any]:
    """A route without limits of time and size, save for how long nothing may move."""
    unlimited = {_TYPE: "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"}
    idle = seconds(config.stream_idle_seconds)
    return {
        "match": match,
        "route": {"cluster": cluster, "timeout": "0s", "idle_timeout": idle},
        "typed_per_filter_config": {"envoy.filters.http.buffer": {**unlimited, "disabled": True}},
    }


def _retry(conditions: str) -> dict[str, Any]:
    """Tries over about five seconds, longer than a service takes to restart. Envoy draws the pauses."""
    backoff = {"base_interval": "0.25s", "max_interval": "1.5s"}
    return {"retry_on": conditions, "num_retries": 8, "retry_back_off": backoff}


def _cors(origins: tuple[str, ...]) -> dict[str, Any]:
    return {
        _TYPE: "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": origin} for origin in origins],
        "allow_methods": "GET, POST, PATCH, DELETE, PUT, OPTIONS",
        "allow_headers": "authorization, content-type, grpc-timeout, x-grpc-web, x-user-agent, traceparent, "
        "range, if-range",
        "expose_headers": "grpc-status, grpc-message, grpc-status-details-bin, content-disposition, "
        "accept-ranges, content-range, etag",
        "max_age": "600",
    }
