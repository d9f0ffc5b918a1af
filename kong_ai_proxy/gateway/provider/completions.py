"""The stand-in provider's legacy completions: one or several prompts, one-shot and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from kong_ai_proxy.gateway.provider import text
from kong_ai_proxy.gateway.provider.http import (
    FINGERPRINT,
    ApiError,
    Json,
    Route,
    Rule,
    check_params,
    json_response,
    new_id,
    now,
    read_json,
    send_events,
    wants_usage,
)
from kong_ai_proxy.gateway.provider.inputs import inputs

RULES: Final[dict[str, Rule]] = {
    "best_of": Rule("an integer", 1, 20),
    "echo": Rule("a boolean"),
    "frequency_penalty": Rule("a decimal", -2, 2),
    "logit_bias": Rule("an object"),
    "logprobs": Rule("an integer", 0, 5),
    "max_tokens": Rule("an integer", 0),
    "model": Rule("a string"),
    "n": Rule("an integer", 1, 128),
    "presence_penalty": Rule("a decimal", -2, 2),
    "prompt": Rule("anything"),
    "seed": Rule("an integer"),
    "stop": Rule("a string or array of strings"),
    "stream": Rule("a boolean"),
    "stream_options": Rule("an object"),
    "suffix": Rule("a string"),
    "temperature": Rule("a decimal", 0, 2),
    "top_p": Rule("a decimal", 0, 1),
    "user": Rule("a string"),
}

_DEFAULT_MAX_TOKENS: Final = 16  # OpenAI's default, which cuts most answers short


@dataclass(frozen=True)
class _Choice:
    pieces: tuple[str, ...]  # what was echoed, then what was made
    made: int  # how many of them were made
    finish_reason: str


async def completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions"""
    body = await read_json(request)
    if not body.get("stream"):
        return json_response(answer(body))
    body = _check(body)
    head, choices, usage = _made(body)
    return await send_events(request, _chunks(body, head, choices, usage))


def answer(body: Json) -> Json:
    """The whole answer to a request. Raises ApiError 400."""
    body = _check(body)
    head, choices, usage = _made(body)
    answers = [
        _answer(body, number, choice.pieces, choice.finish_reason)
        for number, choice in enumerate(choices)
    ]
    return {**head, "choices": answers, "usage": usage}


def _made(body: Json) -> tuple[Json, list[_Choice], Json]:
    prompts = inputs(body.get("prompt", "<|endoftext|>"), "prompt")
    choices = [_choose(body, prompt, n) for prompt in prompts for n in range(body.get("n", 1))]
    usage = text.usage(
        sum(prompt.tokens for prompt in prompts), sum(choice.made for choice in choices)
    )
    head = {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": now(),
        "model": body["model"],
        "system_fingerprint": FINGERPRINT,
    }
    return head, choices, usage


ROUTES: Final[tuple[Route, ...]] = (("POST", "/v1/completions", completions),)


def _check(body: Json) -> Json:
    given = check_params(body, RULES, ("model",))
    if given.get("best_of", given.get("n", 1)) < given.get("n", 1):
        raise ApiError(400, "best_of must be greater than or equal to n.", param="best_of")
    if given.get("best_of", 1) > 1 and given.get("stream"):
        raise ApiError(400, "You cannot use 'best_of' with 'stream'.", param="best_of")
    return given


def _choose(body: Json, prompt: Any, number: int) -> _Choice:
    stop = body.get("stop", [])
    made = text.generate(
        " " + text.reply(prompt.text, number),
        [stop] if isinstance(stop, str) else stop,
        body.get("max_tokens", _DEFAULT_MAX_TOKENS),
    )
    echoed = tuple(text.tokens(prompt.text)) if body.get("echo") else ()
    return _Choice((*echoed, *made.pieces), len(made.pieces), made.finish_reason)


def _answer(body: Json, number: int, pieces: tuple[str, ...], reason: str | None) -> Json:
    return {
        "index": number,
        "text": "".join(pieces),
        "logprobs": _logprobs(pieces) if body.get("logprobs") is not None else None,
        "finish_reason": reason,
    }


def _logprobs(pieces: tuple[str, ...]) -> Json:
    starts = [sum(map(len, pieces[:at])) for at in range(len(pieces))]
    return {
        "tokens": list(pieces),
        "token_logprobs": [-0.1] * len(pieces),
        "top_logprobs": [{piece: -0.1} for piece in pieces],
        "text_offset": starts,
    }


def _chunks(body: Json, head: Json, choices: list[_Choice], usage: Json) -> Iterator[Json]:
    if wants_usage(body):
        head = {**head, "usage": None}
    for number, choice in enumerate(choices):
        for piece in choice.pieces:
            yield {**head, "choices": [_answer(body, number, (piece,), None)]}
        yield {**head, "choices": [_answer(body, number, (), choice.finish_reason)]}
    if wants_usage(body):
        yield {**head, "choices": [], "usage": usage}
