"""How Hugging Face's router makes videos: the Hub, which knows a model's name at a partner, the
queue of the partner fal behind the router, and fal's public files. All three are one server here,
and are told apart by their hosts.

Paths, queries and payloads are those of huggingface_hub (inference/_providers/fal_ai.py) and of
https://docs.fal.ai/model-apis/model-endpoints/queue; what is asked of a model is checked with
huggingface_hub's TextToVideoParameters, and the Hub's answer with its ModelInfo.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from huggingface_hub import ModelInfo, TextToVideoParameters
from pydantic import create_model
from typing_extensions import override

from tests.providers.strict import Validator, parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    Upstream,
    json_reply,
    require_bearer,
    route,
)
from tests.providers.video_jobs_api import FILM, MP4

HUB: Final = "huggingface.co"
ROUTER: Final = "router.huggingface.co"
FILES: Final = "v3.fal.media"
MODEL: Final = "Wan-AI/Wan2.2-TI2V-5B"

_PARAMETERS: Final = Validator(TextToVideoParameters)
_PROMPT: Final = Validator(create_model("Prompt", prompt=(str, ...)))
_STATES: Final = ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")


class Fal(Upstream):
    """`requests_made` are the bodies of the requests in the queue, by id; each poll of one shows
    the next of its states."""

    name = "fal"
    ROUTES: ClassVar[Routes] = (
        (route("GET", f"/api/models/{MODEL}"), "model"),
        (route("POST", "/fal-ai/fal-ai/wan/v2.2-5b/text-to-video"), "ask"),
        (route("GET", "/fal-ai/fal-ai/wan/requests/{name}/status"), "status"),
        (route("GET", "/fal-ai/fal-ai/wan/requests/{name}"), "result"),
        (route("GET", "/files/rabbit/{name}.mp4"), "file"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.requests_made: dict[str, Json] = {}
        self._polls: dict[str, int] = {}

    @override
    def authorize(self, request: Recorded) -> None:
        """Files are anybody's, and whoever keeps them is not to see a token."""
        host = request.headers["Host"]
        if request.path.startswith("/files/"):
            expected = FILES
            if "Authorization" in request.headers:
                raise RefusedError("a public file was asked for with a token", 403)
        else:
            expected = HUB if request.path.startswith("/api/") else ROUTER
            require_bearer(request, "Invalid username or password.")
        if host != expected:
            raise RefusedError(f"{host} has no {request.path}, {expected} has", 404)

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        """https://docs.fal.ai/model-apis/errors"""
        return json_reply({"detail": message}, status)

    def model(self, request: Recorded, turn: Turn) -> Reply:
        """GET /api/models/{model}: which partners have it."""
        if request.query != "expand=inferenceProviderMapping":
            raise RefusedError(f"unexpected query {request.query!r}")
        own = {
            "provider": "fal-ai",
            "providerId": "fal-ai/wan/v2.2-5b/text-to-video",
            "status": "live",
            "task": "text-to-video",
        }
        told: Json = {"_id": "1", "id": MODEL, "inferenceProviderMapping": [own]}
        info: Any = ModelInfo
        (read,) = info(**told).inference_provider_mapping
        assert read.provider_id == own["providerId"]
        return json_reply(told)

    def ask(self, request: Recorded, turn: Turn) -> Reply:
        """POST of a new request."""
        _check_queue(request)
        body: dict[str, Any] = parsed(request.body)
        _PROMPT.check({"prompt": body.get("prompt")})
        _PARAMETERS.check({name: value for name, value in body.items() if name != "prompt"})
        made = f"764cabcf-b745-4b3e-ae38-{len(self.requests_made):012}"
        self.requests_made[made], self._polls[made] = body, 0
        address = f"https://queue.fal.run/fal-ai/wan/requests/{made}"
        addresses = {
            "response_url": address,
            "status_url": f"{address}/status",
            "cancel_url": f"{address}/cancel",
        }
        return json_reply(
            {"status": "IN_QUEUE", "request_id": made, "queue_position": 0, **addresses}
        )

    def status(self, request: Recorded, turn: Turn, name: str) -> Reply:
        """GET /requests/{name}/status"""
        at = self._at(request, name)
        self._polls[name] = at + 1
        return json_reply({"status": _STATES[min(at, len(_STATES) - 1)], "logs": None})

    def result(self, request: Recorded, turn: Turn, name: str) -> Reply:
        """GET /requests/{name}, which has nothing before the request is over."""
        if self._at(request, name) < len(_STATES):
            raise RefusedError("Request is still in progress", 400)
        url = f"https://{FILES}/files/rabbit/{name}.mp4"
        video = {"url": url, "content_type": MP4, "file_name": f"{name}.mp4"}
        return json_reply({"video": video, "seed": 424911732})

    def file(self, request: Recorded, turn: Turn, name: str) -> Reply:
        """GET of the film."""
        if name not in self.requests_made:
            raise RefusedError("Not found", 404)
        return Reply(FILM, content_type=MP4)

    def _at(self, request: Recorded, name: str) -> int:
        _check_queue(request)
        if name not in self._polls:
            raise RefusedError("Request not found", 404)
        return self._polls[name]


def _check_queue(request: Recorded) -> None:
    """The router asks fal's queue, and not the model itself, only where it is told to."""
    if request.query != "_subdomain=queue":
        raise RefusedError(f"unexpected query {request.query!r}")
