"""The one door: generates the configuration of Envoy from the descriptor set that the stubs come from.

We write Envoy's configuration, not a proxy. `GatewayConfig` says what stands where, `write_configuration`
makes the bootstrap of Envoy from it. May import: finemesh.core, protobuf. Imports no service and no stub.
"""

from finemesh.gateway.bootstrap import envoy_bootstrap, write_configuration
from finemesh.gateway.config import (
    GatewayConfig,
    ObjectStore,
    Tls,
    Upstream,
    UpstreamTls,
    packaged_descriptor_set,
)

__all__ = [
    "GatewayConfig",
    "ObjectStore",
    "Tls",
    "Upstream",
    "UpstreamTls",
    "envoy_bootstrap",
    "packaged_descriptor_set",
    "write_configuration",
]
