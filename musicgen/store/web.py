"""Requests over https to hosts on a list, and never to an address inside a private network.

Every hop of a redirect is checked: scheme, host, and all addresses that its name stands for. The connection then
goes to an address that was checked, so that a name cannot point elsewhere in between. Proxies are not used: behind
one, nobody could tell what the name stands for.
"""

import contextlib
import http.client
import importlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urljoin, urlsplit

from ..errors import CheckpointError

TIMEOUT_S = 10.0  # of one wait for the network: as long as Cancel may take
MAX_REDIRECTS = 8
_REDIRECTS = (301, 302, 303, 307, 308)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class BrokenTransferError(Exception):
    """The network failed in a way that another attempt may overcome. Never leaves this package."""


class Transport(Protocol):
    """What reaches the network."""

    def addresses(self, host: str, port: int) -> list[str]:
        """All addresses of a host. OSError if there are none."""

    def connection(self, host: str, port: int, address: str, secure: bool) -> http.client.HTTPConnection:
        """A connection to `address`, that speaks with `host`."""


class Direct:
    """The network itself."""

    def addresses(self, host: str, port: int) -> list[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def connection(self, host: str, port: int, address: str, secure: bool) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        connection.default_port = port  # signed addresses are signed for a Host header without the port
        connection.sock = socket.create_connection((address, port), TIMEOUT_S)
        if secure:
            connection.sock = _tls_context().wrap_socket(connection.sock, server_hostname=host)
        return connection


DIRECT: Transport = Direct()


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError, OSError):  # some installations of Python know no authorities of their own
        context.load_verify_locations(importlib.import_module("certifi").where())
    return context


@dataclass(frozen=True)
class Response:
    """An answer whose body is still to be read."""

    url: str
    status: int
    headers: Mapping[str, str]  # names in lower case
    _connection: http.client.HTTPConnection
    _reply: http.client.HTTPResponse

    def read(self, n_bytes: int) -> bytes:
        try:
            return self._reply.read(n_bytes)
        except (OSError, http.client.HTTPException) as error:
            raise BrokenTransferError(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        self._connection.close()


class Web:
    """Requests to `hosts`: names, or ".name" for all below one. `trusted` is an origin that the user has set up.

    The trusted origin (such as "http://mirror.lan:8080") alone may be without TLS and inside a private network.
    """

    def __init__(self, hosts: Sequence[str], trusted: str = "", transport: Transport | None = None):
        self._hosts = tuple(hosts)
        self._trusted = trusted
        self._transport = transport or DIRECT

    def request(self, url: str, headers: Mapping[str, str], method: str = "GET", follow: bool = True) -> Response:
        """The answer to one request, redirects followed. With `follow` False only those within the same origin.

        An Authorization header is not sent on to another origin. CheckpointError for an address that is not
        allowed; BrokenTransferError if the network fails.
        """
        headers = {"Accept-Encoding": "identity", "User-Agent": "musicgen-pansori", **headers}
        for _ in range(MAX_REDIRECTS + 1):
            response = self._once(url, headers, method)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or not location:
                return response
            target = urljoin(url, location)
            same_origin = origin(target) == origin(url)
            if not follow and not same_origin:
                return response
            response.close()
            if not same_origin:
                headers.pop("Authorization", None)
            url = target
        raise CheckpointError(f"{shown(url)} leads from one address to the next without end")

    def check(self, url: str) -> tuple[str, int, bool]:
        """(host, port, secure) of an address that may be asked. CheckpointError, without asking anybody, for others."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise CheckpointError(f"{shown(url)} is no usable web address ({error})") from error
        trusted = bool(self._trusted) and origin(url) == origin(self._trusted)
        if parts.scheme != "https" and not (trusted and parts.scheme == "http"):
            raise CheckpointError(f"{shown(url)} is refused: only https:// addresses are downloaded from")
        if parts.username is not None or parts.password is not None:
            raise CheckpointError(f"{shown(url)} is refused: an address must not carry a user name or password")
        if not _HOST.fullmatch(host):
            raise CheckpointError(f"{shown(url)} is no usable web address: it has no proper host name")
        if not trusted and port not in (None, 443):
            raise CheckpointError(f"{shown(url)} is refused: only port 443 is downloaded from")
        if not trusted and not any(host == item or (item[:1] == "." and host.endswith(item)) for item in self._hosts):
            raise CheckpointError(
                f"{shown(url)} is refused: the host {host} is not on the list of those that are downloaded from. If you "
                "trust it, add it as a line of its own to hosts.txt in the folder models/musicgen, or download the file "
                "yourself into that folder and give its name."
            )
        return host, port or (443 if parts.scheme == "https" else 80), parts.scheme == "https"

    def _once(self, url: str, headers: Mapping[str, str], method: str) -> Response:
        host, port, secure = self.check(url)
        parts = urlsplit(url)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
        connection = self._connection(self._addresses(url, host, port), host, port, secure)
        try:
            connection.request(method, target, headers=dict(headers))
            reply = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise BrokenTransferError(f"{type(error).__name__}: {error}") from error
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Response(url, reply.status, found, connection, reply)

    def _connection(self, addresses: Sequence[str], host: str, port: int, secure: bool) -> http.client.HTTPConnection:
        """To the first address that answers."""
        failure: OSError | None = None
        for address in addresses:
            try:
                return self._transport.connection(host, port, address, secure)
            except OSError as error:
                failure = error
        raise BrokenTransferError(f"{host} cannot be reached ({failure or 'it has no address'})") from failure

    def _addresses(self, url: str, host: str, port: int) -> list[str]:
        """What the name stands for; every address must be public."""
        try:
            addresses = self._transport.addresses(host, port)
        except (OSError, UnicodeError) as error:
            raise BrokenTransferError(f"the host {host} was not found ({error})") from error
        trusted = bool(self._trusted) and origin(url) == origin(self._trusted)
        for address in addresses:
            if not trusted and not is_public(address):
                raise CheckpointError(
                    f"{shown(url)} is refused: {host} stands for {address}, an address that is not on the public internet"
                )
        return addresses


def is_public(address: str) -> bool:
    """Whether an address is on the public internet, also where it wraps another one (mapped, 6to4, NAT64, Teredo)."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            wrapped.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        inner = [item for item in wrapped if item is not None]
        if inner:
            return all(is_public(str(item)) for item in inner)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def origin(url: str) -> tuple[str, str, int | None]:
    """(scheme, host, port) of an address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        return parts.scheme, (parts.hostname or "").lower(), port
    except ValueError:
        return "", "", None


def shown(url: str) -> str:
    """An address fit for messages and logs: no query, in which secrets travel, no password, no control characters."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    scheme, mark, rest = bare.partition("://")
    authority, slash, path = rest.partition("/")
    return ascii(f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}")[1:-1][:300]
