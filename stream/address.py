"""Which hosts may be fetched from: sellers control URLs, so only public addresses are, unless allowed by name."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from schemas import PhotoErrorType
from stream.errors import PhotoRejected

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Say whether an IP address is a public unicast one; an IPv4 address inside an IPv6 one must be, too."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if ip.is_multicast or not ip.is_global:
        return False
    inner = _embedded_ipv4(ip)
    return inner is None or (inner.is_global and not inner.is_multicast)


def _embedded_ipv4(ip: IPv4Address | IPv6Address) -> IPv4Address | None:
    if isinstance(ip, IPv4Address):
        return None
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


class HostPolicy:
    """Decides about hosts; `allow` holds names or name:port that may be fetched though not public."""

    def __init__(self, allow: Collection[str]) -> None:
        self._allow = frozenset(allow)

    def allows(self, host: str, port: int) -> bool:
        name = host.lower().rstrip(".")
        return name in self._allow or f"{name}:{port}" in self._allow

    def check_url(self, url: URL) -> None:
        """Check all of `url` that needs no look-up.

        Raises:
            PhotoRejected: not http(s), without a host, or a literal address that is not public.
        """
        host = url.host
        if url.scheme not in ("http", "https") or not host:
            raise PhotoRejected(PhotoErrorType.URL_REFUSED, f"url {str(url)[:200]!r}: only http and https are fetched")
        if self.allows(host, url.port or 0):
            return
        try:
            public = is_public(host)
        except ValueError:
            return  # a name: the resolver checks what it stands for
        if not public:
            raise refused(host, host)


def refused(host: str, address: str) -> PhotoRejected:
    where = host if host == address else f"{host} (which is {address})"
    return PhotoRejected(
        PhotoErrorType.URL_REFUSED,
        f"url host {where} is not a public address: put photos on a public host, "
        "or name the host in IMAGE_SCORE_FETCH_ALLOW",
    )


class RefusedAddress(OSError):
    """Carries a PhotoRejected through aiohttp's connector, which wraps OSError only."""

    def __init__(self, rejection: PhotoRejected) -> None:
        super().__init__(str(rejection))
        self.rejection = rejection


class CheckedResolver(AbstractResolver):
    """Resolves names to addresses that passed the policy; the connection goes to one of exactly these.

    One address that is not public refuses the name: a name with both kinds is a rebinding attempt.
    """

    def __init__(self, policy: HostPolicy) -> None:
        self._policy = policy
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not self._policy.allows(host, port):
            for result in found:
                if not is_public(result["host"]):
                    raise RefusedAddress(refused(host, result["host"]))
        return found

    async def close(self) -> None:
        await self._resolver.close()
