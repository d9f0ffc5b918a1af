"""What batches of the Gemini API and of Vertex AI have in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NoReturn

from kong_ai_proxy.formats import batches
from kong_ai_proxy.formats.batches import Batch, NewBatch
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.gemini.batches import ENDED, Job
from kong_ai_proxy.formats.openai import batches as openai_batches
from kong_ai_proxy.formats.openai import files as openai_files
from kong_ai_proxy.formats.openai.files import ListQuery
from kong_ai_proxy.providers.files import leads_to, no_batch
from kong_ai_proxy.providers.flow import Wanted

_ID = re.compile(r"batch_([A-Za-z0-9](?:[A-Za-z0-9-]{0,98}[A-Za-z0-9])?)")
_HOURS = 24


def name_of(told: str) -> str:
    """Google's name for a batch, its last segment. Raises ProviderFailed (404)."""
    found = _ID.fullmatch(told)
    if found is None:
        raise no_batch(told)
    return found[1]


leads = leads_to(name_of)
"""Whether an id has the form of a batch of Google's."""


def batch(job: Job, endpoint: str, input_id: str, output_id: str | None) -> Batch:
    """The batch that a job is."""
    return Batch(
        id=f"batch_{job.name}",
        endpoint=endpoint,
        input_file_id=input_id,
        status=job.status,
        created_at=job.created_at,
        model=job.model,
        output_file_id=output_id,
        in_progress_at=job.started_at,
        ended_at=job.ended_at,
        counts=job.counts,
        faults=job.faults,
    )


def cancelling(found: Batch) -> Batch:
    """The batch after it has been asked to stop: Google goes on with it for a while."""
    return found if found.status in ENDED else replace(found, status=batches.CANCELLING)


def deleted(told: str) -> dict[str, object]:
    """What a client gets for a batch that is no longer there."""
    return {"id": told, "object": "batch", "deleted": True}


def settings(
    asked: NewBatch, known: Collection[str]
) -> tuple[Mapping[str, object], tuple[str, ...]]:
    """The members of a job that a client may set itself, which `known` names, and the names of
    those that are left out. Whom a job runs as, what encrypts it, on which machines it runs and
    where it writes is the operator's business."""
    own = {name: each for name, each in asked.settings.items() if name in known}
    dropped = [name for name in asked.settings if name not in own and name != "model"]
    if asked.metadata:
        dropped.append("metadata")
    if asked.hours != _HOURS:
        dropped.append("completion_window")
    return own, tuple(dropped)


def no_model() -> NoReturn:
    """For a batch of which nobody has said the model. Raises FormatError."""
    raise FormatError(
        "model: expected it in the lines of the input file, in this request (extra_body) or in the "
        "gateway's configuration: Google's batches have one model"
    )


def list_query(wanted: Wanted) -> ListQuery:
    """What a request for a list of batches asks. Raises FormatError."""
    return openai_files.parse_list(
        wanted.query, most=openai_batches.MAX_LISTED, usual=openai_batches.USUALLY_LISTED
    )
