"""Questions that a server answers about itself and its models, over whichever of its ports can be reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

from helpers import settings
from helpers.client import access_errors, rest
from helpers.client.access import Access
from helpers.client.address import Address
from helpers.errors import RequestError, ServerError

if TYPE_CHECKING:
    from helpers.client.grpc import GrpcTransport

T = TypeVar("T")


class Questions(Protocol):
    """What can be asked.

    Each raises ServerError when nothing answers, RequestError when the server refuses, AccessError when it does not let us in.
    """

    def is_live(self) -> bool:
        """Whether the server lives."""

    def is_ready(self) -> bool:
        """Whether all its models are READY."""

    def about(self) -> dict[str, Any]:
        """Its own name, version and extensions."""

    def metadata(self, model: str) -> dict[str, Any]:
        """Names, types and shapes of a model's inputs and outputs."""

    def config(self, model: str) -> dict[str, Any]:
        """A model's whole configuration."""

    def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """Counters of a model's versions, or of all models that are loaded."""


class OverHttp:
    """Questions over HTTP.

    Args:
        address: of the HTTP port.
        access: token, and which certificates are trusted.
    """

    def __init__(self, address: Address, access: Access) -> None:
        self._address, self._access = address, access

    def is_live(self) -> bool:
        """See :class:`Questions`."""
        return self._healthy("live")

    def is_ready(self) -> bool:
        """See :class:`Questions`."""
        return self._healthy("ready")

    def about(self) -> dict[str, Any]:
        """See :class:`Questions`."""
        return self._get("/v2", "name")

    def metadata(self, model: str) -> dict[str, Any]:
        """See :class:`Questions`."""
        return self._get(f"/v2/models/{quote(model, safe='')}", "name")

    def config(self, model: str) -> dict[str, Any]:
        """See :class:`Questions`."""
        return self._get(f"/v2/models/{quote(model, safe='')}/config", "name")

    def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """See :class:`Questions`."""
        return self._get(f"/v2/models/{quote(model, safe='')}/stats" if model else "/v2/models/stats", "model_stats")["model_stats"]

    def _get(self, path: str, *fields: str) -> Any:
        """The answer, which must have these fields: many a web page answers to everything."""
        answer = rest.ask(self._address, path, access=self._access)
        if fields and not (isinstance(answer, dict) and all(name in answer for name in fields)):
            raise access_errors.no_server(self._address)
        return answer

    def _healthy(self, what: str) -> bool:
        answer = self._get(f"/v2/health/{what}")
        # Triton's is empty; other servers of the protocol say it in JSON.
        if isinstance(answer, str) and answer.strip():
            raise access_errors.no_server(self._address)
        return True


class OverGrpc:
    """Questions over gRPC, where no HTTP port can be reached.

    Args:
        address: of the gRPC port.
        access: token, and which certificates are trusted.
    """

    def __init__(self, address: Address, access: Access) -> None:
        self.access = access  # by this name explanations of failures look for it
        self._address = address
        self._transport: GrpcTransport | None = None

    def is_live(self) -> bool:
        """See :class:`Questions`."""
        return self._ask(lambda way: way.is_live())

    def is_ready(self) -> bool:
        """See :class:`Questions`."""
        return self._ask(lambda way: way.is_ready())

    def about(self) -> dict[str, Any]:
        """See :class:`Questions`."""
        return self._ask(lambda way: way.about())

    def metadata(self, model: str) -> dict[str, Any]:
        """See :class:`Questions`."""
        return self._ask(lambda way: way.metadata(model))

    def config(self, model: str) -> dict[str, Any]:
        """See :class:`Questions`."""
        return self._ask(lambda way: way.whole_config(model))

    def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """See :class:`Questions`."""
        return self._ask(lambda way: way.statistics(model))

    def _ask(self, question: Callable[[GrpcTransport], T]) -> T:
        # Loads gRPC, half a second that a server with an HTTP port need not wait for.
        from helpers.client import failures
        from helpers.client.grpc import GrpcTransport
        from helpers.client.transport import Refused, TransportError

        if self._transport is None:
            self._transport = GrpcTransport(self._address, settings.QUERY_TIMEOUT_S, self.access)
        try:
            return question(self._transport)
        except Refused as error:
            if error.reason == "restricted":
                raise failures.explain(error, "", self._address, "grpc", self) from error
            raise RequestError(str(error)) from error
        except TransportError as error:
            problem = failures.explain(error, "", self._address, "grpc", self)
            raise problem if type(problem) is not RequestError else ServerError(*problem.args) from error
