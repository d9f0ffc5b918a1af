"""An Outcome as the log fields of Kong's own ai-proxy, so that dashboards made for it fit.

Names: https://developer.konghq.com/ai-gateway/ai-audit-log-reference/. There is no null in them:
Kong's Lua would read one as a value, and its Prometheus plugin would fail on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from kong_ai_proxy.exchange.outcome import Outcome, Tried
from kong_ai_proxy.formats.usage import Usage

META = "ai.proxy.meta"
USAGE = "ai.proxy.usage"
PAYLOAD = "ai.proxy.payload"
TRIED_TARGETS = "ai.proxy.tried_targets"

MAX_TEXT = 1024
"""Longest name or path: a model's name may be the client's or the provider's."""
MAX_TRIED = 100
"""Most targets that are listed; of more, the last ones."""

_TEXT_CATEGORIES = frozenset({"text/generation", "text/embeddings"})


def fields(outcome: Outcome) -> dict[str, object]:
    """What the configuration wants logged, by the dotted name under which Kong logs it.

    Latencies are milliseconds, whole ones but for time_per_token.
    """
    found: dict[str, object] = {}
    if outcome.log_statistics:
        found[META] = _meta(outcome)
        found[USAGE] = _usage(outcome)
        if outcome.tried:
            found[TRIED_TARGETS] = [_tried(each) for each in outcome.tried[-MAX_TRIED:]]
    if outcome.log_payloads and (payload := _payload(outcome)):
        found[PAYLOAD] = payload
    return found


def clipped(text: str, longest: int = MAX_TEXT) -> str:
    """`text` shortened to what a log field may hold, with bytes that were not UTF-8 as \\udcNN."""
    cut = text if len(text) <= longest else text[:longest] + "..."
    return cut if cut.isascii() else cut.encode(errors="backslashreplace").decode()


def _meta(outcome: Outcome) -> dict[str, object]:
    return _without_none(
        plugin_id=outcome.plugin_id,
        provider_name=outcome.provider,
        request_model=_clip(outcome.request_model),
        response_model=_clip(outcome.response_model or outcome.request_model),
        llm_latency=int(outcome.latency_ms),
        request_mode=outcome.mode,
    )


def _usage(outcome: Outcome) -> dict[str, object]:
    usage = outcome.usage or Usage()
    first = outcome.first_token_ms
    return {
        **(_text(usage) if outcome.category in _TEXT_CATEGORIES else _non_text(usage)),
        **(_flat(usage) if outcome.mode == "realtime" else {}),
        "total_tokens": usage.total_tokens,
        "cost": outcome.cost,
        "time_per_token": _time_per_token(outcome.latency_ms, usage.completion_tokens),
        **_without_none(time_to_first_token=None if first is None else int(first)),
    }


def _text(usage: Usage) -> dict[str, object]:
    cached = {"cached_tokens_details": dict(usage.cached_details)} if usage.cached_details else {}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "prompt_tokens_details": {**usage.prompt_details, **cached},
        "completion_tokens": usage.completion_tokens,
        "completion_tokens_details": dict(usage.completion_details),
    }


def _non_text(usage: Usage) -> dict[str, object]:
    """Kong's names for images, audio and realtime, with their irregularities."""
    details: dict[str, object] = {
        "audio_tokens_count" if name == "audio_tokens" else name: count
        for name, count in usage.prompt_details.items()
    }
    if usage.cached_details:
        details["cached_tokens_details"] = _counts(usage.cached_details)
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": details,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": dict(usage.completion_details),
    }


def _flat(usage: Usage) -> dict[str, object]:
    """Of realtime sessions Kong logs the output's details in this form too."""
    return _counts(usage.completion_details, "output_tokens_")


def _counts(details: Mapping[str, int], prefix: str = "") -> dict[str, object]:
    return {f"{prefix}{name}_count": count for name, count in details.items()}


def _time_per_token(latency_ms: float, completion_tokens: int) -> float:
    return int(latency_ms) / completion_tokens if completion_tokens else 0.0


def _payload(outcome: Outcome) -> dict[str, object]:
    return _without_none(request=outcome.request_payload, response=outcome.response_payload)


def _tried(target: Tried) -> dict[str, object]:
    return _without_none(
        ip=target.ip,
        port=target.port,
        host=_clip(target.host),
        upstream_scheme=target.scheme,
        upstream_uri=_clip(target.path),
        provider=target.provider,
        model=_clip(target.model),
        route_type=target.route_type,
    )


def _clip(text: str | None) -> str | None:
    return None if text is None else clipped(text)


def _without_none(**members: object) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}
