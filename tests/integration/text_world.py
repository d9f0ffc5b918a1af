"""Text providers behind one gateway, for clients of any format.

Every provider is a stand-in that checks what it gets with the vendor's own models; every client
format reaches every one of them at `/{format}/{name}`. A test module takes three fixtures from
here, which live as long as the module (starting a gateway takes seconds):

    gateway, world = text_world.gateway, text_world.world

and makes its own `place` of it: one provider as one format sees it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests import decks, providers
from tests.gateways import GatewayFactory, GatewayPool, RunningGateway
from tests.providers import ToolCall, Upstream

Json = dict[str, Any]
_T = TypeVar("_T")

CLIENTS_OWN: Final = "the-clients-own-credential"
"""What clients authenticate with; no provider may see it."""
OPERATORS_KEY: Final = "operators-key"
GOOGLE_TOKEN: Final = "ya29.stand-in"
ACCESS_KEY: Final = "AKIAOPERATORSOWN"

BEARER: Final = {"header_name": "Authorization", "header_value": f"Bearer {OPERATORS_KEY}"}

WEATHER_PARAMETERS: Final[Json] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Its name."},
        "unit": {"type": "string", "enum": ["C", "F"]},
    },
    "required": ["city"],
}
TIME_PARAMETERS: Final[Json] = {"type": "object", "properties": {"zone": {"type": "string"}}}
WEATHER: Final = ToolCall("get_weather", {"city": 'Zürich "N"', "unit": "C"})
TIME: Final = ToolCall("get_time", {"zone": "Europe/Rome"})
TEXT: Final = "/text"
PNG: Final = (  # one transparent pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Backend:
    """A provider as an operator configures it.

    model, embeds, completes: what clients ask for at each route type; None where the provider has
        no such route type.
    standin: the name of its upstream; several backends may share one.
    """

    provider: str
    standin: str
    model: str
    embeds: str | None = None
    completes: str | None = None
    auth: Json = field(default_factory=lambda: BEARER)
    options: Json = field(default_factory=dict)


_AZURE = {
    "azure_instance": "acme",
    "azure_deployment_id": "deployed",
    "azure_api_version": "2024-10-21",
}
_AWS = {
    "aws_access_key_id": ACCESS_KEY,
    "aws_secret_access_key": OPERATORS_KEY,
}
_REGION = {"bedrock": {"aws_region": "eu-central-1"}}
_VERTEX_PLACE = {
    "gemini": {
        "api_endpoint": "us-central1-aiplatform.googleapis.com",
        "project_id": "acme",
        "location_id": "us-central1",
    }
}

BACKENDS: Final[Mapping[str, Backend]] = {
    "openai": Backend(
        "openai", "openai", "gpt-4o", "text-embedding-3-small", "gpt-3.5-turbo-instruct"
    ),
    "azure": Backend(
        "azure",
        "openai",
        "gpt-4o",
        "text-embedding-3-small",
        "gpt-3.5-turbo-instruct",
        auth={"header_name": "api-key", "header_value": OPERATORS_KEY},
        options=_AZURE,
    ),
    "anthropic": Backend(
        "anthropic",
        "anthropic",
        "claude-sonnet-4-6",
        completes="claude-2.1",
        auth={"header_name": "x-api-key", "header_value": OPERATORS_KEY},
        options={"anthropic_version": "2023-06-01"},
    ),
    "bedrock": Backend(
        "bedrock",
        "bedrock",
        "amazon.nova-pro-v1:0",
        "amazon.titan-embed-text-v2:0",
        "amazon.nova-pro-v1:0",
        auth=_AWS,
        options=_REGION,
    ),
    "bedrock-claude": Backend(
        "bedrock",
        "bedrock",
        "eu.anthropic.claude-sonnet-4-6",
        "cohere.embed-english-v3",
        auth=_AWS,
        options=_REGION,
    ),
    "gemini": Backend(
        "gemini",
        "gemini",
        "gemini-2.5-flash",
        "gemini-embedding-001",
        auth={"header_name": "x-goog-api-key", "header_value": OPERATORS_KEY},
    ),
    "vertex": Backend(
        "gemini",
        "vertex",
        "gemini-2.5-flash",
        "text-embedding-005",
        auth={"gcp_use_service_account": True},
        options=_VERTEX_PLACE,
    ),
    "vertex-claude": Backend(
        "gemini",
        "vertex",
        "claude-sonnet-4-6",
        auth={"gcp_use_service_account": True},
        options=_VERTEX_PLACE,
    ),
    "cohere": Backend("cohere", "cohere", "command-a-03-2025", "embed-v4.0", "command"),
    "mistral": Backend(
        "mistral",
        "mistral",
        "mistral-large-latest",
        "mistral-embed",
        options={"mistral_format": "openai"},
    ),
    "mistral-ollama": Backend(
        "mistral",
        "ollama",
        "mistral-small",
        "mistral-embed",
        options={"mistral_format": "ollama"},
    ),
    "huggingface": Backend(
        "huggingface",
        "huggingface",
        "meta-llama/Llama-3.3-70B-Instruct",
        "BAAI/bge-small-en-v1.5",
    ),
    "ollama": Backend("ollama", "ollama", "llama3.2:1b", "all-minilm"),
    "llama2-openai": Backend(
        "llama2", "openai", "llama3", "llama3", "llama3", options={"llama2_format": "openai"}
    ),
    "llama2-ollama": Backend(
        "llama2", "ollama", "llama3", "llama3", "llama3", options={"llama2_format": "ollama"}
    ),
    "llama2-raw": Backend(
        "llama2", "huggingface", "llama2", completes="llama2", options={"llama2_format": "raw"}
    ),
    "cerebras": Backend("cerebras", "openai", "llama3.1-8b"),
    "dashscope": Backend("dashscope", "openai", "qwen-plus", "text-embedding-v4"),
    "databricks": Backend("databricks", "databricks", "databricks-meta-llama-3-3-70b-instruct"),
    "deepseek": Backend("deepseek", "deepseek", "deepseek-chat"),
    "vllm": Backend("vllm", "vllm", "Qwen/Qwen3-8B"),
    "xai": Backend("xai", "xai", "grok-3"),
}


NATIVE_RESPONSES: Final = frozenset({"azure", "openai", "xai"})
"""Providers that have Responses themselves, which their stand-ins here have not."""


def standins() -> dict[str, Upstream]:
    """The upstreams of BACKENDS, not started."""
    return {
        "openai": providers.openai(),
        "anthropic": providers.anthropic(),
        "bedrock": providers.bedrock(ACCESS_KEY, OPERATORS_KEY, region="eu-central-1"),
        "gemini": providers.gemini(),
        "vertex": providers.vertex(),
        "cohere": providers.cohere(),
        "mistral": providers.mistral(),
        "ollama": providers.ollama(),
        "huggingface": providers.huggingface(),
        "databricks": providers.openai(refuses=["stream_options"]),
        "deepseek": providers.openai(reasoning="reasoning_content"),
        "vllm": providers.openai(takes={"top_k": int}),
        "xai": providers.openai(reasoning="reasoning_content"),
    }


@dataclass
class Place:
    """A provider as a client of one format reaches it."""

    url: str
    """Of the gateway; what the format's own clients put after their host follows."""
    name: str
    backend: Backend
    upstream: Upstream

    @property
    def model(self) -> str:
        """What the client asks for."""
        return self.backend.model

    @property
    def header(self) -> str:
        """The value of X-Kong-LLM-Model."""
        return f"{self.backend.provider}/{self.backend.model}"

    @property
    def sent(self) -> Any:
        """The body of the last request that the provider got."""
        return self.upstream.requests[-1].json

    def speak_in_part(self) -> asyncio.Event:
        """Let the provider say some of seven words, and the others once the event is set."""
        hold = asyncio.Event()
        self.upstream.script(text="one two three four five six seven", hold=hold, hold_after=5)
        return hold

    def check(self) -> None:
        """What holds after every test: the vendor's models took each request, and each came with
        the operator's credential and without anything of the client's or of ours."""
        assert self.upstream.failures == [], self.upstream.failures
        for seen in self.upstream.requests:
            everything = f"{seen.path}?{seen.query} {dict(seen.headers)}"
            assert CLIENTS_OWN not in everything, everything
            assert CLIENTS_OWN.encode() not in seen.body
            assert "x-kong-ai" not in everything.lower(), everything
            assert "cookie" not in seen.headers
            self._check_credential(seen.headers)

    def _check_credential(self, headers: Mapping[str, str]) -> None:
        auth = self.backend.auth
        if name := auth.get("header_name"):
            assert headers[name] == auth["header_value"]
        elif "aws_access_key_id" in auth:  # the stand-in recomputes the signature
            assert f"Credential={ACCESS_KEY}/" in headers["Authorization"]
        else:
            assert headers["Authorization"] == f"Bearer {GOOGLE_TOKEN}"


