"""Real Redis servers in other shapes than one: a master with replicas and Sentinels, a Cluster, TLS."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.exceptions import RedisError

from stream.embedded.redis import EmbeddedRedis, find_redis_server
from stream.embedded.server import Server, free_port
from tests.pipeline import wait_for

SLOTS = 16384


class ConfiguredRedis(EmbeddedRedis):
    """A server with more arguments."""

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        self.arguments = (*arguments, "--repl-diskless-sync-delay", "0")

    def command(self) -> list[str]:
        return [*super().command(), *self.arguments]

    @property
    def client(self) -> Any:
        return redis.Redis(port=self.port, socket_timeout=5)


class TlsRedis(ConfiguredRedis):
    """Speaks TLS alone, and asks for a user."""

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__()
        names = {"cert": certificate, "key": key, "ca-cert": certificate}
        files = [word for name, path in names.items() for word in (f"--tls-{name}-file", str(path))]
        self.arguments = ("--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", *files)

    def is_ready(self) -> bool:
        return b"Ready to accept connections" in self.log.read_bytes()


class SentinelServer(Server):
    name = "sentinel"

    def __init__(self, master_port: int, quorum: int) -> None:
        super().__init__()
        self.port = free_port()
        self.client: Any = redis.Redis(port=self.port)
        self._lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor shop 127.0.0.1 {master_port} {quorum}",
            "sentinel down-after-milliseconds shop 500",
            "sentinel failover-timeout shop 3000",
        ]

    def command(self) -> list[str]:
        config = self.folder / "sentinel.conf"
        if not config.exists():
            config.write_text("\n".join([*self._lines, f"dir {self.folder}", ""]))
        return [find_redis_server(), str(config), "--sentinel"]

    def is_ready(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False


class Group:
    """Several servers; use as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def run(self, *servers: Server) -> None:
        for server in servers:
            self._stack.callback(server.stop)
            server.start()
        for server in servers:
            server.wait_ready()

    def set_up(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.set_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class SentinelGroup(Group):
    """A master, two replicas, three Sentinels that call it `shop`."""

    def set_up(self) -> None:
        self.servers = [ConfiguredRedis()]
        master = self.servers[0].port
        self.servers += [ConfiguredRedis("--replicaof", "127.0.0.1", str(master)) for _ in range(2)]
        self.run(*self.servers)
        self.sentinels = [SentinelServer(master, 2) for _ in range(3)]
        self.run(*self.sentinels)
        wait_for(lambda: len(self._replicas()) == 2 and self._others() == 2, "replicas and Sentinels")

    def _replicas(self) -> list[object]:
        return list(self.sentinels[0].client.sentinel_slaves("shop"))

    def _others(self) -> int:
        return len(self.sentinels[0].client.sentinel_sentinels("shop"))

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{s.port}' for s in self.sentinels)}/shop/0"

    @property
    def master(self) -> ConfiguredRedis:
        """The server that is the master now, as the Sentinels say."""
        found = self.sentinels[0].client.sentinel_get_master_addr_by_name("shop")
        assert found is not None
        return next(server for server in self.servers if server.port == int(found[1]))


class ClusterNode(ConfiguredRedis):
    def __init__(self) -> None:
        super().__init__("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
        while self.port > 55_535:  # the nodes speak to each other on the port 10,000 above
            self.port = free_port()


class ClusterGroup(Group):
    """Three masters and a replica of each."""

    def set_up(self) -> None:
        self.servers = [ClusterNode() for _ in range(6)]
        self.run(*self.servers)
        masters, replicas = self.servers[:3], self.servers[3:]
        for number, server in enumerate(masters):
            slots = range(SLOTS * number // 3, SLOTS * (number + 1) // 3)
            server.client.execute_command("CLUSTER ADDSLOTS", *slots)
        for number, server in enumerate(self.servers):
            server.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            server.client.execute_command("CLUSTER MEET", "127.0.0.1", masters[0].port)
        for replica, master in zip(replicas, masters, strict=True):
            name = master.client.execute_command("CLUSTER MYID")
            wait_for(lambda name=name, replica=replica: _replicates(replica, name), "replica")  # type: ignore[misc]
        wait_for(self._is_complete, "complete cluster")

    def _is_complete(self) -> bool:
        return all(
            server.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
            and len(server.client.execute_command("CLUSTER NODES")) == 6
            for server in self.servers
        ) and all(server.client.info("replication")["master_link_status"] == "up" for server in self.servers[3:])

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.servers[0].port}"


def _replicates(replica: ConfiguredRedis, master: bytes) -> bool:
    try:
        replica.client.execute_command("CLUSTER REPLICATE", master)
    except RedisError:  # they have not met yet
        time.sleep(0.1)
        return False
    return True
