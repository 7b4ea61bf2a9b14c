"""The bootstrap of Envoy 1.40: one listener, its filters, the clusters behind it.

Field reference: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api. There is no admin interface.
"""

from __future__ import annotations

import ipaddress
import json
from importlib import resources
from pathlib import Path
from typing import Any, Final

from finemesh.gateway.config import GatewayConfig, Tls, Upstream, UpstreamTls
from finemesh.gateway.fields import judge_script, reader_script
from finemesh.gateway.methods import read_methods
from finemesh.gateway.routes import OBJECT_STORE_CLUSTER, route_table, seconds, token_rules

_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"
_PROVIDER: Final = "finemesh"
_MEBIBYTE: Final = 1024 * 1024
_MAX_CONNECTIONS: Final = 4096
_NO_PATH: Final = "there is no %REQ(:METHOD)% %PATH(NQ:ORIG_OR_PATH)%: the protos tell all methods and paths"
# What a local reply means, by its HTTP status: google.rpc.Code (https://cloud.google.com/apis/design/errors),
# the reason of its ErrorInfo, and what to do beside Envoy's own words.
_REPLIES: Final = {
    400: (3, "MALFORMED_REQUEST", "%LOCAL_REPLY_BODY%"),
    401: (16, "TOKEN_INVALID", "%LOCAL_REPLY_BODY%: send authorization: Bearer and a token of this mesh"),
    403: (7, "TOKEN_INVALID", "%LOCAL_REPLY_BODY%: send a token that was made for this mesh"),
    404: (5, "PATH_NOT_FOUND", _NO_PATH),
    405: (12, "PATH_NOT_FOUND", _NO_PATH),
    408: (4, "REQUEST_TIMEOUT", "%LOCAL_REPLY_BODY%: send the request faster"),
    413: (11, "REQUEST_TOO_LARGE", "%LOCAL_REPLY_BODY%: upload archives and files in streams"),
    415: (3, "MALFORMED_REQUEST", "%LOCAL_REPLY_BODY%"),
    429: (8, "TOO_MANY_REQUESTS", "%LOCAL_REPLY_BODY%: wait a while, and send it again"),
    502: (14, "SERVICE_UNAVAILABLE", "%LOCAL_REPLY_BODY%: send it again"),
    503: (14, "SERVICE_UNAVAILABLE", "%LOCAL_REPLY_BODY%: send it again"),
    504: (4, "SERVICE_UNAVAILABLE", "%LOCAL_REPLY_BODY%: send it again"),
}


def write_configuration(config: GatewayConfig, path: Path) -> None:
    """Write the bootstrap as JSON, which Envoy reads like YAML. Replaces `path` in one step."""
    temporary = path.with_suffix(".new.json")
    temporary.write_text(json.dumps(envoy_bootstrap(config), indent=1))
    temporary.replace(path)


def envoy_bootstrap(config: GatewayConfig) -> dict[str, Any]:
    """The bootstrap as JSON data. Raises InvalidError if the descriptor set lacks an upstream's service."""
    clusters = [_service_cluster(upstream, config.upstream_tls) for upstream in config.upstreams]
    if config.object_store:
        clusters.append(_cluster(OBJECT_STORE_CLUSTER, config.object_store.address, http2=False))
    return {
        "node": {"id": "finemesh-gateway", "cluster": "finemesh"},
        "static_resources": {"listeners": [_listener(config)], "clusters": clusters},
        "overload_manager": _connection_limit(),
    }


def _typed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_EXTENSIONS}.{kind}", **fields}}


def _socket_address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _listener(config: GatewayConfig) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": [_connection_manager(config)]}
    if config.tls:
        chain["transport_socket"] = _tls(config.tls)
    return {
        "name": "gateway",
        "address": _socket_address(f"{config.host}:{config.port}"),
        "per_connection_buffer_limit_bytes": _MEBIBYTE,
        "filter_chains": [chain],
    }


