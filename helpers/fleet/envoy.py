"""The configuration of the Envoy proxy before a fleet, as people would write it, and its lists of servers.

Typical use::

    text = front(Path("/run/folder"))              # front.yaml; {http} and {grpc} stand where the ports go
    lists = endpoints([("127.0.0.1", 9003, 9004)])  # the two files that Envoy reads again whenever they are replaced
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from string import Template

from helpers.client.endpoint import GRPC_HEADER_PREFIX, TOKEN_HEADER, Address
from helpers.machine import LOOPBACK
from helpers.server.spec import PORTS

# Bytes of a request that the front keeps for that; a larger request is sent once: a batch of 128 jets has 1 MB.
FLEET_BUFFER_BYTES = 32 << 20

# How often the front sends a request again, to another server, when none has begun to work on it.
FLEET_RETRIES = 3

# Seconds that a health check may take: a server whose cores are all busy answers late, and must not leave for that.
FLEET_CHECK_TIMEOUT_S = 3.0

# The front of a fleet, the Envoy proxy before its servers.
# Seconds between two health checks of a server: after two that fail it gets no requests, after one that passes it gets them again.
FLEET_CHECK_INTERVAL_S = 0.5

FILE = "front.yaml"
# What the front says to calls that it does not let through.
REFUSAL = "The front of a fleet lets no administration through, only health, metadata, statistics and inference. Ask one of its servers."

_NO_TOKEN = "This protocol is restricted, expecting the header {} with the token of the server"

# Both lists name what is let through, not what is refused: what a later Triton adds stays closed.
_HTTP_CALLS = "/v2(/health/(live|ready)|/models/[^/]+(/versions/[0-9]+)?(/(ready|config|infer|generate(_stream)?))?)?"
_HTTP_STATISTICS = "/v2/models/([^/]+/(versions/[0-9]+/)?)?stats"
_HTTP_INFERENCE = "/v2/models/[^/]+(/versions/[0-9]+)?/(infer|generate(_stream)?)"
_GRPC_CALLS = "/inference.GRPCInferenceService/(Server(Live|Ready|Metadata)|Model(Ready|Metadata|Config|(Stream)?Infer))"
_GRPC_INFERENCE = "/inference.GRPCInferenceService/Model(Stream)?Infer"
_GRPC_STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"

_FRONT = Template("""\
# The front of a fleet: one address for HTTP and one for gRPC, and several Triton servers behind them.
node: { id: front, cluster: fleet }
admin:
  # A Unix socket in a folder that only its owner can enter: whoever reaches this page could drain the servers.
  address: { pipe: { path: "$folder/admin" } }
# Room for the expressions below that name the calls.
layered_runtime: { layers: [ { name: limits, static_layer: { re2: { max_program_size: { error_level: 500 } } } } ] }

static_resources:
  listeners:
$listeners
  clusters:
$clusters""")

_LISTENER = Template("""\
  - name: $protocol
    address: { socket_address: { address: $host, port_value: $port } }
    enable_reuse_port: false                # all threads accept from one socket
    # Its owner keeps the port for it; a program of nobody else can share it. 1, 15: SOL_SOCKET, SO_REUSEPORT
    socket_options: [ { level: 1, name: 15, int_value: 1, state: STATE_PREBIND } ]
    per_connection_buffer_limit_bytes: $buffer   # of a request, kept so that it can be sent again
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: $protocol
          codec_type: $codec
          stream_idle_timeout: 0s           # an inference may take long
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: REJECT_REQUEST
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            virtual_hosts:
            - name: fleet
              domains: ["*"]
              routes:
$guard              - match: { safe_regex: { regex: "$calls" } }
                route:
                  cluster: $protocol
                  timeout: 0s               # the client's own time-out counts
                  retry_policy:             # only where no server has begun to work on the request, or it refused to
                    retry_on: $retry_on
                    num_retries: $retries
                    retry_host_predicate:   # on another server
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config:
                        "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
                    host_selection_retry_max_attempts: 5
              - match: { safe_regex: { regex: "$statistics" } }   # counters of one server, always the same
                route: { cluster: ${protocol}_statistics, timeout: 0s, hash_policy: [ { header: { header_name: ":path" } } ] }
              - match: { prefix: "/" }
                direct_response: { status: 403, body: { inline_string: '$refusal' } }
""")

# Before the server parses anything: what comes without the secret goes no further than the front.
_GUARD = Template("""\
              - match:
                  safe_regex: { regex: "$calls" }
                  headers:
                  - { name: $header, string_match: { exact: "Bearer $token" }, invert_match: true, treat_missing_header_as_empty: true }
                direct_response: { status: 403, body: { inline_string: '$refusal' } }
""")

_CLUSTER = Template("""\
  - name: $name
    type: EDS
    eds_cluster_config:
      service_name: $protocol
      eds_config: { path_config_source: { path: "$folder/$file" } }
    connect_timeout: 1s
    ignore_health_on_host_removal: true     # what is taken from the list is gone, in good health or not
    common_lb_config:
      healthy_panic_threshold: { value: 0 } # no healthy server: say so at once
      update_merge_window: 0s               # what a health check found counts at once
