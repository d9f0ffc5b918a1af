"""The decK files below examples/, with their variables filled in and stand-ins to point them at."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from kong_ai_proxy import resources

Json = dict[str, Any]

FILES: Final = sorted(path.name for path in resources.path("examples").glob("*.yaml"))
_OPENAI_ONLY = (
    "ai-proxy-advanced.yaml",
    "key-auth.yaml",
    "openai.yaml",
    "self-hosted.yaml",
    "templating.yaml",
)
BALANCED: Final = (
    "acls-groups.yaml",
    "acls.yaml",
    "alias-routing.yaml",
    "balancing.yaml",
    "circuit-breaker.yaml",
    "dynamic-models.yaml",
    "failover.yaml",
    "realtime-balanced.yaml",
    "semantic-pgvector.yaml",
    "semantic-redis.yaml",
)
"""Those in which several targets, or several clients, matter."""
OTHERS: Final = [name for name in FILES if name not in (*_OPENAI_ONLY, *BALANCED)]
"""Those that are for another provider than OpenAI, or for clients of another format."""


def text(name: str) -> str:
    """A file as it is."""
    return resources.path("examples", name).read_text(encoding="utf-8")


TOKEN: Final = "token"
"""Of a cloud's identity, wherever an example has one sign."""
_VARIABLES = {name for file in FILES for name in re.findall(r"DECK_\w+", text(file))}
ENV: Final = {
    **{name: f"value-of-{name}" for name in _VARIABLES},
    "DECK_OPENAI_API_KEY": "sk-example",
    "DECK_ALICE_KEY": "key-of-alice",
    "DECK_AWS_ACCESS_KEY_ID": "AKIASTANDIN",
    "DECK_AWS_SECRET_ACCESS_KEY": "stand-in-secret",
    "DECK_GCP_SERVICE_ACCOUNT": json.dumps(
        {
            "type": "service_account",
            "client_email": "kong@my-project.iam.gserviceaccount.com",
            "private_key": "-----BEGIN PRIVATE KEY-----\nMII=\n-----END PRIVATE KEY-----\n",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    ),
}
"""decK's variables."""


@cache
def _parsed(name: str) -> Any:
    return yaml.load(text(name), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def deck(name: str) -> Json:
    """A file, parsed, for the caller to change."""
    found: Json = copy.deepcopy(_parsed(name))
    return found


def routes(document: Json) -> Iterator[Json]:
    """All of its routes."""
    for service in document["services"]:
        yield from service["routes"]


def plugins(document: Json) -> Iterator[Json]:
    """All of its plugins of ours."""
    for route in routes(document):
        yield from (p for p in route["plugins"] if p["name"].startswith("ai-proxy"))


def targets(plugin: Json) -> list[Json]:
    """What holds route type, auth and model: the plugin's configuration, or its targets."""
    config: Json = plugin["config"]
    found: list[Json] = config.get("targets", [config])
    return found


def target(route: Json) -> Json:
    """The only one of a route."""
    (found,) = targets(route["plugins"][0])
    return found


def llm_format(route: Json) -> str:
    """What a route's clients speak."""
    found: str = route["plugins"][0]["config"].get("llm_format", "openai")
    return found


def path(route: Json) -> str:
    """The first path of a route, without what makes it a regular expression."""
    found: str = route["paths"][0].strip("~$")
    return found


def point(target: Json, url: str) -> None:
    """At a stand-in, which issues no tokens: where the example lets a cloud's identity sign, it
    gets something ready."""
    auth, options = target.get("auth", {}), target["model"].setdefault("options", {})
    own = options.get("upstream_url", "")
    options["upstream_url"] = url + urlsplit(own).path
    if auth.get("azure_use_managed_identity") or auth.get("gcp_use_service_account"):
        target["auth"] = {"header_name": "Authorization", "header_value": f"Bearer {TOKEN}"}
    if options.get("bedrock", {}).pop("aws_assume_role_arn", None):
        del options["bedrock"]["aws_role_session_name"]
        target["auth"] = {
            "aws_access_key_id": ENV["DECK_AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": ENV["DECK_AWS_SECRET_ACCESS_KEY"],
        }
