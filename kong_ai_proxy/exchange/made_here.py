"""Which of several targets can have made the file or the batch that a request names.

Ids that are made here have a form of their own for each provider; see providers.flow.Flow.made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

from kong_ai_proxy.config import Target
from kong_ai_proxy.exchange.case import Content
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest
from kong_ai_proxy.exchange.subpath import subpath
from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.json_object import JsonObject
from kong_ai_proxy.providers.flow import Flow
from kong_ai_proxy.providers.registry import PROVIDERS

_FILES = "files"


class _Named(NamedTuple):
    """A thing by its id."""

    collection: str
    id: str


def makers(
    targets: Sequence[Target], request: ClientRequest, content: Content, candidates: tuple[int, ...]
) -> tuple[int, ...]:
    """The candidates that can have made what the request names: those whose form its id has, and
    those whose ids have any form. All, where it names nothing or nobody can have made it.

    No id of another provider's has the form of a file that was made here: such a file is looked for
    nowhere else. Ids of batches are less telling.
    """
    if len(candidates) < 2:
        return candidates
    known: list[int] = []
    unknown: list[int] = []
    for index in candidates:
        target = targets[index]
        flow = _flow(target)
        named = _named(target, flow, request, content)
        if named is None or flow is None or flow.made is None:
            unknown.append(index)
        elif flow.made(named.collection, named.id, target.model.options):
            known.append(index)
    are_sure = bool(known) and _is_file(targets[known[0]], request, content)
    found = known if are_sure else sorted(known + unknown)
    return tuple(found) or candidates


def _keeps(target: Target) -> bool:
    return bool(openai.OPERATIONS[target.route_type].collections)


def _flow(target: Target) -> Flow | None:
    provider = PROVIDERS[target.model.provider].find(target.model.options)
    return provider.flows.get(target.route_type)


def _is_file(target: Target, request: ClientRequest, content: Content) -> bool:
    named = _named(target, _flow(target), request, content)
    return named is not None and named.collection == _FILES


def _named(
    target: Target, flow: Flow | None, request: ClientRequest, content: Content
) -> _Named | None:
    """What the request names, as this target reads its path; None where that is nothing."""
    own = openai.OPERATIONS[target.route_type].collections
    collections = (flow.collections if flow else ()) or own
    if not collections:
        return None
    try:
        below = subpath(request, collections)
    except Refused:  # by the target itself
        return None
    if below.rest:
        return _Named(below.collection, unquote(below.rest.split("/")[1]))
    body = content.value if isinstance(content, JsonObject) else {}
    told = body.get("input_file_id") if target.route_type == openai.BATCHES else None
    return _Named(_FILES, told) if isinstance(told, str) and told else None
