"""Downloading from addresses, for those who allow it: public hosts only, bounded in size and time.

A host name is resolved once, every address it has is checked, and the connection goes to one of these; so a name that
changes its answer meanwhile leads nowhere else. Each redirect is checked the same way. Proxies of the environment are
not used, as the check would then be the proxy's.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from slime_vlm.errors import MediaError

MAX_DOWNLOAD = 50_000_000
"""Default limit on the size of a download in bytes."""

MAX_REDIRECTS = 5
SILENCE_SECONDS = 20.0
"""How long a server may say nothing."""

TOTAL_SECONDS = 120.0
"""How long a download may take."""

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK = 1 << 16
# What may stand in a path or query as it is; the percent sign as well, so that what is escaped stays so.
_SAFE = "/%:;=@!$&'()*+,~?"

Resolver = Callable[[str, int], list[str]]


def is_address(spec: str) -> bool:
    """Whether a text is an address such as `https://...` rather than the name of a file."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", spec) is not None


def download(url: str, target: Path, max_bytes: int = MAX_DOWNLOAD, resolve: Resolver | None = None) -> None:
    """Downloads a file.

    Args:
        url: an http or https address.
        target: where to write what comes.
        max_bytes: the largest download.
        resolve: gives the addresses of a host after checking them; `public_addresses` by default.

    Raises:
        MediaError: the address is malformed, not http(s) or not public; the server cannot be reached, answers with an
            error, redirects too often, or sends too much or too slowly.
    """
    place = url
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        for _ in range(1 + MAX_REDIRECTS):
            connection = _connect(_parts(place), resolve or public_addresses)
            try:
                response = connection.getresponse()
                if response.status not in _REDIRECTS:
                    _save(response, url, target, max_bytes, deadline)
                    return
                place = urljoin(place, response.headers.get("Location", ""))
            finally:
                connection.close()
    except TimeoutError:
        raise MediaError(f"{url}: the server said nothing for {SILENCE_SECONDS:g} seconds; try again later") from None
    except ssl.SSLCertVerificationError as error:
        raise MediaError(f"{url}: the server's certificate is not valid ({error.verify_message})") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(f"{url}: cannot be downloaded ({found}); check the address") from error
    raise MediaError(f"{url}: more than {MAX_REDIRECTS} redirects; give the address where they end")


def public_addresses(host: str, port: int) -> list[str]:
    """Addresses of a host, all of them public.

    Raises:
        MediaError: the host is unknown, or any of its addresses is not public.
    """
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise MediaError(f"{host}: no such host; check the address") from None
    for address in found:
        if not is_public(address):
            raise MediaError(f"{host}: its address {address} is not a public one; download the file yourself")
    return list(dict.fromkeys(found))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet and carries no other address within."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip.is_site_local):
        return False
    # Much of this is in is_global already, but not in every Python version the same.
    special = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_reserved
    return ip.is_global and not special and not ip.is_unspecified


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


def _connect(parts: SplitResult, resolve: Resolver) -> http.client.HTTPConnection:
    """Sends the request to the first address that can be reached."""
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
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, context=context)
            connection.sock = context.wrap_socket(reached, server_hostname=host)
        else:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = reached
        # Without a socket it would connect by name, unchecked.
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


def _save(response: http.client.HTTPResponse, url: str, target: Path, max_bytes: int, deadline: float) -> None:
    if response.status != http.HTTPStatus.OK:
        raise MediaError(f"{url}: the server answers {response.status} {response.reason}; check the address")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise MediaError(f"{url}: the server sends it encoded as {encoding}; download the file yourself")
    announced = response.length
    if announced is not None and announced > max_bytes:
        raise _too_large(url, max_bytes, f"{announced / 1e6:,.1f} MB are")
    received = 0
    with target.open("wb") as file:
        while chunk := response.read1(_CHUNK):
            received += len(chunk)
            if received > max_bytes:
                raise _too_large(url, max_bytes, "more is")
            if time.monotonic() > deadline:
                raise MediaError(f"{url}: it took longer than {TOTAL_SECONDS:g} seconds; download the file yourself")
            file.write(chunk)
    if announced is not None and received < announced:
        raise MediaError(f"{url}: it broke off after {received:,} of {announced:,} bytes; try again")
    if not received:
        raise MediaError(f"{url}: nothing came, an image is expected")


def _too_large(url: str, max_bytes: int, found: str) -> MediaError:
    return MediaError(
        f"{url}: the limit of a download is {max_bytes / 1e6:g} MB and {found} on offer; raise it with --max-download"
    )
