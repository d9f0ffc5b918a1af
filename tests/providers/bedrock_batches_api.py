"""Amazon Bedrock's batches: model invocation jobs that read and write a bucket of S3, both at one
address.

Requests are checked with botocore's model of bedrock; the lines of a job's input as
https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-data.html says, those of chat
with the model of bedrock-runtime's Converse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote

import orjson
from typing_extensions import override

from tests.providers import aws, bedrock_api
from tests.providers.s3_api import S3, Stored
from tests.providers.strict import parsed
from tests.providers.upstream import Json, Recorded, RefusedError, Reply, Turn, json_reply

_MODEL: Final = aws.service("bedrock")
_CONVERSE: Final = aws.service("bedrock-runtime").operation_model("Converse")
_JOBS: Final = re.compile(r"/model-invocation-job(?:s|/(?P<id>[^/]+)(?P<stop>/stop)?)?\Z")
_ENDED: Final = {"Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"}
_ERRORS: Final = {
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    409: "ConflictException",
    429: "ThrottlingException",
}
_ARN: Final = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/"


@dataclass
class Job:
    """A job, and what was asked for."""

    id: str
    asked: Json
    submitted: datetime
    status: str = "Submitted"
    counts: Json = field(default_factory=dict)
    more: Json = field(default_factory=dict)

    @property
    def shown(self) -> Json:
        """What GetModelInvocationJob tells."""
        asked = {name: each for name, each in self.asked.items() if name != "tags"}
        return {
            **asked,
            "jobArn": f"{_ARN}{self.id}",
            "status": self.status,
            "submitTime": _iso(self.submitted),
            "lastModifiedTime": _iso(self.submitted + timedelta(minutes=1)),
            "jobExpirationTime": _iso(self.submitted + timedelta(days=1)),
            **({"endTime": _iso(self.submitted + timedelta(hours=1))} if self.over else {}),
            **self.counts,
            **self.more,
        }

    @property
    def over(self) -> bool:
        """Whether it will not change any more."""
        return self.status in _ENDED


class BedrockBatches(S3):
    """S3 with one bucket, and Bedrock's jobs.

    jobs: by id, the oldest first.
    job_page: jobs in one answer of a list, at most.
    """

    name = "bedrock-batches"

    def __init__(self, bucket: str = "my-bucket", **more: Any) -> None:
        super().__init__(bucket, **more)
        self.jobs: dict[str, Job] = {}
        self.job_page = 1000

    def finish(self, job_id: str, turn: Turn | None = None, status: str = "Completed") -> None:
        """Answer all requests of a job, in another order than they came in, as Bedrock may. Of the
        ones whose text is "fail" tell an error.

        https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html
        """
        job = self.jobs[job_id]
        lines = [orjson.loads(each) for each in self._input(job.asked).splitlines()]
        done = [_done(each, turn or Turn(), job.asked["modelId"]) for each in reversed(lines)]
        failed = sum("error" in each for each in done)
        job.status = status
        job.counts = {
            "totalRecordCount": len(done),
            "processedRecordCount": len(done),
            "successRecordCount": len(done) - failed,
            "errorRecordCount": failed,
        }
        source = job.asked["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        folder = self._key(job.asked["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"])
        place = f"{folder.rstrip('/')}/{job_id}/"
        output = b"".join(orjson.dumps(each) + b"\n" for each in done)
        self.objects[f"{place}{source.rpartition('/')[2]}.out"] = Stored(output)
        self.objects[f"{place}manifest.json.out"] = Stored(orjson.dumps(job.counts))

    # ---- as S3 wants it

    @override
    def authorize(self, request: Recorded) -> None:
        if not _JOBS.match(request.path):
            super().authorize(request)
        elif not re.fullmatch(r"Bearer \S+", request.headers.get("Authorization", "")):
            aws.check_signature(request, self.credentials, self.region, "bedrock")

    @override
    def error(self, request: Recorded, status: int, message: str) -> Reply:
        if not _JOBS.match(request.path):
            return super().error(request, status, message)
        reply = json_reply({"message": message}, status)
        kinds = {403: "AccessDeniedException", 404: "ResourceNotFoundException"}
        kinds |= {409: "ConflictException", 429: "ThrottlingException"}
        kind = kinds.get(
            status, "ValidationException" if status < 500 else "InternalServerException"
        )
        return Reply(reply.body, status=status, headers={"x-amzn-ErrorType": kind})

    @override
    def any(self, request: Recorded) -> Reply:
        found = _JOBS.match(request.path)
        if not found:
            return super().any(request)
        kind = (request.method, bool(found["id"]), bool(found["stop"]), found[0].endswith("jobs"))
        name = {
            ("POST", False, False, False): "CreateModelInvocationJob",
            ("GET", True, False, False): "GetModelInvocationJob",
            ("POST", True, True, False): "StopModelInvocationJob",
            ("GET", False, False, True): "ListModelInvocationJobs",
        }.get(kind)
        if name is None:
            raise RefusedError("unknown operation", 404)
        self.operations.append(name)
        operation = _MODEL.operation_model(name)
        path = {"jobIdentifier": unquote(found["id"])} if found["id"] else {}
        params = aws.request_params(operation, request, path)
        for member, value in request.params.items():
            params[member] = int(value) if member == "maxResults" else value
        return Reply(aws.answer(operation, getattr(self, f"_{name[0].lower()}{name[1:]}")(params)))

    # ---- operations

    def _createModelInvocationJob(self, params: Json) -> Json:  # noqa: N802
        token = params.get("clientRequestToken")
        for job in self.jobs.values():
            if token and job.asked.get("clientRequestToken") == token:
                return {"jobArn": f"{_ARN}{job.id}"}
            if job.asked["jobName"] == params["jobName"]:
                raise RefusedError("The job name is already in use", 409)
        self._check_lines(params)
        number = len(self.jobs) + 1
        made = f"job{number:09d}"
        submitted = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=number)
        self.jobs[made] = Job(made, params, submitted)
        return {"jobArn": f"{_ARN}{made}"}

    def _getModelInvocationJob(self, params: Json) -> Json:  # noqa: N802
        return self._job(params).shown

    def _stopModelInvocationJob(self, params: Json) -> Json:  # noqa: N802
        job = self._job(params)
        if job.over:
            raise RefusedError(f"The job is {job.status} and cannot be stopped", 409)
        job.status = "Stopping"
        return {}

    def _listModelInvocationJobs(self, params: Json) -> Json:  # noqa: N802
        before = params.get("submitTimeBefore")
        found = [
            job
            for job in sorted(self.jobs.values(), key=lambda job: job.submitted, reverse=True)
            if before is None or job.submitted < datetime.fromisoformat(before)
        ]
        start = int(params.get("nextToken", "0"))
        end = start + min(params.get("maxResults", 1000), self.job_page)
        shown = [job.shown for job in found[start:end]]
        more = {"nextToken": str(end)} if end < len(found) else {}
        return {"invocationJobSummaries": shown, **more}

    def _job(self, params: Json) -> Job:
        job = self.jobs.get(params["jobIdentifier"].rpartition("/")[2])
        if job is None:
            raise RefusedError("The job does not exist", 404)
        return job

    def _key(self, uri: str) -> str:
        start = f"s3://{self.bucket}/"
        if not uri.startswith(start):
            raise RefusedError(f"Could not validate access to {uri}")
        return uri.removeprefix(start)

    def _input(self, asked: Json) -> bytes:
        key = self._key(asked["inputDataConfig"]["s3InputDataConfig"]["s3Uri"])
        if key not in self.objects or not key.endswith(".jsonl"):
            raise RefusedError(f"no JSONL file at {key}")
        return self.objects[key].content

    def _check_lines(self, asked: Json) -> None:
        records = []
        for line in self._input(asked).splitlines():
            value = parsed(line)
            if set(value) - {"recordId", "modelInput"}:
                raise RefusedError(f"a line has {sorted(value)}")
            records.append(value["recordId"])
            if not re.fullmatch("[A-Za-z0-9]+", value["recordId"]):
                raise RefusedError(f"recordId {value['recordId']!r} is not alphanumeric")
            if asked.get("modelInvocationType") == "Converse":
                given = aws.decoded(_CONVERSE.input_shape, value["modelInput"])
                aws.check_shape(_CONVERSE.input_shape, {**given, "modelId": asked["modelId"]})
        if len(records) != len(set(records)) or not records:
            raise RefusedError("recordIds have to be there, each once")


def _done(line: Json, turn: Turn, model: str) -> Json:
    asked = line["modelInput"]
    if b'"fail"' in orjson.dumps(asked):
        return {**line, "error": {"errorCode": 400, "errorMessage": "Malformed input request"}}
    if "inputText" in asked:
        vector = [0.25, -0.5, 1.0]
        answer: Json = {"embedding": vector, "inputTextTokenCount": 3}
    else:
        answer = bedrock_api.converse_answer(turn)
    return {**line, "modelOutput": answer}


def _iso(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
