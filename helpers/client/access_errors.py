"""Why a server does not let us in: its token, its certificate, or a port that is encrypted where we are not, one paragraph each."""

from __future__ import annotations

import re
import socket
import ssl

from helpers import settings
from helpers.client.access import Access
from helpers.client.address import Address
from helpers.errors import AccessError, NotAServerError

# How OpenSSL (in Python) and BoringSSL (in gRPC) word it.
_UNTRUSTED = re.compile(
    r"certificate.?verify.?failed|hostname mismatch|hostname verification|peer name .* is not in peer certificate", re.I
)
_HOST_NAME = re.compile(r"hostname|ip address mismatch|peer name", re.I)
_EXPIRED = re.compile(r"expired|not yet valid", re.I)
# Seconds for the question whether a port speaks TLS: it makes a message better and must not make it late.
_LOOK_TIMEOUT_S = 1.0


def refused(address: Address, said: str, access: Access) -> AccessError:
    """The error for a server that wants a token, or another one.

    Args:
        address: where.
        said: the server's own words.
        access: what was sent.
    """
    words = " ".join(said.split())[:200].rstrip(".")
    if access.sends_token:
        return AccessError(
            f"The server at {address} does not accept the token that was sent ({words}).",
            "Expected the token that whoever runs the server has given out; it may have changed.",
            'Ask for it, and type: connect("…", token="…")',
        )
    return AccessError(
        f"The server at {address} wants a token, and none was sent ({words}).",
        "Expected the token that whoever runs the server has given out.",
        'Type: connect("…", token="…")   (in a terminal: export COURSE_TOKEN=…)',
    )


def sent_elsewhere(address: Address, said: str) -> AccessError:
    """Return the error for an answer that names another address (a redirect).

    Args:
        address: where it came from.
        said: from :func:`helpers.client.transport.elsewhere`.
    """
    return AccessError(
        f"What answers at {address} is no Triton server: {said}.",
        "Nothing was sent there: a token or a key is only for the server that you name.",
        "If that is the server, type its address. If you launched one here, look at its state: print(server)",
    )


def no_server(address: Address) -> NotAServerError:
    """Return the error for something that answers in HTTP and is no server of this kind."""
    return NotAServerError(
        f"What answers at {address} is no Triton server: it sent a page, or an answer of another kind.",
        "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002).",
        "Ask its owner for server.http_url; the port of JupyterLab or of a web page is another one.",
    )


def not_passed_on(address: Address, proxy: str, said: str) -> AccessError:
    """Return the error for a request that a proxy of the site did not pass on.

    Args:
        address: where it was to go.
        proxy: host and port of the proxy; empty where only the words name one.
        said: the proxy's own words.
    """
    words = " ".join(re.sub(r"<(style|script|title).*?</\1>|<[^>]*>", " ", said, flags=re.S).split())[:200].rstrip(".")
    return AccessError(
        f"The request to {address} went to the proxy{f' {proxy}' if proxy else ''} of your site, which did not pass it on ({words}).",
        "A proxy is for addresses outside. The server itself has not seen the request.",
        f"If the server is inside your site, type before you start JupyterLab: export no_proxy={address.host},$no_proxy",
    )


def encryption(address: Address, said: str, access: Access) -> AccessError | None:
    """The error for a connection that failed because of its encryption; None when that was not the reason.

    Args:
        address: where, and whether we encrypted.
        said: what the library said.
        access: which certificates are trusted.
    """
    scheme = address.scheme or "http"
    if not address.secure:
        if _language(address) != "TLS":
            return None
        secure = {"grpc": "grpcs", "http": "https"}.get(scheme, "grpcs")
        return AccessError(
            f"The port {address} is encrypted (TLS), and we spoke plain text to it.",
            f"Expected an address that begins with {secure}://.",
            f'Type: connect("{"grpcs" if not address.scheme else secure}://{address}", …)',
        )
    if _UNTRUSTED.search(said):
        return _untrusted(address, said, access)
    if _language(address) == "something else":
        plain = scheme.rstrip("s")
        return AccessError(
            f"The port {address} does not speak TLS: it takes plain text, or is no server of this kind.",
            f"The address began with {scheme}://, which means encrypted.",
            f'If this server is meant to be reached without encryption, type: connect("{plain}://{address}")',
        )
    return None


def _untrusted(address: Address, said: str, access: Access) -> AccessError:
    ask = 'Ask whoever runs the server for the file of its CA, and type: connect("…", ca="ca.pem")'
    if _EXPIRED.search(said):
        return AccessError(
            f"The certificate of {address} is out of date.",
            "Nothing was sent to it.",
            "Tell whoever runs the server, and look at your clock.",
        )
    if _HOST_NAME.search(said):
        return AccessError(
            f"The certificate of {address} is for another name than {address.host}.",
            "So this may be another server; nothing was sent to it.",
            "Type the address with the name that is in the certificate.",
        )
    trusted = f"the authorities in {access.ca}" if access.ca else "the authorities that this machine trusts"
    return AccessError(
        f"The certificate of {address} is not signed by {trusted}.", "So this may be another server; nothing was sent to it.", ask
    )


def _language(address: Address) -> str:
    """What answers a TLS greeting at a port: ``TLS``, ``something else``, or ``nobody``. Nothing else is sent."""
    # Only a look at which language is spoken: whose certificate it is does not matter for that.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        connection = socket.create_connection((address.dialled.host, address.port), timeout=_LOOK_TIMEOUT_S)
    except OSError:
        return "nobody"
    try:
        with connection, context.wrap_socket(connection, server_hostname=address.host):
            return "TLS"
    except TimeoutError:
        return "nobody"
    except (OSError, ValueError):
        return "something else"


def is_from_proxy(status: int, body: str) -> bool:
    """True if a refusal that came by way of a proxy is the proxy's own: servers word theirs in JSON."""
    return status == 407 or (status in (403, 502, 503, 504) and not body.lstrip().startswith("{"))


def needs_token(status: int, said: str) -> bool:
    """Whether an HTTP refusal is about the token, and not about the owner's administration key."""
    return status == 401 or (status == 403 and settings.ADMIN_HEADER not in said)
