"""What goes wrong with PostgreSQL, in words for whoever operates it. No text has a secret in it: of
what the server says only the error's own line is passed on."""

from __future__ import annotations

import ssl
from typing import Any

from asyncpg import exceptions

from kong_ai_proxy.config.vectors import Pgvector
from kong_ai_proxy.vectors.store import StoreError

FIELDS = "config.vectordb.pgvector"
_LONGEST = 200

FAILURES = (
    exceptions.PostgresError,
    exceptions.InterfaceError,
    exceptions.InternalClientError,
    OSError,
)
"""What asyncpg raises; the third where a server ends a connection that is just being used again.
TimeoutError and ssl.SSLError are OSErrors."""


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that a new one may do: as after a restart of the
    server."""
    return isinstance(
        error,
        exceptions.PostgresConnectionError
        | exceptions.AdminShutdownError
        | exceptions.CrashShutdownError
        | exceptions.InterfaceError
        | exceptions.InternalClientError
        | ConnectionError,
    )


def explained(error: BaseException, config: Pgvector) -> StoreError:
    """The error in words."""
    where = f"PostgreSQL at {config.host}:{config.port}"
    if isinstance(error, exceptions.PostgresError):
        return StoreError(_said(error, config, where))
    if isinstance(error, ssl.SSLCertVerificationError):
        return StoreError(
            f"{FIELDS}.ssl_verify: the certificate of {where} is not trusted: "
            f"{error.verify_message} (--ca-file adds an authority)"
        )
    if isinstance(error, ssl.SSLError):
        return StoreError(f"{FIELDS}.ssl: no TLS with {where}: {error.reason}")
    if isinstance(error, TimeoutError):
        return StoreError(
            f"{where} did not answer in time ({FIELDS}.timeout is {config.timeout:g} ms)"
        )
    if is_without_tls(error):
        return StoreError(f"{FIELDS}.ssl_required: {where} has no TLS")
    if isinstance(error, OSError):
        text = error.strerror if error.errno else None
        return StoreError(
            f"{FIELDS}.host, port: cannot connect to {where}: {text or type(error).__name__}"
        )
    return StoreError(f"{where} ended the connection")


def is_without_tls(error: BaseException) -> bool:
    """Whether the server has no TLS. asyncpg has no type of its own for that."""
    return isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error)


def _said(error: Any, config: Pgvector, where: str) -> str:
    """https://www.postgresql.org/docs/current/errcodes-appendix.html"""
    user, database = f"user {config.user}", f"database {config.database}"
    line = str(error.args[0] if error.args else "").splitlines()
    told = f"{(line or [''])[0][:_LONGEST]} ({error.sqlstate})"
    match error:
        case exceptions.InvalidPasswordError():
            return f"{FIELDS}.user, password: {where} refused the login of {user}"
        case exceptions.InvalidAuthorizationSpecificationError():
            return f"{FIELDS}.user, ssl: {where} lets {user} not in: {told}"
        case exceptions.InvalidCatalogNameError():
            return f"{FIELDS}.database: {where} has no {database}"
        case exceptions.TooManyConnectionsError():
            return f"{where} has as many connections as it allows (max_connections)"
        case exceptions.CannotConnectNowError():
            return f"{where} is starting or shutting down; it is tried again"
        case exceptions.FeatureNotSupportedError() | exceptions.UndefinedFileError() if (
            "vector" in told
        ):
            return (
                f"{where} does not have the extension pgvector: install it there "
                "(https://github.com/pgvector/pgvector#installation)"
            )
        case exceptions.InsufficientPrivilegeError() | exceptions.InvalidSchemaNameError():
            return _denied(told, user, database, where)
        case exceptions.ReadOnlySQLTransactionError():
            return f"{FIELDS}.host: {where} is a read-only replica; name the primary"
        case exceptions.UndefinedObjectError() | exceptions.UndefinedFunctionError():
            return (
                f"{where}: pgvector is missing in {database}, or its schema is not on the "
                f"search_path of {user}: {told}"
            )
    return f"{where} refused a query: {told}"


def _denied(told: str, user: str, database: str, where: str) -> str:
    if "extension" in told:
        return (
            f"{where}: {database} lacks the extension pgvector, which {user} may not create: have "
            "an administrator run CREATE EXTENSION vector there"
        )
    if "schema" in told:
        return (
            f"{where}: {user} may not create a table in {database}: have an administrator run "
            f"GRANT CREATE, USAGE ON SCHEMA public TO {user.removeprefix('user ')} there"
        )
    return f"{where}: {user} lacks a right in {database}: {told}"
