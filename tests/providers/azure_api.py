"""Azure OpenAI with all it can do, on a free port of 127.0.0.1.

What its operations answer comes from the project's own stand-in of OpenAI's API, which remembers
files, batches, assistants and videos. Here is what Azure does otherwise, and strictly: where
everything lives, which api-version it takes there, which credentials, and which deployments exist.

Paths and api-versions of the dated API: https://learn.microsoft.com/en-us/azure/ai-services/openai/
reference and .../reference-preview. Of v1: https://learn.microsoft.com/en-us/azure/foundry/openai/
api-version-lifecycle. Of realtime: .../openai/how-to/realtime-audio-websockets and
.../realtime-audio-preview-api-migration-guide.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, Self

from aiohttp import web
from openai.types import (
    batch_create_params,
    completion_create_params,
    embedding_create_params,
    image_generate_params,
)
from openai.types.audio import speech_create_params
from openai.types.beta import assistant_create_params
from openai.types.chat import completion_create_params as chat
from openai.types.responses import response_create_params

from kong_ai_proxy.gateway.provider import Seen, application
from kong_ai_proxy.gateway.provider.http import SEEN, Settings, json_response
from tests.providers.strict import Validator, parsed
from tests.providers.upstream import Json, RefusedError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_DEPLOYED: Final = re.compile(
    r"/v1(/chat/completions|/completions|/embeddings|/audio/.+|/images/(?:generations|edits))"
)
_KEPT: Final = re.compile(r"/v1(/(?:files|batches|assistants|threads|responses)(?:/.*)?)")
_V1: Final = re.compile(r"/v1(/(?:files|batches|responses|videos|realtime|chat/completions).*)")
_OWN_PATHS: Final = ("/openai/deployments/", "/openai/v1/", "/openai/")

_DATED: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:-preview)?")
_UNDATED: Final = ("v1", "preview")
_MODEL_FIELD: Final = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n')
_FIRST_RESPONSES: Final = "2025-03-01-preview"

# By operation, without what stands before it: types of requests, plain and streamed where the SDK
# tells them apart.
REQUESTS: Final[Mapping[str, tuple[Any, Any]]] = {
    "/chat/completions": (
        chat.CompletionCreateParamsNonStreaming,
        chat.CompletionCreateParamsStreaming,
    ),
    "/completions": (
        completion_create_params.CompletionCreateParamsNonStreaming,
        completion_create_params.CompletionCreateParamsStreaming,
    ),
    "/embeddings": (embedding_create_params.EmbeddingCreateParams, None),
    "/audio/speech": (speech_create_params.SpeechCreateParams, None),
    "/images/generations": (
        image_generate_params.ImageGenerateParamsNonStreaming,
        image_generate_params.ImageGenerateParamsStreaming,
    ),
    "/responses": (
        response_create_params.ResponseCreateParamsNonStreaming,
        response_create_params.ResponseCreateParamsStreaming,
    ),
    "/assistants": (assistant_create_params.AssistantCreateParams, None),
    "/batches": (batch_create_params.BatchCreateParams, None),
}
_NAMES_MODEL: Final = ("/responses", "/assistants", "/videos", "/chat/completions")


class Azure:
    """A resource with these deployments, from `async with` on.

    url: its address, without a path. requests: what it received, oldest first. failures: why it
    refused; a test that expects none ends with `assert azure.failures == []`.
    """

    def __init__(
        self,
        deployments: Collection[str],
        *,
        api_key: str = "azure-key",
        token: str = "entra-token",
    ) -> None:
        self.url = ""
        self.requests: list[Seen] = []
        self.failures: list[str] = []
        self._deployments = frozenset(deployments)
        self._api_key = api_key
        self._token = token

    async def __aenter__(self) -> Self:
        app = application(Settings())
        for route in list(app.router.routes()):
            assert route.resource is not None
            for path in _azure_paths(route.resource.canonical):
                app.router.add_route(route.method, path, route.handler)
        app.middlewares.append(self._check)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    # ---- what Azure refuses

    @web.middleware
    async def _check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(SEEN.get())
        try:
            self._authorize(request)
            self._check_version(request)
            self._check_deployment(request)
            await self._check_body(request)
            answer = await handler(_with_model(request))
            self._check_form(request)
        except RefusedError as refused:
            self.failures.append(f"{request.method} {request.raw_path}: {refused.message}")
            return _error(refused.status, refused.message)
        if answer.status >= web.HTTPBadRequest.status_code:
            self.failures.append(f"{request.method} {request.raw_path}: {answer.status}")
        return answer

    def _authorize(self, request: web.Request) -> None:
        """.../reference#authentication: a key, or a token of Entra ID."""
        key = request.headers.get("api-key")
        if "Authorization" in request.headers:
            if request.headers["Authorization"] != f"Bearer {self._token}":
                raise RefusedError("Access denied due to invalid token.", 401)
        elif key != self._api_key:
            raise RefusedError("Access denied due to invalid subscription key.", 401)

    def _check_version(self, request: web.Request) -> None:
        versions = request.query.getall("api-version", [])
        if not request.path.startswith("/openai/"):
            raise RefusedError("Resource not found", 404)
        if request.path == "/openai/v1/realtime":
            if versions:
                raise RefusedError("api-version is not supported here", 401)
        elif request.path.startswith("/openai/v1/"):
            if len(versions) > 1 or any(each not in _UNDATED for each in versions):
                raise RefusedError("API version not supported", 400)
        elif len(versions) != 1 or not _DATED.fullmatch(versions[0]):
            raise RefusedError("Resource not found", 404)
        elif request.path.startswith("/openai/responses") and versions[0] < _FIRST_RESPONSES:
            raise RefusedError("Azure OpenAI Responses API is enabled only later", 400)

    def _check_deployment(self, request: web.Request) -> None:
        """Where the URL names one."""
        name = request.match_info.get("deployment")
        if request.path.endswith("/realtime") and _is_named_elsewhere(request):
            _only(request, "")
        elif request.path == "/openai/v1/realtime":
            _only(request, "model")
            name = request.query["model"]
        elif request.path == "/openai/realtime":
            _only(request, "deployment")
            name = request.query["deployment"]
        if name is not None:
            self._check_exists(name)

    def _check_exists(self, name: object) -> None:
        if name not in self._deployments:
            raise RefusedError("The API deployment for this resource does not exist.", 404)

    async def _check_body(self, request: web.Request) -> None:
        """What the vendor's own types refuse, and a model that is no deployment."""
        operation = _operation(request)
        if request.method != "POST" or request.content_type != "application/json":
            return
        body = parsed(await request.read() or b"{}")
        if operation in REQUESTS:
            plain, streamed = REQUESTS[operation]
            _validator(streamed if body.get("stream") and streamed else plain).check(
                {"model": "of the path", **body}
                if request.match_info.get("deployment") is not None
                else body
            )
        if request.match_info.get("deployment") is None and (
            operation in _NAMES_MODEL or "model" in body
        ):
            self._check_exists(body.get("model"))

    def _check_form(self, request: web.Request) -> None:
        """A form is only known once the operation has read it."""
        if _operation(request) == "/videos" and request.content_type == "multipart/form-data":
            models = _MODEL_FIELD.findall(SEEN.get().body)
            if len(models) != 1:
                raise RefusedError(f"expected the field 'model' once, not {len(models)} times")
            self._check_exists(models[0].decode())


