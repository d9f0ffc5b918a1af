"""A stand-in for the first Sora on Azure."""

from __future__ import annotations

import email
import email.policy
import re
from typing import Annotated, ClassVar, Final, Literal, Required

import orjson
from pydantic import Field
from typing_extensions import TypedDict, override

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
)
from tests.providers.video_jobs_api import MP4, Jobs, film


class _Frame(TypedDict, total=False):
    frame_index: Required[int]
    type: Required[Literal["image", "video"]]
    file_name: Required[str]
    crop_bounds: dict[str, float]


class _SoraJob(TypedDict, total=False):
    """https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference-preview-latest"""

    prompt: Required[str]
    model: Required[str]
    width: Required[Literal[480, 720, 854, 1080, 1280, 1920]]
    height: Required[Literal[480, 720, 854, 1080, 1280, 1920]]
    n_seconds: Annotated[int, Field(ge=1, le=20)]
    n_variants: Annotated[int, Field(ge=1, le=5)]
    inpaint_items: list[_Frame]


_SORA_JOB: Final = Validator(_SoraJob)
_NUMBERS: Final = ("width", "height", "n_seconds", "n_variants")


class SoraJobs(Upstream):
    """{resource}.openai.azure.com/openai/v1/video/generations"""

    name = "azure"
    _JOBS = "/openai/v1/video/generations/jobs"
    ROUTES: ClassVar[Routes] = (
        (("POST", re.compile(_JOBS + r"\Z")), "start"),
        (("GET", re.compile(_JOBS + r"/(?P<job>[^/]+)\Z")), "find"),
        (
            (
                "GET",
                re.compile(
                    r"/openai/v1/video/generations/(?P<made>[^/]+)/content/(?P<kind>video|thumbnail)\Z"
                ),
            ),
            "content",
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()

    @override
    def _answer(self, seen: Recorded, turn: Turn) -> Reply:
        self.authorize(seen)
        if seen.params.get("api-version") != "preview":
            raise RefusedError("API version not supported", 404)
        if (seen.method, seen.path) == ("GET", self._JOBS):
            return self.listed(seen)
        if seen.method == "DELETE" and seen.path.startswith(f"{self._JOBS}/"):
            return self.delete(seen)
        return super()._answer(seen, turn)

    @override
    def authorize(self, request: Recorded) -> None:
        if not request.headers.get("api-key"):
            raise RefusedError("Access denied due to missing subscription key", 401)

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        return json_reply({"error": {"code": str(status), "message": message}}, status)

    def start(self, request: Recorded, turn: Turn) -> Reply:
        """Create"""
        is_form = request.headers["Content-Type"].startswith("multipart/form-data")
        body = _form(request) if is_form else parsed(request.body)
        _SORA_JOB.check(body)
        name = f"task_01jwcet0eje35tc5jy54yjax5{len(self.jobs.kept)}"
        self.jobs.add(name, body)
        return json_reply(self._shown(name, "queued"))

    def find(self, request: Recorded, turn: Turn, job: str) -> Reply:
        """Get"""
        return json_reply(self._shown(job, self._status(job)))

    def _status(self, job: str) -> str:
        if not self.jobs.poll(job):
            return "running"
        return "failed" if self.jobs.refusal else "succeeded"

    def listed(self, request: Recorded) -> Reply:
        """List"""
        if "limit" not in request.params:
            raise RefusedError("limit: field required")
        names = list(reversed(self.jobs.kept))
        after = request.params.get("after")
        rest = names[names.index(after) + 1 :] if after else names
        data = [self._shown(name, "running") for name in rest[: int(request.params["limit"])]]
        has_more = len(rest) > len(data)
        return json_reply({"object": "list", "data": data, "has_more": has_more})

    def delete(self, request: Recorded) -> Reply:
        """Delete"""
        name = request.path.rpartition("/")[2]
        if self.jobs.kept.pop(name, None) is None:
            raise RefusedError("Job not found", 404)
        return Reply(status=204)

    def content(self, request: Recorded, turn: Turn, made: str, kind: str) -> Reply:
        """Retrieve video content, or thumbnail"""
        if made.replace("gen_", "task_") not in self.jobs.kept:
            raise RefusedError("Generation not found", 404)
        return film(request, MP4 if kind == "video" else "image/jpg")

    def _shown(self, name: str, status: str) -> Json:
        job = self.jobs.kept[name]
        generations = []
        if status == "succeeded":
            own = {key: job[key] for key in ("prompt", "width", "height", "n_seconds")}
            made = name.replace("task_", "gen_")
            generations = [
                {
                    "object": "video.generation",
                    "id": made,
                    "job_id": name,
                    "created_at": 1748469890,
                    **own,
                }
            ]
        over = status in ("succeeded", "failed")
        shown = {key: value for key, value in job.items() if key not in ("files", "inpaint_items")}
        return {
            "object": "video.generation.job",
            "id": name,
            "status": status,
            "created_at": 1748469875,
            "finished_at": 1748469895 if over else None,
            "expires_at": 1748556295 if over else None,
            "generations": generations,
            **shown,
            "failure_reason": self.jobs.refusal if status == "failed" else None,
        }


def _form(request: Recorded) -> Json:
    """A form's fields as JSON has them. Raises RefusedError where the file is not one of them."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.body, policy=email.policy.HTTP)
    fields: Json = {}
    files = []
    for part in message.iter_parts():  # type: ignore[attr-defined, unused-ignore]
        name = str(part.get_param("name", header="content-disposition"))
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename():
            if name != "files" or not content:
                raise RefusedError("files: expected a file")
            files.append(part.get_filename())
        else:
            is_json = name in _NUMBERS or name == "inpaint_items"
            fields[name] = orjson.loads(content) if is_json else content.decode()
    if files != [item["file_name"] for item in fields.get("inpaint_items", [])]:
        raise RefusedError("inpaint_items: expected the names of the files")
    return fields
