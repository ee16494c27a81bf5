"""Download from public hosts, within limits of size and time, when the user allows it.

A host name is resolved once. Every address of it is checked, and the connection goes to one of the checked addresses.
So a name whose answer changes meanwhile leads nowhere else. Each redirect is checked the same way. Proxies from the
environment are not used, because then the proxy would choose the address.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from slime_vlm.errors import MediaError, one_line

MAX_DOWNLOAD = 50_000_000
"""Default limit on the size of a download, in bytes."""

MAX_REDIRECTS = 5
SILENCE_SECONDS = 20.0
"""How long a server may send nothing."""

TOTAL_SECONDS = 120.0
"""How long a download may take."""

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(block)
    for block in (
        "168.63.129.16/32",  # the host of a virtual machine on Azure
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is the host of a virtual machine on Oracle's cloud
        "192.88.99.0/24",  # relays of 6to4
        "::/96",  # embeds an IPv4 address, as the next two
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
    )
)
"""Blocks that some versions of Python take for public. Source: the special-purpose registries of IANA."""

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK = 1 << 16
# Characters that stay as they are in a path or query. The percent sign is one, so that escapes stay escapes.
_SAFE = "/%:;=@!$&'()*+,~?"

Resolver = Callable[[str, int], list[str]]


def is_address(spec: str) -> bool:
    """Tell whether a text is an address such as `https://...` rather than the name of a file."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", spec) is not None


def download(url: str, target: Path, max_bytes: int = MAX_DOWNLOAD, resolve: Resolver | None = None) -> None:
    """Download a file.

    Args:
        url: An http or https address.
        target: The file to write.
        max_bytes: The largest size of the download.
        resolve: Returns the checked addresses of a host, `public_addresses` by default.

    Raises:
        MediaError: The address is malformed, not http(s) or not public, or the server cannot be reached, answers with
            an error, redirects too often, or sends too much or too slowly.
    """
    location = url
    watchdog = _Watchdog(TOTAL_SECONDS)
    try:
        for _ in range(1 + MAX_REDIRECTS):
            connection = _connect(_parts(location), resolve or public_addresses, watchdog)
            try:
                response = connection.getresponse()
                if response.status not in _REDIRECTS:
                    _save(response, url, target, max_bytes)
                    watchdog.check()
                    return
                location = urljoin(location, response.headers.get("Location", ""))
            finally:
                connection.close()
    except Exception as error:
        # What fails when the watchdog ends the connection is any of many errors, or a download that seems complete.
        if watchdog.expired:
            raise MediaError(
                f"{url}: it took longer than {TOTAL_SECONDS:g} seconds; download the file yourself"
            ) from None
        if isinstance(error, TimeoutError):
            raise MediaError(
                f"{url}: the server sent nothing for {SILENCE_SECONDS:g} seconds; try again later"
            ) from None
        if isinstance(error, ssl.SSLCertVerificationError):
            raise MediaError(f"{url}: the server's certificate is not valid ({error.verify_message})") from error
        if isinstance(error, (OSError, http.client.HTTPException, UnicodeError)):
            raise MediaError(f"{url}: cannot be downloaded ({one_line(error)}); check the address") from error
        raise
    finally:
        watchdog.stop()
    raise MediaError(f"{url}: more than {MAX_REDIRECTS} redirects; give the address that they lead to")


class _Watchdog:
    """End the connection when a download has taken too long, whatever the server sends meanwhile.

    A time-out of a socket ends silence alone. A server may drip a header, send `100 Continue` for ever, or never end a
    chunk's size.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(max(seconds, 0.0), self._expire)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connection: socket.socket) -> None:
        """End this connection, instead of the one before, when the time is over."""
        with self._lock:
            self._socket = connection
        self.check()

    def check(self) -> None:
        """Raise `TimeoutError` if the time is over."""
        if self.expired:
            self._expire()
            raise TimeoutError

    def stop(self) -> None:
        """Stop waiting for the end of the time."""
        self._timer.cancel()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            if self._socket is not None:
                # Another thread waits in a read, which `close` alone would not end.
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


def public_addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, all of them public.

    Raises:
        MediaError: The host is unknown, or one of its addresses is not public.
    """
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise MediaError(f"{host}: no such host; check the address") from None
    for address in found:
        if not is_public(address):
            raise MediaError(f"{host}: its address {address} is not public; download the file yourself")
    return list(dict.fromkeys(found))


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the open internet and embeds no other address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip.is_site_local):
        return False
    # is_global covers much of this, but differs between versions of Python.
    special = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_reserved
    listed = any(ip in block for block in _NOT_PUBLIC)
    return ip.is_global and not special and not ip.is_unspecified and not listed


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise MediaError(f"{url}: not an address to download from, expected http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise MediaError(
            f"{parts.scheme}://{parts.hostname}: the address holds a user name; download the file yourself"
        )
    return parts


def _connect(parts: SplitResult, resolve: Resolver, watchdog: _Watchdog) -> http.client.HTTPConnection:
    """Send the request to the first address that can be reached."""
    assert parts.hostname is not None
    port = parts.port or _PORTS[parts.scheme]
    host = parts.hostname.encode("idna").decode("ascii")
    reached, failure = None, OSError("no address")
    for address in resolve(host, port):
        try:
            reached = socket.create_connection((address, port), timeout=SILENCE_SECONDS)
            break
        except OSError as error:
            failure = error
    if reached is None:
        raise failure
    watchdog.watch(reached)
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, context=context)
            connection.sock = context.wrap_socket(reached, server_hostname=host, do_handshake_on_connect=False)
            # Wrapping takes the socket over, so the wrapped one has to be watched before it shakes hands.
            watchdog.watch(connection.sock)
            connection.sock.do_handshake()
        else:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = reached
        # Otherwise http.client would reconnect by name, unchecked, when the socket is closed.
        connection.auto_open = 0
        path = quote(parts.path or "/", safe=_SAFE)
        if parts.query:
            path += f"?{quote(parts.query, safe=_SAFE)}"
        headers = {"User-Agent": "slime-vlm", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
        connection.request("GET", path, headers=headers)
    except BaseException:
        reached.close()
        raise
    return connection


def _save(response: http.client.HTTPResponse, url: str, target: Path, max_bytes: int) -> None:
    if response.status != http.HTTPStatus.OK:
        raise MediaError(f"{url}: the server answers {response.status} {response.reason}; check the address")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise MediaError(f"{url}: the server compresses it with {encoding}; download the file yourself")
    announced = response.length
    if announced is not None and announced > max_bytes:
        raise _too_large(url, max_bytes, f"{announced / 1e6:,.1f} MB")
    received = 0
    with target.open("wb") as file:
        while chunk := response.read1(_CHUNK):
            received += len(chunk)
            if received > max_bytes:
                raise _too_large(url, max_bytes, "more")
            file.write(chunk)
    if announced is not None and received < announced:
        raise MediaError(f"{url}: the download stopped after {received:,} of {announced:,} bytes; try again")
    if not received:
        raise MediaError(f"{url}: the download is empty, expected an image")


def _too_large(url: str, max_bytes: int, found: str) -> MediaError:
    return MediaError(
        f"{url}: the server offers {found}, the limit is {max_bytes / 1e6:g} MB; raise it with --max-download"
    )