def _tls(tls: Tls) -> dict[str, Any]:
    context = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificates": [_certificate(tls.certificate_chain, tls.private_key)],
    }
    kind = "transport_sockets.tls.v3.DownstreamTlsContext"
    return _typed("envoy.transport_sockets.tls", kind, common_tls_context=context)


def _certificate(chain: Path, private_key: Path) -> dict[str, Any]:
    return {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(private_key)}}


def _connection_manager(config: GatewayConfig) -> dict[str, Any]:
    services = [service for upstream in config.upstreams for service in upstream.services]
    return _typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        codec_type="AUTO",
        server_name="finemesh",
        use_remote_address=True,
        # Rules and routes then see the same path, so that no `/bucket/../` slips past the token.
        normalize_path=True,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        max_request_headers_kb=64,
        request_headers_timeout="15s",
        stream_idle_timeout="300s",
        common_http_protocol_options={
            "idle_timeout": "3600s",
            "headers_with_underscores_action": "DROP_HEADER",
        },
        http2_protocol_options={
            "max_concurrent_streams": 1024,
            "initial_stream_window_size": _MEBIBYTE,
            "initial_connection_window_size": 16 * _MEBIBYTE,
        },
        route_config=route_table(config, read_methods(config.descriptor_set_path, services)),
        http_filters=_filters(config),
        local_reply_config=_local_replies(),
        access_log=[_access_log(config.access_log_path)],
    )


def _filters(config: GatewayConfig) -> list[dict[str, Any]]:
    files = resources.files("finemesh.gateway")
    # One filter: the first file has the function for requests, the second that for responses.
    script = "".join(files.joinpath(name).read_text() for name in ("health.lua", "downloads.lua"))
    services = [service for upstream in config.upstreams for service in upstream.services]
    return [
        *([_typed("envoy.filters.http.cors", "filters.http.cors.v3.Cors")] if config.cors_origins else []),
        _typed("envoy.filters.http.grpc_web", "filters.http.grpc_web.v3.GrpcWeb"),
        _lua("envoy.filters.http.lua", script),
        _token_filter(config),
        _lua("finemesh.json_fields", reader_script(config.max_request_bytes)),
        _transcoder(config),
        _size_limit(config),
        _lua("finemesh.unknown_fields", judge_script(config.descriptor_set_path, services)),
        _typed("envoy.filters.http.router", "filters.http.router.v3.Router"),
    ]


def _lua(name: str, script: str) -> dict[str, Any]:
    return _typed(name, "filters.http.lua.v3.Lua", default_source_code={"inline_string": script})


def _token_filter(config: GatewayConfig) -> dict[str, Any]:
    """The token goes on to the services, which check it too. One in the query is none."""
    provider = {
        "issuer": config.issuer,
        "audiences": [config.audience],
        "forward": True,
        "clock_skew_seconds": 5,
        "require_expiration": True,
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "local_jwks": {"filename": str(config.jwks_path)},
    }
    kind = "filters.http.jwt_authn.v3.JwtAuthentication"
    rules = token_rules(config, _PROVIDER)
    preflight = bool(config.cors_origins)
    return _typed(
        "envoy.filters.http.jwt_authn",
        kind,
        providers={_PROVIDER: provider},
        rules=rules,
        bypass_cors_preflight=preflight,
    )


def _transcoder(config: GatewayConfig) -> dict[str, Any]:
    """JSON for gRPC, by the `google.api.http` bindings; server streams as Server-Sent Events."""
    return _typed(
        "envoy.filters.http.grpc_json_transcoder",
        "filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor=str(config.descriptor_set_path),
        services=[service for upstream in config.upstreams for service in upstream.services],
        convert_grpc_status=True,
        print_options={"stream_sse_style_delimited": True},
        request_validation_options={"reject_unknown_query_parameters": True},
        # A blank of a filter, as curl and forms write it.
        query_param_unescape_plus=True,
        max_request_body_size=config.max_request_bytes,
        max_response_body_size=4 * config.max_request_bytes,
    )


