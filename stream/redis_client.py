"""A Redis client from a URL: one server, a master that Sentinels watch, or a Cluster.

redis://[user:password@]host:port/0                    one server; rediss:// speaks TLS
redis+sentinel://host:26379,host:26379/name/0          the master called `name`; rediss+sentinel:// speaks TLS to it
redis+cluster://host:7000,host:7001                    a Cluster; rediss+cluster:// speaks TLS

A user and password are those of the data servers; Sentinels are asked without any.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.cluster import LoadBalancingStrategy

Address = tuple[str, int]
AnyRedis = Redis | RedisCluster
_KINDS = ("", "+sentinel", "+cluster")
_SCHEMES = {f"{start}{kind}": (start == "rediss", kind) for start in ("redis", "rediss") for kind in _KINDS}


@dataclass(frozen=True)
class RedisUrl:
    """The parts of such a URL."""

    kind: str
    """`""`, `"+sentinel"` or `"+cluster"`."""
    tls: bool
    hosts: tuple[Address, ...]
    name: str
    """The master's name at the Sentinels."""
    db: int
    user: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Read a URL.

        Raises:
            ValueError: it is not one of those; says what is wrong.
        """
        scheme, _, rest = url.partition("://")
        if scheme not in _SCHEMES or not rest:
            raise ValueError(f"the scheme is one of {', '.join(_SCHEMES)}")
        tls, kind = _SCHEMES[scheme]
        authority, _, path = rest.partition("/")
        credentials, _, places = authority.rpartition("@")
        user, _, password = credentials.partition(":")
        hosts = tuple(_address(place, 26379 if kind == "+sentinel" else 6379) for place in places.split(","))
        if kind == "" and len(hosts) > 1:
            raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
        parts = [part for part in path.split("?")[0].split("/") if part]
        name = parts.pop(0) if kind == "+sentinel" and parts else ""
        if kind == "+sentinel" and not name:
            raise ValueError("the master's name is missing: redis+sentinel://host:26379/mymaster")
        if len(parts) > 1 or (parts and not parts[0].isdigit()):
            raise ValueError(f"the database is a number, got {'/'.join(parts)!r}")
        db = int(parts[0]) if parts else 0
        return cls(kind, tls, hosts, name, db, unquote(user) or None, unquote(password) or None)


def _address(place: str, port: int) -> Address:
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or port


def connect(url: str, ssl_ca: str = "", replicas: bool = False, **options: Any) -> AnyRedis:
    """Return a client; nothing is connected yet.

    Args:
        ssl_ca: PEM file of the authority that signed the servers; empty: the system's.
        replicas: read from replicas, where there are any (Sentinel, Cluster).
        options: redis-py's settings of a connection.

    Raises:
        ValueError: the URL cannot be read.
    """
    parts = RedisUrl.parse(url)
    options |= {"username": parts.user, "password": parts.password}
    if parts.tls:
        options |= {"ssl": True, "ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": ssl_ca or None}
    if parts.kind == "+cluster":
        balancing = LoadBalancingStrategy.ROUND_ROBIN_REPLICAS if replicas else None
        nodes = [ClusterNode(host, port) for host, port in parts.hosts]
        return RedisCluster(startup_nodes=nodes, load_balancing_strategy=balancing, **options)
    if parts.kind == "+sentinel":
        timeouts = {key: value for key, value in options.items() if key.startswith("socket_")}
        watch: Any = Sentinel  # redis-py leaves it without types
        sentinel = watch(list(parts.hosts), sentinel_kwargs=timeouts, db=parts.db, **options)
        client: Redis = sentinel.slave_for(parts.name) if replicas else sentinel.master_for(parts.name)
        return client
    host, port = parts.hosts[0]
    return Redis(host=host, port=port, db=parts.db, **options)


async def nodes(client: AnyRedis) -> frozenset[Address]:
    """Return the servers that the client reads from, as they are now.

    Raises:
        RedisError: nobody can tell just now.
    """
    if isinstance(client, RedisCluster):
        await client.initialize()
        found = client.get_nodes() if client.load_balancing_strategy else client.get_primaries()
        return frozenset((node.host, int(node.port)) for node in found)
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        watch = pool.sentinel_manager
        replicas = [] if pool.is_master else await watch.discover_slaves(pool.service_name)
        return frozenset(replicas or [await watch.discover_master(pool.service_name)])
    return frozenset([(pool.connection_kwargs["host"], pool.connection_kwargs["port"])])


def connection_to(client: AnyRedis, address: Address, **options: Any) -> Connection:
    """Return a connection of its own to one of the client's servers, with the client's credentials and TLS."""
    if isinstance(client, RedisCluster):
        known = client.connection_kwargs
        tls = client.connection_kwargs.get("connection_class") is SSLConnection
    else:
        pool = client.connection_pool
        known, tls = pool.connection_kwargs, issubclass(pool.connection_class, SSLConnection)
    wanted = ("ssl_", "socket_", "username", "password")
    kept = {key: value for key, value in known.items() if key.startswith(wanted)}
    kind = SSLConnection if tls else Connection
    return kind(**(kept | {"host": address[0], "port": address[1], "protocol": 3} | options))
