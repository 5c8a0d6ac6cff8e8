"""Envoy's REST xDS resources as JSON: listeners with one filter chain for each host, and secrets.

Field names are those of the protocol buffers (envoy.config.listener.v3, envoy.extensions.transport_sockets.tls.v3, …).
The operator defines the clusters that they name in Envoy's bootstrap.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

LISTENER: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"
_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
SECRET: Final = _TLS + "Secret"
_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters."
_VERDICT_SECONDS: Final = "2.5s"  # verdicts are promised within 2 s; Envoy's default is 200 ms

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]

OrgId = Annotated[str, Meta(pattern=r"^[a-z0-9]{6}$")]


class Listening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A listener that `node.metadata.listeners` in Envoy's bootstrap requests.

    Args:
        protocol: `mqtt`: verdicts over gRPC (network ext_authz), before any MQTT is read; `websocket`: verdicts over
            HTTP (HTTP ext_authz), at the upgrade.
        upstream, verify, xds: names of clusters: the broker, the service that gives verdicts, these functions.
        path: the path of the WebSocket.
        proxy_protocol: whether a load balancer sends a PROXY protocol header first. Then no client may reach the
            listener around it, because Envoy takes the header from everybody and refuses a connection without one.
    """

    name: Name = "mqtts"
    address: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f.:]{2,45}$")] = "0.0.0.0"  # noqa: S104 - devices connect from everywhere
    port: Annotated[int, Meta(ge=1, le=65535)] = 8883
    protocol: Literal["mqtt", "websocket"] = "mqtt"
    upstream: Name = "broker"
    verify: Name = "verify_client"
    xds: Name = "trust_functions"
    path: Annotated[str, Meta(pattern=r"^/[A-Za-z0-9/_.-]{0,100}$")] = "/mqtt"
    proxy_protocol: bool = False


def secret_name(host: str) -> str:
    """Return the name of a host's secret."""
    return f"server/{host}"


def host_of(secret: str) -> str | None:
    """Return the host in the name of a secret; None if the name has another form."""
    kind, _, host = secret.partition("/")
    return host if kind == "server" and host else None


def listener(requested: Listening, hosts: Sequence[str]) -> dict[str, Any]:
    """Return a listener that presents the certificate of each of *hosts*, and none for any other server name."""
    return {
        "@type": LISTENER,
        "name": requested.name,
        "address": {"socket_address": {"address": requested.address, "port_value": requested.port}},
        "listener_filters": [
            *([_listener_filter("proxy_protocol", "ProxyProtocol")] if requested.proxy_protocol else []),
            _listener_filter("tls_inspector", "TlsInspector"),
        ],
        "filter_chains": [_chain(requested, host) for host in hosts],
    }


def _listener_filter(name: str, type_name: str) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.listener.{name}",
        "typed_config": {"@type": f"{_FILTERS}listener.{name}.v3.{type_name}"},
    }


def secret(host: str, certificate: str, private_key: str) -> dict[str, Any]:
    """Return the secret of a host: its certificate chain and private key, both PEM."""
    return {
        "@type": SECRET,
        "name": secret_name(host),
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate},
            "private_key": {"inline_string": private_key},
        },
    }


def _chain(requested: Listening, host: str) -> dict[str, Any]:
    filters = _websocket(requested, host) if requested.protocol == "websocket" else _mqtt(requested)
    return {
        "name": host,
        "filter_chain_match": {"server_names": [host]},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": _tls(requested, host)},
        "filters": filters,
    }


def _tls(requested: Listening, host: str) -> dict[str, Any]:
    """Return the TLS configuration of a host.

    A client certificate is requested and not required: verifyClient judges every client.
    """
    source = {
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": [requested.xds],
            "refresh_delay": "0.5s",
            "request_timeout": "5s",
        },
    }
    return {
        "@type": f"{_TLS}DownstreamTlsContext",
        "require_client_certificate": False,
        "disable_stateless_session_resumption": True,  # every connection must prove possession of its key
        "disable_stateful_session_resumption": True,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificate_sds_secret_configs": [{"name": secret_name(host), "sds_config": source}],
            "validation_context": {
                "trusted_ca": {"inline_string": _NO_CA},  # without trusted_ca, Envoy requests no certificate
                "trust_chain_verification": "ACCEPT_UNTRUSTED",
            },
        },
    }


def _mqtt(requested: Listening) -> list[dict[str, Any]]:
    return [
        {
            "name": "envoy.filters.network.ext_authz",
            "typed_config": {
                "@type": f"{_FILTERS}network.ext_authz.v3.ExtAuthz",
                "stat_prefix": "verify_client",
                "transport_api_version": "V3",
                "failure_mode_allow": False,
                "include_peer_certificate": True,
                "include_tls_session": True,
                "grpc_service": {"envoy_grpc": {"cluster_name": requested.verify}, "timeout": _VERDICT_SECONDS},
            },
        },
        {
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": f"{_FILTERS}network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "mqtt",
                "cluster": requested.upstream,
            },
        },
    ]


