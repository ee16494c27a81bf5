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
import time
from collections.abc import Callable
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
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        for _ in range(1 + MAX_REDIRECTS):
            connection = _connect(_parts(location), resolve or public_addresses)
            try:
                response = connection.getresponse()
                if response.status not in _REDIRECTS:
                    _save(response, url, target, max_bytes, deadline)
                    return
                location = urljoin(location, response.headers.get("Location", ""))
            finally:
                connection.close()
    except TimeoutError:
        raise MediaError(f"{url}: the server sent nothing for {SILENCE_SECONDS:g} seconds; try again later") from None
    except ssl.SSLCertVerificationError as error:
        raise MediaError(f"{url}: the server's certificate is not valid ({error.verify_message})") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise MediaError(f"{url}: cannot be downloaded ({one_line(error)}); check the address") from error
    raise MediaError(f"{url}: more than {MAX_REDIRECTS} redirects; give the address that they lead to")


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
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, context=context)
            connection.sock = context.wrap_socket(reached, server_hostname=host)
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


def _save(response: http.client.HTTPResponse, url: str, target: Path, max_bytes: int, deadline: float) -> None:
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
            if time.monotonic() > deadline:
                raise MediaError(f"{url}: it took longer than {TOTAL_SECONDS:g} seconds; download the file yourself")
            file.write(chunk)
    if announced is not None and received < announced:
        raise MediaError(f"{url}: the download stopped after {received:,} of {announced:,} bytes; try again")
    if not received:
        raise MediaError(f"{url}: the download is empty, expected an image")


def _too_large(url: str, max_bytes: int, found: str) -> MediaError:
    return MediaError(
        f"{url}: the server offers {found}, the limit is {max_bytes / 1e6:g} MB; raise it with --max-download"
    )