class World:
    """A gateway and all the providers behind it."""

    def __init__(self, running: RunningGateway, upstreams: Mapping[str, Upstream]) -> None:
        self.running = running
        self._upstreams = upstreams

    def place(self, llm_format: str, name: str) -> Place:
        """A provider, with nothing recorded and nothing scripted."""
        backend = BACKENDS[name]
        upstream = self._upstreams[backend.standin]
        upstream.requests.clear()
        upstream.failures.clear()
        upstream.script(providers.Turn())
        return Place(f"{self.running.url}/{llm_format}/{name}", name, backend, upstream)


def places(llm_format: str, names: Collection[str]) -> Any:
    """The fixture `place`: each of the providers, or those that `on` names."""

    @pytest.fixture(params=list(names))
    def place(request: pytest.FixtureRequest, world: World) -> Iterator[Place]:
        place = world.place(llm_format, request.param)
        yield place
        place.check()

    return place


def on(*names: str) -> pytest.MarkDecorator:
    """Run a test with these providers only."""
    return pytest.mark.parametrize("place", names, indirect=True)


def but(names: Collection[str], *missing: str) -> pytest.MarkDecorator:
    """Run a test with all of these providers but those that have not what it is about."""
    return on(*(name for name in names if name not in missing))


async def drain(stream: AsyncIterable[_T], into: list[_T]) -> None:
    """Read a stream to its end, or to the error in it."""
    async for each in stream:
        into.append(each)