def _websocket(requested: Listening, host: str) -> list[dict[str, Any]]:
    manager = {
        "@type": f"{_FILTERS}network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mqtt_websocket",
        "codec_type": "HTTP1",
        "use_remote_address": True,  # else Envoy takes a client that says so for a part of its own network
        "forward_client_cert_details": "SANITIZE_SET",  # drops what the client sends in that header
        "set_current_client_cert_details": {"subject": True, "cert": True, "chain": True},
        # A server that reads `_` as `-` would read x_client_id of the client for the header that Envoy sets.
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "max_request_headers_kb": 96,  # a chain of certificates travels in a header
        "http_filters": [
            _header_filter(),
            _http_authorization(requested, host),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}http.router.v3.Router"},
            },
        ],
        "route_config": {
            "ignore_port_in_host_matching": True,
            "virtual_hosts": [
                {
                    "name": host,
                    "domains": [host],
                    "request_headers_to_add": [
                        _overwrite("x-client-org", host.partition(".")[0]),
                        _overwrite("x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
                    ],
                    "routes": [
                        {
                            "match": {"path": requested.path},
                            "route": {"cluster": requested.upstream, "timeout": "0s", "host_rewrite_literal": host},
                        }
                    ],
                }
            ],
        },
    }
    return [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]


def _header_filter() -> dict[str, Any]:
    """Return the filter that removes every header of the client but those of the WebSocket."""
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": f"{_FILTERS}http.lua.v3.Lua",
            "default_source_code": {"inline_string": _KEEP_HEADERS},
        },
    }


def _overwrite(name: str, value: str) -> dict[str, Any]:
    """Return the header *name* with *value*, in place of what the request has under that name."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _http_authorization(requested: Listening, host: str) -> dict[str, Any]:
    config = {
        "@type": f"{_FILTERS}http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "allowed_headers": {"patterns": [{"exact": "x-forwarded-client-cert", "ignore_case": True}]},
        "http_service": {
            "server_uri": {"uri": "http://verify-client", "cluster": requested.verify, "timeout": _VERDICT_SECONDS},
            "path_prefix": "/verifyClient/envoy",
            # The TLS server name of this chain; the client chooses the Host header. This value overrides a header of
            # that name from the client.
            "authorization_request": {"headers_to_add": [{"key": "x-sni", "value": host}]},
            "authorization_response": {
                "allowed_upstream_headers": {"patterns": [{"exact": name} for name in _VERDICT_HEADERS]}
            },
        },
    }
    return {"name": "envoy.filters.http.ext_authz", "typed_config": config}


# What verifyClient says about the device, for the broker.
_VERDICT_HEADERS: Final = ("x-client-id", "x-client-org", "x-client-identity")

# RFC 6455, 4.1; Envoy's pseudo headers; and the two headers that Envoy itself has written at this point. Without
# x-forwarded-proto no route matches.
_KEEP_HEADERS: Final = """\
local kept = {
  [":authority"] = true, [":method"] = true, [":path"] = true, [":scheme"] = true,
  ["connection"] = true, ["upgrade"] = true, ["origin"] = true,
  ["x-forwarded-client-cert"] = true, ["x-forwarded-proto"] = true,
  ["sec-websocket-key"] = true, ["sec-websocket-version"] = true, ["sec-websocket-protocol"] = true,
  ["sec-websocket-extensions"] = true,
}

function envoy_on_request(handle)
  local headers, removed = handle:headers(), {}
  for name in pairs(headers) do
    if not kept[name] then removed[#removed + 1] = name end
  end
  for _, name in ipairs(removed) do headers:remove(name) end
end
"""

# A CA whose private key was discarded when it was made, so that it can sign nothing.
_NO_CA: Final = """\
-----BEGIN CERTIFICATE-----
MIIBmDCCAT2gAwIBAgIUZt1ItDsicTQQMPf8fGzMu1lLgM4wCgYIKoZIzj0EAwIw
IDEeMBwGA1UEAwwVTm8gQ0EgaXMgdHJ1c3RlZCBoZXJlMCAXDTI2MTEyMzE4NDI0
MFoYDzIxMjYxMDMwMTg0MjQwWjAgMR4wHAYDVQQDDBVObyBDQSBpcyB0cnVzdGVk
IGhlcmUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQqHv//WXdd2HdmzhggNbv3
I2suGOBe2DNTkWGFl7x29E3ggleN8PCU8P68UcNGvzIHy0kXk24g1G8KA/6/shhk
o1MwUTAdBgNVHQ4EFgQUQacwtGZZlEbqgE1n2OoSr9t6sOIwHwYDVR0jBBgwFoAU
QacwtGZZlEbqgE1n2OoSr9t6sOIwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQD
AgNJADBGAiEAnKz74suH5M7uNrjAGTDc+bv7EHpYevhRiNTj07MdldICIQD17/7N
gKEboSF3Co04z+ZHjcrrjCfIZc+liIqyDw+Oew==
-----END CERTIFICATE-----
"""
