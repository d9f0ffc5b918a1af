"""Anthropic's Message Batches: https://platform.claude.com/docs/en/api/creating-message-batches.

Requests are checked with the SDK's own types, each of them as a request for a message besides;
answers and the lines of results with the SDK's models. A batch waits until a test says what
becomes of it:

    upstream.finish(batch["id"], {"a": Turn(text="Four."), "b": "expired"})
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import orjson
from anthropic.types.messages import (
    DeletedMessageBatch,
    MessageBatch,
    MessageBatchIndividualResponse,
    batch_create_params,
)
from typing_extensions import override

from tests.providers import anthropic_api
from tests.providers.anthropic_api import Anthropic
from tests.providers.strict import Validator, made, parsed
from tests.providers.upstream import (
    Json,
    Recorded,
    RefusedError,
    Reply,
    Routes,
    Turn,
    json_reply,
    route,
)

Outcome = Turn | Literal["canceled", "expired"]
"""What becomes of one request. A Turn of a status above 399 is an error."""

_CREATE: Final = Validator(batch_create_params.BatchCreateParams, anthropic_api._SAMPLING)
# The reference of the member custom_id.
_CUSTOM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NO_COUNTS: Final = {"canceled": 0, "errored": 0, "expired": 0, "succeeded": 0}
_CREATED: Final = "2026-08-20T18:37:24.100435Z"
_EXPIRES: Final = "2026-08-21T18:37:24.100435Z"
_ENDED: Final = "2026-08-20T19:04:00.000000Z"


class AnthropicBatches(Anthropic):
    """api.anthropic.com with `/v1/messages/batches`. `batches` and `results` are what it holds."""

    ROUTES: ClassVar[Routes] = (
        (route("POST", "/v1/messages/batches/{number}/cancel"), "cancel"),
        (route("GET", "/v1/messages/batches/{number}/results"), "told"),
        (route("GET|DELETE", "/v1/messages/batches/{number}"), "one"),
        (route("GET|POST", "/v1/messages/batches"), "all"),
        *Anthropic.ROUTES,
    )

    def __init__(self) -> None:
        super().__init__()
        self.batches: dict[str, Json] = {}  # the newest last
        self.asked: dict[str, list[Json]] = {}
        self.results: dict[str, bytes] = {}

    def finish(
        self, number: str, outcomes: Mapping[str, Outcome], *, canceled: bool = False
    ) -> None:
        """End a batch; `outcomes` by custom id."""
        batch, lines = self.batches[number], []
        counts = {**_NO_COUNTS, "processing": 0}
        for request in self.asked[number]:
            result = _result(outcomes[request["custom_id"]], request["params"]["model"])
            counts[result["type"]] += 1
            line = {"custom_id": request["custom_id"], "result": result}
            lines.append(orjson.dumps(made(MessageBatchIndividualResponse, line)) + b"\n")
        self.results[number] = b"".join(lines)
        batch.update(
            processing_status="ended",
            ended_at=_ENDED,
            request_counts=counts,
            results_url=f"https://api.anthropic.com/v1/messages/batches/{number}/results",
            cancel_initiated_at=_CREATED if canceled else batch["cancel_initiated_at"],
        )
        made(MessageBatch, batch)

    @override
    def authorize(self, request: Recorded) -> None:
        """A body has a type; what has none needs none."""
        if request.body or (request.method == "POST" and not request.path.endswith("/cancel")):
            super().authorize(request)
            return
        if not (request.headers.get("x-api-key") or request.headers.get("authorization")):
            raise RefusedError("x-api-key header is required", 401)
        if not request.headers.get("anthropic-version"):
            raise RefusedError("anthropic-version: header is required")

    def all(self, request: Recorded, turn: Turn) -> Reply:
        """POST makes one, GET lists them, the newest first."""
        return self._create(request) if request.method == "POST" else self._list(request)

    def _create(self, request: Recorded) -> Reply:
        body = parsed(request.body)
        for at, each in enumerate(body.get("requests", ())):
            if isinstance(each, dict) and isinstance(each.get("params"), dict):
                anthropic_api.check_messages(each["params"])
                if not _CUSTOM_ID.fullmatch(str(each.get("custom_id"))):
                    raise RefusedError(f"requests.{at}.custom_id: should match {_CUSTOM_ID}")
        bare = [{**each, "params": _bare(each)} for each in body.get("requests", ())]
        _CREATE.check({**body, "requests": bare})
        if not body["requests"]:
            raise RefusedError("requests: List should have at least 1 item after validation")
        names = [each["custom_id"] for each in body["requests"]]
        if len(set(names)) != len(names):
            raise RefusedError("requests: custom_id must be unique")
        number = f"msgbatch_01StandIn{len(self.batches)}"
        self.asked[number] = body["requests"]
        self.batches[number] = {
            "id": number,
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": {**_NO_COUNTS, "processing": len(names)},
            "ended_at": None,
            "created_at": _CREATED,
            "expires_at": _EXPIRES,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": None,
        }
        return json_reply(made(MessageBatch, self.batches[number]))

    def _list(self, request: Recorded) -> Reply:
        limit = int(request.params.get("limit", 20))
        if not 1 <= limit <= 100 or request.params.keys() - {"limit", "after_id", "before_id"}:
            raise RefusedError("limit: Input should be from 1 to 100")
        newest = list(reversed(self.batches.values()))
        start = 0
        if after := request.params.get("after_id"):
            self._known(after)
            start = [each["id"] for each in newest].index(after) + 1
        page = newest[start : start + limit]
        return json_reply(
            {
                "data": page,
                "has_more": start + limit < len(newest),
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
            }
        )

    def one(self, request: Recorded, turn: Turn, number: str) -> Reply:
        """GET tells it, DELETE deletes one that has ended."""
        batch = self._known(number)
        if request.method == "GET":
            return json_reply(made(MessageBatch, batch))
        if batch["processing_status"] != "ended":
            raise RefusedError("Message Batch cannot be deleted while it is in progress.")
        del self.batches[number]
        return json_reply(
            made(DeletedMessageBatch, {"id": number, "type": "message_batch_deleted"})
        )

    def cancel(self, request: Recorded, turn: Turn, number: str) -> Reply:
        """POST .../cancel"""
        batch = self._known(number)
        if batch["processing_status"] == "in_progress":
            batch.update(processing_status="canceling", cancel_initiated_at=_CREATED)
        return json_reply(made(MessageBatch, batch))

    def told(self, request: Recorded, turn: Turn, number: str) -> Reply:
        """GET .../results"""
        if self._known(number)["results_url"] is None:
            raise RefusedError("The results of this Message Batch are not available yet.", 404)
        return Reply(self.results[number], content_type="application/x-jsonl")

    def _known(self, number: str) -> Json:
        if number not in self.batches:
            raise RefusedError(f"Message Batch {number} not found", 404)
        return self.batches[number]


def _bare(request: Json) -> Any:
    """The parameters without those that the API takes and the SDK's types lack."""
    given = request.get("params")
    if not isinstance(given, dict):
        return given
    return {name: value for name, value in given.items() if name not in anthropic_api._SAMPLING}


def _result(outcome: Outcome, model: str) -> Json:
    if not isinstance(outcome, Turn):
        return {"type": outcome}
    if outcome.status >= 400:
        kind = anthropic_api._ERRORS.get(outcome.status, "api_error")
        return {"type": "errored", "error": anthropic_api._error(kind, outcome.message)}
    return {"type": "succeeded", "message": anthropic_api.message(outcome, model)}
