"""Connections to Redis or Valkey as a configuration describes them: one server, a proxy's one
address, a cluster, or what sentinels name.

RESP2 is spoken: every server and proxy knows it, and the replies that are read here are the same.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from redis.asyncio import Redis as Client
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as LateError
from typing_extensions import override

from kong_ai_proxy.auth import trust
from kong_ai_proxy.auth.tokens import Tokens
from kong_ai_proxy.config.vectors import Redis, SentinelNode
from kong_ai_proxy.vectors.redis_errors import ReplyError, explained
from kong_ai_proxy.vectors.redis_login import login
from kong_ai_proxy.vectors.store import StoreError

Command = Sequence[Any]
"""Name and arguments."""

_PORTS = range(1, 65536)


class Limits(NamedTuple):
    """Seconds."""

    connect: float
    send: float
    read: float


class Wire(Connection):
    """redis-py's connection, with our TLS and a limit of its own for each direction."""

    def __init__(
        self,
        *,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        **others: Any,
    ) -> None:
        self._limits = limits
        self._tls = tls
        self._server_name = server_name
        # Longer than ours, which are the ones that count.
        theirs = {
            "socket_connect_timeout": limits.connect,
            "socket_timeout": limits.send + limits.read,
        }
        super().__init__(**(others | theirs))

    @override
    def _connection_arguments(self) -> dict[str, Any]:
        arguments = dict(super()._connection_arguments())
        if self._tls is not None:
            arguments["ssl"] = self._tls
            arguments["server_hostname"] = self._server_name or self.host
        return arguments

    @override
    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in. Whatever ends that (a wait for credentials is cancelled) ends the connection."""
        try:
            await super().on_connect_check_health(check_health)
        except BaseException:
            await self.disconnect(nowait=True)
            raise

    @override
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        try:
            async with asyncio.timeout(self._limits.send):
                await super().send_packed_command(command, check_health)
        except TimeoutError:
            raise LateError("not sent in time") from None

    @override
    async def read_response(self, *arguments: Any, **named: Any) -> Any:
        try:
            async with asyncio.timeout(self._limits.read):
                return await super().read_response(*arguments, **named)
        except TimeoutError:
            raise LateError("not answered in time") from None


class SentinelWire(SentinelManagedConnection, Wire):
    """A connection to the server that the sentinels name."""


class Server:
    """What the configuration calls Redis. Belongs to one event loop; connects when first used."""

    def __init__(self, config: Redis, tokens: Tokens | None, ca_file: str | None) -> None:
        """Raises StoreError for a configuration that cannot be followed."""
        self._config = config
        self._limits = Limits(
            config.connect_timeout / 1000, config.send_timeout / 1000, config.read_timeout / 1000
        )
        self._options = self._connection_options(tokens, ca_file)
        self._free = asyncio.Semaphore(config.keepalive_pool_size)
        self._waiting = 0
        self._closers: list[Any] = []
        self._writer: Client | RedisCluster
        self._reader: Client | RedisCluster
        if config.cluster_nodes:
            self.address = ", ".join(f"{node.ip}:{node.port}" for node in config.cluster_nodes)
            self._writer = self._reader = self._cluster()
        elif config.sentinel_nodes:
            self.address = f"{config.sentinel_master} of the sentinels"
            self._writer, self._reader = self._by_sentinels()
        else:
            self.address = f"{config.host}:{_port(config.port)}"
            self._writer = self._reader = self._single()
        nodes = len(config.cluster_nodes) + len(config.sentinel_nodes)
        # One retry over a new connection, and every node that may be asked for the way.
        self._total = 2 * sum(self._limits) + nodes * (self._limits.connect + self._limits.read)

    async def command(self, *command: Any, from_replica: bool = False) -> Any:
        """The reply. `from_replica`: perhaps of a server that lags behind. Raises StoreError,
        ReplyError for an error that the server replied with."""
        async with self._turn():
            client = self._reader if from_replica else self._writer
            return await client.execute_command(*command)

    async def commands(self, commands: Sequence[Command], from_replica: bool = False) -> list[Any]:
        """The replies to commands that are sent together, in their order, though not as a
        transaction. In a cluster their keys are of one slot. Raises as `command` does, for the
        first error."""
        async with self._turn():
            client = self._reader if from_replica else self._writer
            async with client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

    async def close(self) -> None:
        """End all connections."""
        for closer in self._closers:
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(self._limits.connect):
                    await closer.aclose()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The right to one connection, for a bounded time; errors as StoreErrors."""
        backlog = self._config.keepalive_backlog
        if backlog is not None and self._free.locked() and self._waiting >= backlog:
            raise StoreError(
                f"config.vectordb.redis.keepalive_backlog: {backlog} queries wait already for one "
                f"of {self._config.keepalive_pool_size} connections (keepalive_pool_size)"
            )
        try:
            async with asyncio.timeout(self._total):
                await self._acquire()
                try:
                    yield
                finally:
                    self._free.release()
        except ResponseError as error:
            raise ReplyError(error, self._config) from None
        except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError: an OSError
            raise explained(error, self._config, self.address) from None

    async def _acquire(self) -> None:
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    def _connection_options(self, tokens: Tokens | None, ca_file: str | None) -> dict[str, Any]:
        config = self._config
        # A proxy has one database, and its connections are not its server's: none is selected.
        database = 0 if config.connection_is_proxied or config.cluster_nodes else config.database
        options: dict[str, Any] = {
            "limits": self._limits,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 1, (LostError,)),  # a kept connection may have been closed
            "driver_info": None,  # no CLIENT SETINFO: ACLs and proxies need not know it
            "db": database,
        }
        provider = login(config, tokens)
        if provider is not None:
            options["credential_provider"] = provider
        else:
            options |= {"username": config.username, "password": config.password}
        return options | self._tls_options(ca_file)

    def _tls_options(self, ca_file: str | None) -> dict[str, Any]:
        if not self._config.ssl:
            return {}
        context = trust.context(ca_file)
        if not self._config.ssl_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return {"tls": context, "server_name": self._config.server_name}

    def _single(self) -> Client:
        pool = ConnectionPool(
            connection_class=Wire,
            max_connections=self._config.keepalive_pool_size,
            host=self._config.host,
            port=_port(self._config.port),
            **self._options,
        )
        client = Client.from_pool(pool)
        self._closers.append(client)
        return client

    def _by_sentinels(self) -> tuple[Client, Client]:
        """The master, and whom to read from: with the role `slave` or `any` a replica, or the
        master where none is up."""
        config = self._config
        sentinel = Sentinel([])  # type: ignore[no-untyped-call]
        sentinel.sentinels = [self._sentinel(node) for node in config.sentinel_nodes]
        name = config.sentinel_master or ""
        options = {
            **self._options,
            "connection_class": SentinelWire,
            "max_connections": config.keepalive_pool_size,
        }
        master: Client = sentinel.master_for(name, **options)
        self._closers += [*sentinel.sentinels, master]
        if config.sentinel_role == "master":
            return master, master
        replica: Client = sentinel.slave_for(name, **options)
        self._closers.append(replica)
        return master, replica

    def _sentinel(self, node: SentinelNode) -> Client:
        """A sentinel, asked over TLS where the servers are."""
        config = self._config
        options = {name: self._options[name] for name in self._options if name in _SHARED}
        pool = ConnectionPool(
            connection_class=Wire,
            host=node.host,
            port=node.port,
            username=config.sentinel_username,
            password=config.sentinel_password,
            **options,
        )
        return Client.from_pool(pool)

    def _cluster(self) -> RedisCluster:
        """redis-py lets nobody choose a cluster's connection class, so it is told afterwards."""
        config = self._config
        cluster = RedisCluster(
            startup_nodes=[ClusterNode(node.ip, node.port) for node in config.cluster_nodes],
            max_connections=config.keepalive_pool_size,
            require_full_coverage=False,
            protocol=2,
            retry=self._options["retry"],
        )
        cluster.RedisClusterRequestTTL = config.cluster_max_redirections + 1
        own = {name: value for name, value in self._options.items() if name != "db"}
        cluster.connection_kwargs.update(own, connection_class=Wire)
        for node in cluster.startup_nodes:
            node.connection_class = Wire
            node.connection_kwargs.update(own)
        self._closers.append(cluster)
        return cluster


_SHARED = ("limits", "protocol", "retry", "driver_info", "tls", "server_name")


def _port(port: int | str) -> int:
    """The port; a vault's secrets are texts. Raises StoreError."""
    try:
        number = int(port)
    except ValueError:
        number = 0
    if number not in _PORTS:
        raise StoreError("config.vectordb.redis.port: expected a number from 1 to 65535")
    return number