@functools.cache
def _validator(kind: Any) -> Validator:
    return Validator(kind)


def _azure_paths(path: str) -> list[str]:
    """Where Azure has an operation of OpenAI's."""
    found = []
    if match := _DEPLOYED.fullmatch(path):
        found.append(f"/openai/deployments/{{deployment}}{match[1]}")
    if match := _KEPT.fullmatch(path):
        found.append(f"/openai{match[1]}")
    if match := _V1.fullmatch(path):
        found.append(f"/openai/v1{match[1]}")
    if path == "/v1/realtime":
        found.append("/openai/realtime")
    return found


def _operation(request: web.Request) -> str:
    """The path without what Azure puts before it."""
    deployment = request.match_info.get("deployment")
    path = request.path
    for prefix in _OWN_PATHS:
        if path.startswith(prefix):
            path = path.removeprefix(prefix)
            break
    return "/" + (path.partition("/")[2] if deployment is not None else path)


def _is_named_elsewhere(request: web.Request) -> bool:
    """Whether a session only transcribes, or joins a call:
    https://github.com/openai/openai-node/pull/1974."""
    return request.query.get("intent") == "transcription" or "call_id" in request.query


def _only(request: web.Request, name: str) -> None:
    """The one parameter that names a deployment, once; none at all for ""."""
    for each in ("model", "deployment"):
        count = len(request.query.getall(each, []))
        if count != (each == name):
            raise RefusedError(f"{each!r} in the query: {count} times", 400)


def _with_model(request: web.Request) -> web.Request:
    """A session's request as the stand-in of OpenAI's API knows it: with a model in the query."""
    if not request.path.endswith("/realtime") or "model" in request.query:
        return request
    url = request.rel_url.update_query(model=request.query.get("deployment", "of the session"))
    clone = request.clone(rel_url=url)
    clone._match_info = request._match_info  # a clone has been routed nowhere
    return clone


def _error(status: int, message: str) -> web.Response:
    """The shape of Azure's own refusals."""
    body: Json = {"error": {"code": str(status), "message": message}}
    return json_response(body, status)
