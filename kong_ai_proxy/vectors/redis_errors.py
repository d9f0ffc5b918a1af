"""What goes wrong with Redis, in words for whoever operates it. No text has a secret in it: what
redis-py says is not passed on, and of what the server says only the error's own line."""

from __future__ import annotations

import ssl

from redis.asyncio.sentinel import MasterNotFoundError, SlaveNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import TimeoutError as LateError

from kong_ai_proxy.config.vectors import Redis
from kong_ai_proxy.vectors.redis_login import LoginError
from kong_ai_proxy.vectors.store import StoreError

FIELDS = "config.vectordb.redis"
_LONGEST = 200


class ReplyError(StoreError):
    """An error that the server replied with."""

    def __init__(self, error: ResponseError, config: Redis) -> None:
        self.reply = str(error)[:_LONGEST]
        self.is_denied = isinstance(error, NoPermissionError)
        super().__init__(_said(error, self.reply, config))


def _said(error: ResponseError, reply: str, config: Redis) -> str:
    if isinstance(error, NoPermissionError):
        return (
            f"{FIELDS}.username: Redis denies the user {config.username or 'default'} "
            f"a command or key: {reply}"
        )
    if isinstance(error, OutOfMemoryError):
        return f"Redis is out of memory (maxmemory): {reply}"
    if isinstance(error, ReadOnlyError):
        return f"{FIELDS}.host: Redis there is a read-only replica; name the master"
    if "invalid DB index" in reply or "DB index is out of range" in reply:
        return f"{FIELDS}.database: Redis has no database {config.database}"
    if "SELECT is not allowed in cluster mode" in reply:
        return f"{FIELDS}.database: a cluster has only 0; and set {FIELDS}.cluster_nodes"
    if isinstance(error, MovedError):
        return f"{FIELDS}.host: Redis there is part of a cluster; set {FIELDS}.cluster_nodes"
    if "Number of indexes" in reply:
        return (
            "the database has as many search indexes as it allows; drop one that is not used "
            f"(FT._LIST, FT.DROPINDEX): {reply}"
        )
    return f"Redis refused a command: {reply}"


def explained(error: Exception, config: Redis, address: str) -> StoreError:
    """The error in words; `address` is where Redis was looked for."""
    if isinstance(error, LoginError):
        return StoreError(str(error))
    if isinstance(error, AuthenticationError):
        return StoreError(_refused_login(error, config))
    if isinstance(error, MasterNotFoundError | SlaveNotFoundError):
        nodes = ", ".join(f"{node.host}:{node.port}" for node in config.sentinel_nodes)
        return StoreError(
            f"{FIELDS}.sentinel_master: no sentinel of {nodes} names a master "
            f"{config.sentinel_master} that is up; are sentinel_nodes, sentinel_username and "
            "sentinel_password right?"
        )
    if isinstance(error, RedisClusterException | ClusterError):
        return StoreError(
            f"{FIELDS}.cluster_nodes: none of {address} answers as a node of a working cluster"
        )
    if isinstance(error, BusyLoadingError):
        return StoreError(f"Redis at {address} is loading its data; it is tried again")
    if isinstance(error, LateError | TimeoutError):
        return StoreError(
            f"Redis at {address} did not answer in time ({FIELDS}.connect_timeout "
            f"{config.connect_timeout}, send_timeout {config.send_timeout}, read_timeout "
            f"{config.read_timeout} ms){_tls(config)}"
        )
    return StoreError(_lost(error, config, address))


def _refused_login(error: AuthenticationError, config: Redis) -> str:
    if config.cloud_authentication.auth_provider is not None:
        return (
            f"{FIELDS}.cloud_authentication: Redis refused the login of user "
            f"{config.username or 'default'}; the identity must be allowed to connect as that user"
        )
    if config.password is None and "required" in str(error).lower():
        return f"{FIELDS}.password: Redis demands a login"
    return f"{FIELDS}.username, password: Redis refused the login"


def _lost(error: Exception, config: Redis, address: str) -> str:
    cause = error.__context__ if isinstance(error, LostError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"{FIELDS}.ssl_verify: the certificate of Redis at {address} is not trusted: "
            f"{cause.verify_message} (--ca-file adds an authority, "
            f"{FIELDS}.server_name another name)"
        )
    if isinstance(cause, ssl.SSLError):
        return f"{FIELDS}.ssl: no TLS with Redis at {address}: {cause.reason}"
    where = "host, port"
    if config.cluster_nodes:
        where = "cluster_nodes"
    elif config.sentinel_nodes:
        where = "sentinel_nodes"
    if isinstance(cause, ConnectionResetError | BrokenPipeError):
        return f"{FIELDS}.{where}: Redis at {address} ended the connection{_tls(config)}"
    if isinstance(cause, OSError):
        return f"{FIELDS}.{where}: cannot connect to Redis at {address}: {_os(cause)}"
    if not isinstance(error, LostError):
        return f"Redis at {address}: {type(error).__name__}"
    return f"{FIELDS}.{where}: Redis at {address} ended the connection{_tls(config)}"


def _tls(config: Redis) -> str:
    """What is often the reason where nothing else says one."""
    if config.ssl:
        return f"; does it speak TLS? {FIELDS}.ssl is true"
    return f"; does it expect TLS? {FIELDS}.ssl is false"


def _os(error: OSError) -> str:
    text = error.strerror if error.errno else None
    return text or type(error).__name__
