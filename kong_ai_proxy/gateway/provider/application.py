"""A stand-in provider: OpenAI's API on this machine, for development and tests.

It is not a language model and says so: in the text of its answers, in `system_fingerprint`
(`fp_stand_in_kong_ai_proxy`) and in the header `X-Stand-In: kong-ai-proxy` on every answer. It
checks requests as strictly as OpenAI does, so that a request which passes here has the right shape.

- Every model name is answered; `GET /v1/models` lists a few.
- Chat, completions and responses: text streamed word by word, tool calls with arguments that fit
  the tool's JSON schema, structured answers. Embeddings depend on the text.
- Files, batches, videos and assistants are remembered until it stops: the newest 1,000 of a kind.
  Jobs move on when they are asked for, so that poll loops end and tests need no clock.
- Speech is beeps, a transcription says how long a sound was, images and videos are drawn.
- Realtime sessions over WebSocket, of today's API and of the beta.
- The model names `error-400` to `error-599` are answered with that status (`error-429` and
  `error-503` with `Retry-After: 1`).
- With `api_key` set, a request without that bearer key gets 401.

Each capability is a module with `ROUTES`; `application` puts them together.
"""

from __future__ import annotations

import hmac
import logging
from collections import deque
from typing import Final

from aiohttp import web

from kong_ai_proxy.gateway.provider import (
    assistants,
    batches,
    chat,
    completions,
    embeddings,
    files,
    images,
    models,
    realtime,
    responses,
    runs,
    speech,
    threads,
    transcriptions,
    videos,
)
from kong_ai_proxy.gateway.provider.http import (
    SEEN,
    SETTINGS,
    ApiError,
    Handler,
    Route,
    Seen,
    Settings,
    json_response,
    label,
)

_LOGGER = logging.getLogger("kong_ai_proxy.gateway")

MAX_BODY_BYTES: Final = 32 * 1024 * 1024

_ROUTES: Final[tuple[Route, ...]] = (
    *chat.ROUTES,
    *completions.ROUTES,
    *embeddings.ROUTES,
    *models.ROUTES,
    *files.ROUTES,
    *batches.ROUTES,
    *images.ROUTES,
    *realtime.ROUTES,
    *responses.ROUTES,
    *assistants.ROUTES,
    *runs.ROUTES,
    *threads.ROUTES,
    *speech.ROUTES,
    *transcriptions.ROUTES,
    *videos.ROUTES,
)
_REMEMBERING: Final = (
    files,
    batches,
    images,
    realtime,
    responses,
    assistants,
    threads,
    runs,
    videos,
)
_KEEP_SEEN: Final = 100
_END_SECONDS: Final = 1.0  # for answers under way when it stops

_SEEN: Final = web.AppKey("seen", deque[Seen])


def application(settings: Settings | None = None) -> web.Application:
    """The provider as an aiohttp application."""
    app = web.Application(
        middlewares=[_answer_errors, _require_key], client_max_size=MAX_BODY_BYTES
    )
    app[SETTINGS] = settings or Settings()
    app[_SEEN] = deque(maxlen=_KEEP_SEEN)
    app.on_response_prepare.append(label)
    for module in _REMEMBERING:
        module.set_up(app)
    for method, path, handler in _ROUTES:
        app.router.add_route(method, path, handler)
    return app


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as an answer in OpenAI's shape."""
    try:
        return await handler(request)
    except ApiError as error:
        return json_response(error.body, error.status, error.headers)
    except web.HTTPRequestEntityTooLarge:
        return _plain(413, f"The request body is larger than {MAX_BODY_BYTES} bytes.")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return _plain(
            405,
            f"Not allowed to {request.method} on {request.path} (HINT: use {allowed})",
            code="method_not_supported",
        )
    except web.HTTPNotFound:
        return _plain(404, f"Invalid URL ({request.method} {request.path})")
    except (web.HTTPException, ConnectionError):
        raise
    except Exception:
        _LOGGER.exception("%s %s", request.method, request.path)
        if request.writer.output_size:  # an answer has begun: it can only break off
            raise
        text = "The stand-in provider failed; its log says why."
        return json_response(ApiError(500, text, kind="server_error").body, 500)


def _plain(status: int, message: str, code: str | None = None) -> web.Response:
    error = ApiError(status, message, code=code)
    return json_response(error.body, status)


@web.middleware
async def _require_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note the request; 401 unless it carries the key, when one is required."""
    seen = Seen(request.method, request.raw_path, request.headers)
    request.app[_SEEN].append(seen)
    SEEN.set(seen)
    # A form may be far larger than what is held in memory: whoever wants it reads it in pieces.
    if request.can_read_body and not request.content_type.startswith("multipart/"):
        seen.note(await request.read())
    key = request.app[SETTINGS].api_key
    if key is None or request.path.startswith(images.PUBLIC):
        return await handler(request)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        given = realtime.key_in_protocol(request) or ""
    if not given:
        raise ApiError(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization "
            "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key.encode()):
        raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
    return await handler(request)


class Provider:
    """A running stand-in provider on a loopback port.

    `url` is the base URL an OpenAI client takes, `http://127.0.0.1:PORT/v1`; `seen` holds the last
    100 requests.
    """

    def __init__(self, runner: web.AppRunner, app: web.Application) -> None:
        self._runner = runner
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        self.seen: deque[Seen] = app[_SEEN]

    @classmethod
    async def start(
        cls, *, port: int = 0, api_key: str | None = None, word_seconds: float = 0.0
    ) -> Provider:
        """Listen on 127.0.0.1; port 0 takes a free one. Raises OSError for a taken port."""
        app = application(Settings(api_key, word_seconds))
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_END_SECONDS
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError:
            await runner.cleanup()
            raise
        return cls(runner, app)

    async def stop(self) -> None:
        """Stop listening and end what is under way."""
        await self._runner.cleanup()
