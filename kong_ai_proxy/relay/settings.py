"""What an operator may say about how the relay reaches providers."""

from __future__ import annotations

import functools
import ipaddress
import urllib.parse
from dataclasses import dataclass, field

PROXIED_SCHEMES = frozenset({"https", "wss"})


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """The relay's part of the settings of `kong-ai-proxy serve`."""

    ca_file: str | None = None
    """Absolute path of a file with certificates (PEM) that are trusted beside the system's."""
    https_proxy: str | None = field(default=None, repr=False)
    """URL of the HTTP proxy through which https:// providers are reached. May have a user and a
    password in it."""
    no_proxy: str = ""
    """What is reached directly all the same, as in the environment variable NO_PROXY."""
    first_token_timeout: float | None = None
    """Seconds that a target has until the first content of a stream, while there is another one."""
    min_stream_rate: float | None = None
    """Events a second with which a stream has to begin while there is another target."""
    time_budget: float | None = None
    """Seconds that all targets of a request have together until its answer begins."""
    prompt_affinity: bool = False
    """Whether consistent-hashing takes how a conversation began where the header is absent."""

    def proxy_for(self, scheme: str, host: str, port: int) -> str | None:
        """URL of the proxy for a provider; None where it is reached directly.

        As everywhere, HTTPS_PROXY is not for http:// providers. What is on this machine is always
        reached directly.
        """
        if self.https_proxy is None or scheme not in PROXIED_SCHEMES:
            return None
        return None if _is_direct(self.no_proxy, host.lower(), port) else self.https_proxy


def proxy_url(text: str) -> str:
    """A proxy's URL, with http:// before it where it had no scheme. Raises ValueError, whose text
    has none of the URL: it may have a password in it."""
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("expected http://HOST:PORT: host or port cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("expected http://HOST:PORT: another scheme than http and https")
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("expected http://HOST:PORT: no host, or characters that need a percent")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("expected http://HOST:PORT: something follows the port")
    return url


@functools.lru_cache(maxsize=1024)
def _is_direct(no_proxy: str, host: str, port: int) -> bool:
    address = _address(host)
    if host == "localhost" or host.endswith(".localhost") or (address and address.is_loopback):
        return True
    entries = no_proxy.lower().replace(",", " ").split()
    return any(_names(entry, host, address, port) for entry in entries)


Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def _names(entry: str, host: str, address: Ip | None, port: int) -> bool:
    """Whether an entry of NO_PROXY names this host: `*`, a name with all below it, an address, a
    network, each but the network with or without a port."""
    if entry == "*":
        return True
    network = _network(entry)
    if network is not None:
        return address is not None and address in network
    name, colon, digits = entry.rpartition(":")
    if colon and (not digits.isdecimal() or int(digits) != port):
        return False
    name = (name if colon else entry).strip("[]").removeprefix("*").removeprefix(".")
    if address is not None:
        return address == _address(name)
    return bool(name) and (host == name or host.endswith("." + name))


def _address(text: str) -> Ip | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
