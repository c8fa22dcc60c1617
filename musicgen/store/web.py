"""Requests over https to hosts on a list, and never to an address inside a private network.

Every hop of a redirect is checked: scheme, host, and all addresses that its name stands for. The connection then goes
to an address that was checked, so that the name server cannot point elsewhere in between. Where the environment sets a
proxy (HTTPS_PROXY, NO_PROXY), the proxy resolves the name: then only the name itself is checked.
"""

import contextlib
import functools
import http.client
import importlib
import ipaddress
import re
import socket
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from ..errors import CheckpointError

MAX_REDIRECTS = 8
_REDIRECTS = (301, 302, 303, 307, 308)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_KEPT = "/%:@!$&'()*+,;=~-._?"  # characters of a path and a query that are not quoted again
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class BrokenTransferError(Exception):
    """The network failed in a way that another attempt may overcome. Never leaves this package."""


class Network:
    """The way to the network: name server, connections, TLS, patience."""

    timeout_s = 10.0  # of one wait for a server
    pauses_s = (0.5, 2.0, 5.0)  # before each further attempt that follows one without a single byte

    def addresses(self, host: str, port: int) -> list[str]:
        """All addresses of a host. OSError if there are none."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def connect(self, address: str, port: int) -> socket.socket:
        return socket.create_connection((address, port), self.timeout_s)

    def secure(self, connection: socket.socket, host: str) -> socket.socket:
        """TLS on a connection, with the certificate of `host`."""
        context = ssl.create_default_context()
        with contextlib.suppress(ImportError, OSError):  # some installations of Python know no authorities
            context.load_verify_locations(importlib.import_module("certifi").where())
        return context.wrap_socket(connection, server_hostname=host)


class Web:
    """Requests to `hosts`: names, or ".name" for all below one. `trusted` is an origin that the user has set up.

    The trusted origin (such as "http://mirror.lan:8080") alone may be without TLS and inside a private network.
    """

    def __init__(self, hosts: Sequence[str], trusted: str = "", network: Network | None = None):
        self.network = network or Network()
        self._hosts = tuple(hosts)
        self._trusted = _origin(trusted)
        self._opener = urllib.request.OpenerDirector()  # without handlers of redirects, errors, files and ftp
        for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), _HttpsHandler(self)):
            self._opener.add_handler(handler)

    def open(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """The answer to a GET request, redirects followed, its body still to be read.

        An Authorization header is not sent on to another origin. CheckpointError for an address that is not
        allowed; BrokenTransferError if the network fails.
        """
        headers = {"Accept-Encoding": "identity", "User-Agent": "musicgen-pansori", **headers}
        for _ in range(MAX_REDIRECTS + 1):
            request = urllib.request.Request(self.check(url), headers=headers)
            try:
                response = self._opener.open(request, timeout=self.network.timeout_s)
            except (OSError, http.client.HTTPException) as error:
                raise BrokenTransferError(f"{type(error).__name__}: {getattr(error, 'reason', error)}") from error
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            try:
                target = urljoin(url, location)
            except ValueError as error:
                raise CheckpointError(f"{shown(url)} leads to {shown(location)}, no usable web address") from error
            if _origin(target) != _origin(url):
                headers.pop("Authorization", None)
            url = target
        raise CheckpointError(f"{shown(url)} leads from one address to the next without end")

    def check(self, url: str) -> str:
        """The address to ask for `url`, quoted. CheckpointError, without asking anybody, if it must not be asked."""
        try:
            url.encode()
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise CheckpointError(f"{shown(url)} is no usable web address ({error})") from error
        trusted = _origin(url) == self._trusted
        if parts.scheme != "https" and not (trusted and parts.scheme == "http"):
            raise CheckpointError(f"{shown(url)} is refused: only https:// addresses are downloaded from")
        if parts.username is not None or parts.password is not None:
            raise CheckpointError(f"{shown(url)} is refused: an address must not carry a user name or password")
        if not _HOST.fullmatch(host):
            raise CheckpointError(f"{shown(url)} is no usable web address: it has no proper host name")
        netloc = f"{host}:{port}" if port else host
        path, query = quote(parts.path or "/", safe=_KEPT), quote(parts.query, safe=_KEPT)
        address = urlunsplit((parts.scheme, netloc, path, query, ""))
        if trusted:
            return address
        if port not in (None, 443):
            raise CheckpointError(f"{shown(url)} is refused: only port 443 is downloaded from")
        if not any(host == item or (item[:1] == "." and host.endswith(item)) for item in self._hosts):
            raise CheckpointError(
                f"{shown(url)} is refused: the host {host} is not on the list of those that are downloaded from. If you "
                "trust it, add it as a line of its own to hosts.txt in the folder models/musicgen, or download the file "
                "yourself into that folder and give its name."
            )
        _require_public(host, _literal_address(host))
        return address

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to the first address of `host` that answers; all of them must be public."""
        try:
            addresses = self.network.addresses(host, port)
        except (OSError, UnicodeError) as error:
            raise BrokenTransferError(f"the host {host} was not found ({error})") from error
        if ("https", host, port) != self._trusted:
            for address in addresses:
                _require_public(host, address)
        failure: OSError | None = None
        for address in addresses:
            try:
                return self.network.connect(address, port)
            except OSError as error:
                failure = error
        raise BrokenTransferError(f"{host} cannot be reached ({failure or 'it has no address'})") from failure


class _HttpsHandler(urllib.request.HTTPSHandler):
    """Opens https addresses through connections that `web` has checked."""

    def __init__(self, web: Web):
        super().__init__()
        self._web = web

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        connection: Any = functools.partial(_HttpsConnection, web=self._web)  # do_open gives host and timeout alone
        return self.do_open(connection, request)


class _HttpsConnection(http.client.HTTPConnection):
    """TLS to an address that was checked, or through a proxy to whatever address the proxy finds for the name."""

    default_port = 443

    def __init__(self, host: str, *, timeout: float, web: Web):
        super().__init__(host, timeout=timeout)
        self._web = web
        self._server = ""  # beyond a proxy

    def set_tunnel(self, host: str, port: int | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().set_tunnel(host, port, headers)
        self._server = host.partition(":")[0]

    def connect(self) -> None:
        if self._server:
            super().connect()
        else:
            self.sock = self._web.connect(self.host, self.port)
        self.sock = self._web.network.secure(self.sock, self._server or self.host)


def is_public(address: str) -> bool:
    """Whether an address is on the public internet. An IPv6 address that wraps an IPv4 one is what it wraps."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.sixtofour or ip.teredo:  # tunnels to IPv4 addresses, out of use
            return False
        if ip.ipv4_mapped or ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _require_public(host: str, address: str | None) -> None:
    if address is not None and not is_public(address):
        raise CheckpointError(
            f"the host {host} is refused: it stands for {address}, an address that is not on the public internet"
        )


def _literal_address(host: str) -> str | None:
    """The address that a host name spells out, in any of its notations (127.0.0.1, 127.1, 2130706433)."""
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def _origin(url: str) -> tuple[str, str, int | None]:
    """(scheme, host, port) of an address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
        return parts.scheme, (parts.hostname or "").lower(), port
    except ValueError:
        return "?", "", None


def shown(url: str) -> str:
    """An address fit for messages and logs: no query, in which secrets travel, no password, no control characters."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    scheme, mark, rest = bare.partition("://")
    authority, slash, path = rest.partition("/")
    return ascii(f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}")[1:-1][:300]