$policy    circuit_breakers:
      thresholds: [ { max_connections: 99999, max_pending_requests: 99999, max_requests: 99999, max_retries: 99999 } ]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { $options: {} }
    health_checks:
    - { timeout: ${timeout}s, interval: ${interval}s, no_traffic_interval: ${interval}s, unhealthy_threshold: 2, healthy_threshold: 1,
        $check }
    outlier_detection:                      # a connection that fails is enough, and the next health check that passes brings it back
      { split_external_local_origin_errors: true, consecutive_local_origin_failure: 1, base_ejection_time: 1s, interval: 1s,
        max_ejection_percent: 50, enforcing_consecutive_5xx: 0, enforcing_success_rate: 0, enforcing_local_origin_success_rate: 0 }
""")

# Looks at every server: the common choice between two at random takes the same one twice in half of the cases when there are but two.
_LEAST_REQUEST = """\
    load_balancing_policy:
      policies:
      - typed_extension_config:
          name: envoy.load_balancing_policies.least_request
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest
            selection_method: FULL_SCAN
"""
_SAME = "    lb_policy: RING_HASH\n"


def front(folder: Path, token: str = "") -> str:
    """Envoy's configuration, with place-holders for the two ports.

    Args:
        folder: the front's private folder, in which the lists of servers lie, too.
        token: that inference needs; empty where it needs none.
    """
    listeners = _listener("http", PORTS[0], token) + _listener("grpc", PORTS[1], token)
    clusters = [
        _cluster(folder, protocol, suffix, policy)
        for protocol in ("http", "grpc")
        for suffix, policy in (("", _LEAST_REQUEST), ("_statistics", _SAME))
    ]
    return _FRONT.substitute(folder=folder, listeners=listeners.rstrip("\n"), clusters="".join(clusters))


def _listener(protocol: str, port: str, token: str) -> str:
    grpc = protocol == "grpc"
    header = f"{GRPC_HEADER_PREFIX if grpc else ''}{TOKEN_HEADER}"
    guard = _GUARD.substitute(
        calls=_GRPC_INFERENCE if grpc else _HTTP_INFERENCE, header=header, token=token, refusal=_refusal(_NO_TOKEN.format(header), grpc)
    )
    # An answer that was begun and cut off is not asked for again here: only the client knows whether it wants that.
    retry_on = "connect-failure,refused-stream,reset-before-request"
    return _LISTENER.substitute(
        protocol=protocol,
        host=LOOPBACK,
        port=port,
        buffer=FLEET_BUFFER_BYTES,
        codec="HTTP2" if grpc else "HTTP1",
        calls=_GRPC_CALLS if grpc else _HTTP_CALLS,
        statistics=_GRPC_STATISTICS if grpc else _HTTP_STATISTICS,
        retry_on=f"{retry_on},unavailable" if grpc else f"{retry_on},retriable-status-codes\n{' ' * 20}retriable_status_codes: [ 503 ]",
        retries=FLEET_RETRIES,
        refusal=_refusal(REFUSAL, grpc),
        guard=guard if token else "",
    )


def _refusal(words: str, grpc: bool) -> str:
    return words if grpc else f'{{"error":"{words}"}}'


def _cluster(folder: Path, protocol: str, suffix: str, policy: str) -> str:
    grpc = protocol == "grpc"
    return _CLUSTER.substitute(
        name=f"{protocol}{suffix}",
        protocol=protocol,
        folder=folder,
        file=file_of(protocol),
        policy=policy,
        options="http2_protocol_options" if grpc else "http_protocol_options",
        check="grpc_health_check: {}" if grpc else 'http_health_check: { path: "/v2/health/ready" }',
        timeout=FLEET_CHECK_TIMEOUT_S,
        interval=FLEET_CHECK_INTERVAL_S,
    )


def file_of(protocol: str) -> str:
    """Name of the list of servers for a protocol, ``http`` or ``grpc``."""
    return f"{protocol}_servers.yaml"


def endpoints(protocol: str, servers: Iterable[Address], draining: Collection[Address] = ()) -> str:
    """A list of servers.

    Args:
        protocol: ``http`` or ``grpc``.
        servers: their addresses for this protocol.
        draining: those among them that get no new requests.
    """
    lines = [
        "resources:",
        '- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment',
        f"  cluster_name: {protocol}",
        "  endpoints:",
        "  - lb_endpoints:",
    ]
    for server in servers:
        status = "health_status: DRAINING, " if server in draining else ""
        address = f"{{ socket_address: {{ address: {LOOPBACK}, port_value: {server.port} }} }}"
        lines.append(f"    - {{ {status}endpoint: {{ address: {address} }} }}")
    return "\n".join(lines) + "\n"
