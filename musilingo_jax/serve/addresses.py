"""Fetches a song from an allowed host, and from nowhere else.

A server that fetches what a client names can be made to ask for its client what only
the server can reach: itself, its neighbours, the metadata of a cloud. So the host must
be allowed by name, its address must be public, and the connection goes to the address
that was checked: a second look-up of the name could give another one. Redirects are
refused.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from musilingo_jax.serve.errors import Refusal

_PORTS = {"http": 80, "https": 443}
_PIECE_BYTES = 1 << 16
# Ranges of IPv6 that stand for addresses of IPv4, which may be private.
_DISGUISES = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/32", "2002::/16", "2001::/32")
)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # A zone, as in fe80::1%eth0: a link's own.
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif any(ip in network for network in _DISGUISES):
            return False
    return ip.is_global and not ip.is_multicast


def fetch(
    url: str, *, allowed: Collection[str], most_bytes: int, seconds: float, param: str
) -> bytes:
    """The content of a URL.

    Args:
      url: of the song, with http or https.
      allowed: hosts, as "example.org" or "example.org:8443".
      most_bytes: that are read.
      seconds: for all of it.
      param: where the URL is in the request.

    Raises:
      Refusal: the host is not allowed or has no public address, or the song is not
        there, too long or too slow.
    """
    parts, port = _split(url, param)
    host = (parts.hostname or "").rstrip(".")
    if host not in allowed and f"{host}:{port}" not in allowed:
        named = f"{host[:80]}" if allowed else "any host"
        raise _refusal(
            f"this server fetches no songs from {named}: send the song itself, as "
            "input_audio or a data: URL",
            param,
            "host_not_allowed",
        )
    if port != _PORTS[parts.scheme] and f"{host}:{port}" not in allowed:
        raise _refusal(
            f"port {port} of {host} is not allowed", param, "host_not_allowed"
        )
    end = time.monotonic() + seconds
    address = _resolve(host, port, param)
    try:
        return _get(parts, host, port, address, most_bytes, end, param)
    except TimeoutError as error:
        raise _refusal(
            f"{host} took longer than {seconds:g} s to send the song",
            param,
            "not_fetched",
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise _refusal(
            f"{host} did not send the song: {reason}", param, "not_fetched"
        ) from error


def _split(url: str, param: str) -> tuple[SplitResult, int]:
    """The parts of a URL and its port.

    Raises:
      Refusal: it is none, of another scheme, or has a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        host = parts.hostname or ""
    except ValueError as error:
        raise _refusal("the URL is malformed", param, "invalid_url") from error
    if parts.scheme not in _PORTS:
        raise _refusal(
            "a song is sent as a data: URL; http and https need a server that was "
            "told to allow the host",
            param,
            "invalid_url",
        )
    if not host or not host.isascii() or parts.username or parts.password:
        raise _refusal(
            "the URL must name a host in ASCII, without a user or password",
            param,
            "invalid_url",
        )
    if not url.isprintable() or not url.isascii() or " " in url:
        raise _refusal(
            "the URL must be ASCII, without spaces: escape the rest",
            param,
            "invalid_url",
        )
    return parts, port


def _resolve(host: str, port: int, param: str) -> str:
    """The address of a host; all that it has must be public.

    Raises:
      Refusal: one is not, or there is none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _refusal(f"{host} is not known", param, "not_fetched") from error
    addresses = [str(place[0]) for *_, place in found]
    if not addresses or not all(map(is_public, addresses)):
        raise _refusal(
            f"{host} has an address that is not of the public internet",
            param,
            "host_not_allowed",
        )
    return addresses[0]


def _get(
    parts: SplitResult,
    host: str,
    port: int,
    address: str,
    most_bytes: int,
    end: float,
    param: str,
) -> bytes:
    """Asks the host at this address.

    Raises:
      TimeoutError: the time is over.
      OSError: the connection fails.
      Refusal: the answer is no song, or too long.
    """
    connection = http.client.HTTPConnection(host, port)
    plain = socket.create_connection((address, port), timeout=_left(end))
    try:
        connection.sock = plain
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection.sock = plain = context.wrap_socket(plain, server_hostname=host)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept": "audio/*"})
        answer = connection.getresponse()
        if answer.status != 200:
            where = ", which redirects" if 300 <= answer.status < 400 else ""
            raise _refusal(
                f"{host} answered with status {answer.status}{where}",
                param,
                "not_fetched",
            )
        pieces: list[bytes] = []
        size = 0
        while piece := answer.read1(_PIECE_BYTES):
            size += len(piece)
            if size > most_bytes:
                raise Refusal(
                    413,
                    f"the song is longer than {most_bytes / 2**20:g} MiB",
                    param=param,
                    code="too_large",
                )
            pieces.append(piece)
            plain.settimeout(_left(end))
        return b"".join(pieces)
    finally:
        plain.close()
        connection.close()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _refusal(message: str, param: str, code: str) -> Refusal:
    return Refusal(400, message, param=param, code=code)