# ---- the gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    request: pytest.FixtureRequest, gateway_pool: GatewayPool
) -> AsyncIterator[GatewayFactory]:
    """In place of the fixture of that name: the same for a whole module."""
    factory = GatewayFactory(gateway_pool, request.param)
    yield factory
    await factory.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(gateway: GatewayFactory, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """The providers and the gateway in front of them, for the module's `FORMATS`."""
    async with AsyncExitStack() as stack:
        upstreams = standins()
        for upstream in upstreams.values():
            await stack.enter_async_context(upstream)
        token_url = await token_endpoint(stack)
        running = await gateway(deck(request.module.FORMATS, upstreams, service_account(token_url)))
        yield World(running, upstreams)


def deck(formats: Collection[str], upstreams: Mapping[str, Upstream], account: str) -> str:
    """A decK file with every backend for clients of these formats."""
    routes = []
    for llm_format in formats:
        for name, backend in BACKENDS.items():
            url = upstreams[backend.standin].url
            for path, route_type in _paths(llm_format, backend).items():
                config = configuration(backend, url, route_type, llm_format, account)
                if path == TEXT:
                    config["model"]["name"] = backend.completes or backend.model
                routes.append(
                    decks.route(f"/{llm_format}/{name}{path}", config, response_buffering=False)
                )
    return decks.deck(*routes)


def configuration(
    backend: Backend, url: str, route_type: str, llm_format: str, account: str
) -> Json:
    """The plugin's configuration for a backend whose upstream is at `url`."""
    auth = dict(backend.auth)
    if "gcp_use_service_account" in auth:
        auth["gcp_service_account_json"] = account
    options = {"upstream_url": url, **backend.options}
    return {
        "llm_format": llm_format,
        "route_type": route_type,
        "auth": auth,
        "model": {"provider": backend.provider, "options": options},
    }


def _paths(llm_format: str, backend: Backend) -> dict[str, str]:
    """Below the backend's own path: OpenAI's operations have a route each, those of the other
    formats are told apart by the plugin. Only Hugging Face's requests for a text do not name a
    model: theirs is configured."""
    if llm_format == "huggingface":
        return {"": "llm/v1/chat", TEXT: "llm/v1/chat"}
    if llm_format != "openai":
        return {"": "llm/v1/chat"}
    paths = {"/v1/chat/completions": "llm/v1/chat"}
    if backend.completes:
        paths["/v1/completions"] = "llm/v1/completions"
    if backend.embeds:
        paths["/v1/embeddings"] = "llm/v1/embeddings"
    if backend.provider not in NATIVE_RESPONSES:
        paths["/v1/responses"] = "llm/v1/responses"
    return paths


# ---- Google's tokens


async def token_endpoint(stack: AsyncExitStack) -> str:
    """The URL of a server that gives out GOOGLE_TOKEN, as
    https://developers.google.com/identity/protocols/oauth2/service-account answers."""

    async def answer(request: web.Request) -> web.Response:
        form = await request.post()
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        token = {"access_token": GOOGLE_TOKEN, "expires_in": 3599, "token_type": "Bearer"}
        return web.json_response(token)

    app = web.Application()
    app.router.add_post("/token", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}/token"


def service_account(token_url: str) -> str:
    """A service account's key file whose tokens come from there."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "acme",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": "robot@acme.iam.gserviceaccount.com",
            "token_uri": token_url,
        }
    )