def _size_limit(config: GatewayConfig) -> dict[str, Any]:
    """Holds a unary request until it is whole, so that one over the limit never reaches a service.

    It comes after the transcoder, and so goes by the route of the gRPC method: streams turn it off there.
    """
    kind = "filters.http.buffer.v3.Buffer"
    return _typed("envoy.filters.http.buffer", kind, max_request_bytes=config.max_request_bytes)


def _local_replies() -> dict[str, Any]:
    """Errors of Envoy itself as google.rpc.Status in JSON. Callers that speak gRPC get a status anyway."""
    # Past the transcoder a JSON request looks like gRPC, but for the path that it came with.
    transcoded = {"name": "x-envoy-original-path", "present_match": True}
    other = {"name": "content-type", "string_match": {"prefix": "application/grpc"}, "invert_match": True}
    other["treat_missing_header_as_empty"] = True
    headers = [{"header_filter": {"header": header}} for header in (transcoded, other)]
    plain = {"or_filter": {"filters": headers}}

    def mapper(status: int, code: int, reason: str, message: str) -> dict[str, Any]:
        value = {"default_value": status, "runtime_key": f"finemesh.local_reply_{status}"}
        same = {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "finemesh"}
        body = {"code": code, "message": message, "details": [info]}
        return {
            "filter": {"and_filter": {"filters": [plain, same]}},
            "body_format_override": {"json_format": body},
        }

    return {"mappers": [mapper(status, *reply) for status, reply in _REPLIES.items()]}


def _access_log(path: Path) -> dict[str, Any]:
    """One JSON object per request. Paths without their query: presigned ones carry a signature there."""
    fields = {
        "time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ:ORIG_OR_PATH)%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "upstream": "%UPSTREAM_CLUSTER%",
        "duration_ms": "%DURATION%",
        "received_bytes": "%BYTES_RECEIVED%",
        "sent_bytes": "%BYTES_SENT%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
        "user_agent": "%REQ(USER-AGENT)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "traceparent": "%REQ(TRACEPARENT)%",
    }
    kind = "access_loggers.file.v3.FileAccessLog"
    return _typed("envoy.access_loggers.file", kind, path=str(path), log_format={"json_format": fields})


def _service_cluster(upstream: Upstream, tls: UpstreamTls | None) -> dict[str, Any]:
    cluster = _cluster(upstream.name, upstream.address, http2=True)
    return cluster | {"transport_socket": _upstream_tls(tls, upstream)} if tls else cluster


def _upstream_tls(tls: UpstreamTls, upstream: Upstream) -> dict[str, Any]:
    """Both sides prove who they are: the service by its name in the certificate."""
    host = upstream.address.rpartition(":")[0]
    name = {"san_type": "DNS", "matcher": {"exact": host}}
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificates": [_certificate(tls.certificate_chain, tls.private_key)],
        "validation_context": {
            "trusted_ca": {"filename": str(tls.authority)},
            "match_typed_subject_alt_names": [name],
        },
        "alpn_protocols": ["h2"],
    }
    kind = "transport_sockets.tls.v3.UpstreamTlsContext"
    return _typed("envoy.transport_sockets.tls", kind, common_tls_context=context, sni=host)


def _cluster(name: str, address: str, *, http2: bool) -> dict[str, Any]:
    protocol = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    options = {
        "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": protocol,
        "common_http_protocol_options": {"idle_timeout": seconds(60)},
    }
    threshold = {
        "max_connections": _MAX_CONNECTIONS,
        "max_pending_requests": 1024,
        "max_requests": 16384,
        "max_retries": 64,
    }
    endpoint = {"endpoint": {"address": _socket_address(address)}}
    return {
        "name": name,
        "type": "STATIC" if _is_ip(address) else "STRICT_DNS",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": _MEBIBYTE,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [threshold]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
    }


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


def _connection_limit() -> dict[str, Any]:
    name = "envoy.resource_monitors.global_downstream_max_connections"
    kind = "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {"resource_monitors": [_typed(name, kind, max_active_downstream_connections=_MAX_CONNECTIONS)]}
