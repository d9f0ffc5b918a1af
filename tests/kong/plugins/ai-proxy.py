"""A plugin server's part that always takes the relay where statistics are asked for: the ticket is
a word and the relay is whatever the configuration's upstream_url names."""

from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]


class Plugin:
    """One configuration; as in access, but without a relay to issue a ticket for."""

    def __init__(self, config: Json) -> None:
        self._target: Json = config.get("targets", [config])[0]

    def access(self, kong: Any) -> None:
        url = urlsplit(self._target["model"]["options"]["upstream_url"])
        kong.service.set_target(url.hostname, url.port)
        kong.service.request.set_scheme("http")
        kong.service.request.set_path(url.path)
        if self._target["logging"]["log_statistics"]:
            kong.service.request.set_header("x-kong-ai-proxy-ticket", "a ticket")
