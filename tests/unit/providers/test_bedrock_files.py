"""Files for Bedrock: the flow driven by hand against a strict stand-in of S3."""

from __future__ import annotations

import orjson
import pytest

from kong_ai_proxy.formats import openai
from kong_ai_proxy.formats.bedrock import s3
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.providers.bedrock import files as bedrock_files
from kong_ai_proxy.providers.bedrock.files import FILES, PART
from kong_ai_proxy.providers.files import file_id
from kong_ai_proxy.providers.flow import Passed, Reply
from tests.flows import Driven, reply, run, wanted
from tests.providers.s3_api import Stored
from tests.unit.providers.bedrock_world import (
    ASSISTANTS,
    CREATE,
    INPUT_OF_MODEL,
    MODEL,
    World,
    failure,
    options,
)
from tests.unit.providers.test_files import BATCH, INPUT, TYPE, form, line

# ---- the place


def test_a_place_that_is_not_set_is_to_be_set() -> None:
    asked = wanted(openai.FILES, method="GET", options={"bedrock": {"aws_region": "us-east-1"}})
    status, text = failure(lambda: run(FILES, asked))
    assert (status, text.endswith("the place for files and batches, set it")) == (500, True)


# ---- uploads


def test_a_small_file_is_put_at_once() -> None:
    world = World()
    made = world.upload(ASSISTANTS, ("file", b"hello", "a b!ü.txt"))
    assert world.upstream.operations == ["PutObject"]
    assert world.upstream.failures == []
    (key,) = world.upstream.objects
    assert key.startswith("llm/batches/")
    assert key.endswith("/assistants/a!20b!21!c3!bc.txt")
    assert world.upstream.objects[key].content == b"hello"
    assert made.value == {
        "id": file_id(key.removeprefix("llm/batches/")),
        "object": "file",
        "bytes": 5,
        "created_at": 1_760_000_001,
        "expires_at": None,
        "filename": "a b!ü.txt",
        "purpose": "assistants",
        "status": "processed",
        "status_details": None,
    }


@pytest.mark.parametrize("more", [1, PART, PART + 1])
def test_a_larger_file_goes_up_in_parts(more: int) -> None:
    world = World()
    content = b"x" * PART + b"y" * more
    world.upload(ASSISTANTS, ("file", content, "a.bin"))
    parts = 2 if more <= PART else 3
    assert world.upstream.operations == [
        "CreateMultipartUpload",
        *["UploadPart"] * parts,
        "CompleteMultipartUpload",
    ]
    (stored,) = world.upstream.objects.values()
    assert stored.content == content
    assert (world.upstream.uploads, world.upstream.failures) == ({}, [])


def test_a_file_of_exactly_one_part_is_put_at_once() -> None:
    world = World()
    world.upload(ASSISTANTS, ("file", b"x" * PART, "a.bin"))
    assert world.upstream.operations == ["PutObject"]


def test_a_large_file_whose_purpose_comes_last_is_moved() -> None:
    world = World()
    made = world.upload(("file", b"x\n" + b"x" * PART, "a.bin"), ("purpose", b"vision"))
    assert made.value["purpose"] == "vision"
    assert world.upstream.operations[-2:] == ["CopyObject", "DeleteObject"]
    (key,) = world.upstream.objects
    assert "/vision/" in key
    assert world.files("GET", made.value["id"]).value == made.value


@pytest.mark.parametrize("tail", [b"", b"\r\n--kZ3fYv9\r\nContent-Disposition: form-data\r\n\r\n"])
def test_what_was_sent_of_an_upload_that_fails_is_removed(tail: bytes) -> None:
    world = World()
    body = form(ASSISTANTS, ("file", b"x" * (PART * 2), "a.bin"), end=False)[:-2] + tail
    middle = PART + PART // 2
    with pytest.raises(FormatError):
        world.files("POST", body=[body[:middle], body[middle:]])
    assert world.upstream.operations[-1] == "AbortMultipartUpload"
    assert (world.upstream.uploads, world.upstream.objects) == ({}, {})


def test_an_error_that_comes_with_status_200_is_one() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html: white space
    comes as long as S3 is at work."""
    world = World()
    world.upstream.late = "InternalError"
    found = failure(lambda: world.upload(ASSISTANTS, ("file", b"x" * (PART + 1), "a.bin")))
    assert found == (500, "S3: We encountered an internal error.")
    assert world.upstream.uploads == {}


@pytest.mark.parametrize(
    "answer", [b"", b"<html></html>", b"<CompleteMultipartUploadResult>", b"OK"]
)
def test_an_upload_of_which_s3_does_not_say_that_it_is_done_is_an_error(answer: bytes) -> None:
    began = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    part = reply(b"", etag='"e"')
    driven = Driven()
    asked = wanted(openai.FILES, content_type=TYPE, options=options())
    body = form(ASSISTANTS, ("file", b"x" * (PART + 1), "a.bin"))
    replies = [reply(began), part, part, reply(answer), reply(b"", 204)]
    found = failure(lambda: run(FILES, asked, replies, body=[body], driven=driven))
    assert found[0] == 502
    assert "expected CompleteMultipartUploadResult" in found[1]
    assert driven.sends[-1].method == "DELETE"


def test_a_batch_becomes_what_bedrock_reads() -> None:
    world = World()
    made = world.upload(("file", INPUT_OF_MODEL, "in put.json"), BATCH).value
    (key,) = world.upstream.objects
    assert key.endswith("/batch/in!20put.json!.jsonl")
    assert (made["filename"], made["purpose"]) == ("in put.json", "batch")
    stored = world.upstream.objects[key]
    assert stored.metadata == {"model": MODEL}
    assert made["bytes"] == len(stored.content)
    first, second = map(orjson.loads, stored.content.splitlines())
    assert first["recordId"] == "requestZ2d1"
    assert first["modelInput"] == {
        "system": [{"text": "You are a helpful assistant."}],
        "messages": [{"role": "user", "content": [{"text": "Hello world!"}]}],
        "inferenceConfig": {"maxTokens": 1000},
    }
    assert second["recordId"] == "requestZ2d2"


def test_a_batch_of_another_model_than_the_configured_is_refused() -> None:
    with pytest.raises(FormatError, match=f"line 1: cannot use own model - must be: {MODEL}"):
        World().upload(BATCH, ("file", INPUT, "in.jsonl"))


def test_a_line_that_bedrock_cannot_take_is_refused() -> None:
    unknown = [{"type": "hologram"}]
    bad = line(
        custom_id="b", body={"model": MODEL, "messages": [{"role": "user", "content": unknown}]}
    )
    with pytest.raises(FormatError, match=r"line 3: messages\[0\]"):
        World().upload(BATCH, ("file", INPUT_OF_MODEL + bad, "in.jsonl"))


def nested(depth: int) -> bytes:
    """A line with a tool whose parameters are nested."""
    deep = b'{"a":' * depth + b"{}" + b"}" * depth
    tools = [{"type": "function", "function": {"name": "f", "parameters": "DEEP"}}]
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "tools": tools}
    return line(body=asked).replace(b'"DEEP"', deep)


def test_a_line_may_be_nested() -> None:
    assert World().upload(BATCH, ("file", nested(200), "in.jsonl")).value["id"]


@pytest.mark.parametrize("depth", [300, 900, 1100])
def test_a_line_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    with pytest.raises(FormatError, match="line 1: expected"):
        World().upload(BATCH, ("file", nested(depth), "in.jsonl"))


def test_an_expiry_is_told_to_have_been_dropped() -> None:
    made = World().upload(
        ASSISTANTS,
        ("file", b"x", "a"),
        ("expires_after[anchor]", b"created_at"),
        ("expires_after[seconds]", b"3600"),
    )
    assert made.result is not None
    assert getattr(made.result, "dropped", None) == ("expires_after",)


@pytest.mark.parametrize(
    "told",
    [None, "my-bucket//x", "s3://", "s3://B/x", "https://x/y", "s3://b/../x", "s3://bb/a b"],
)
def test_a_missing_bucket_is_the_operators_fault(told: str | None) -> None:
    world = World(batch_bucket_prefix=told)
    for call in (
        lambda: world.files("GET"),
        lambda: world.upload(ASSISTANTS, ("file", b"x", "a")),
        lambda: world.batches("GET"),
    ):
        status, text = failure(call)
        assert status == 500
        assert "model.options.bedrock.batch_bucket_prefix: expected s3://BUCKET/PREFIX" in text


@pytest.mark.parametrize(
    ("prefix", "url", "path"),
    [
        ("s3://acme/x/", "https://acme.s3.eu-west-1.amazonaws.com:443", "/x/"),
        ("acme", "https://acme.s3.eu-west-1.amazonaws.com:443", "/"),
        ("s3://acme.com/x", "https://s3.eu-west-1.amazonaws.com:443", "/acme.com/x/"),
    ],
)
def test_a_bucket_lives_in_the_configured_region(prefix: str, url: str, path: str) -> None:
    own = {"bedrock": {"batch_bucket_prefix": prefix, "aws_region": "eu-west-1"}}
    name = "0" * 32 + "/batch/a.jsonl"
    asked = wanted(
        openai.FILES, options=own, method="GET", rest=(file_id(name), "content"), collection="files"
    )
    passed = run(FILES, asked).result
    assert isinstance(passed, Passed)
    send = passed.send
    assert (send.base_url, send.path, send.service) == (url, path + name, "s3")


# ---- what is there


def test_files_are_found_listed_and_deleted() -> None:
    world = World()
    first = world.upload(ASSISTANTS, ("file", b"1", "one.txt")).value
    second = world.upload(BATCH, ("file", INPUT_OF_MODEL, "two.jsonl")).value
    world.upstream.objects["llm/batches/other"] = Stored(b"not ours")
    world.upstream.objects["llm/elsewhere"] = Stored(b"nor this")
    listed = world.files("GET").value
    assert listed["data"] == [second, first]  # the newest first
    assert listed["has_more"] is False
    assert world.files("GET", query={"purpose": "batch"}).value["data"] == [second]
    page = world.files("GET", query={"limit": "1"}).value
    assert (page["data"], page["has_more"]) == ([second], True)
    rest = world.files("GET", query={"limit": "1", "after": page["last_id"]}).value
    assert (rest["data"], rest["has_more"]) == ([first], False)
    assert world.files("GET", first["id"]).value == first
    assert world.content(first["id"]) == b"1"
    assert world.files("DELETE", first["id"]).value == {
        "id": first["id"],
        "object": "file",
        "deleted": True,
    }
    assert failure(lambda: world.files("GET", first["id"]))[0] == 404
    assert failure(lambda: world.files("DELETE", first["id"]))[0] == 404
    assert failure(lambda: world.content(first["id"])) == (
        404,
        f"No such File object: {first['id']}",
    )


def test_a_list_goes_on_over_pages() -> None:
    world = World()
    ids = [world.upload(ASSISTANTS, ("file", b"x", f"{n}")).value["id"] for n in range(5)]
    world.upstream.page = 2
    listed = world.files("GET", query={"limit": "4"}).value
    assert [each["id"] for each in listed["data"]] == ids[:0:-1]
    assert listed["has_more"] is True


@pytest.mark.parametrize("told", ["9" * 5000, "-1", "1e9", "\u0665", ""])
def test_a_size_that_is_none_counts_as_nothing(told: str) -> None:
    answer = (
        f"<ListBucketResult><Contents><Key>k</Key><Size>{told}</Size></Contents></ListBucketResult>"
    )
    (found,) = s3.parse_listing(answer.encode()).objects
    assert found.size == 0
    world = World()
    file = world.upload(ASSISTANTS, ("file", b"x", "one.txt")).value
    asked = wanted(openai.FILES, method="GET", rest=(file["id"],), options=options())
    replies = [reply(b"", content_length=told)]
    assert run(FILES, asked, replies).value["bytes"] == 0


def test_a_bucket_of_other_things_is_not_gone_through_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bedrock_files, "_MAX_PAGES", 3)
    world = World()
    world.upstream.page = 1
    world.upstream.objects = {f"llm/batches/{n}": Stored(b"") for n in range(9)}
    listed = world.files("GET").value
    assert (listed["data"], listed["has_more"]) == ([], True)
    assert world.upstream.operations == ["ListObjectsV2"] * 3


@pytest.mark.parametrize(
    "name",
    [
        "other",
        "../../secret",
        "0" * 32 + "/batch/..",
        "0" * 32 + "/batch/a/b",
        "0" * 32 + "/batch/a\n",
        "0" * 32 + "/batch/a?x",
        "0" * 32 + "/unknown/a",
        "0" * 32 + "/batch_output/../a.out",
        "0" * 32 + "/batch_output/job000000001/../../a.out",
        "0" * 32 + "/batch_output/JOB000000001/a.out",
        "/" + "0" * 32 + "/batch/a",
    ],
)
def test_an_id_leads_nowhere_but_to_what_was_made_here(name: str) -> None:
    world = World()
    told = file_id(name)
    for call in (
        lambda: world.files("GET", told),
        lambda: world.files("DELETE", told),
        lambda: world.files("GET", told, "content"),
        lambda: world.files("GET", query={"after": told}),
        lambda: world.batches("POST", body={**CREATE, "input_file_id": told}),
    ):
        assert failure(call)[0] == 404
    assert world.upstream.operations == []


@pytest.mark.parametrize(
    ("method", "rest"),
    [("PATCH", ()), ("PUT", ("a",)), ("POST", ("a",)), ("GET", ("a", "b")), ("DELETE", ())],
)
def test_other_operations_are_not_there(method: str, rest: tuple[str, ...]) -> None:
    assert failure(lambda: World().files(method, *rest))[0] == 404
    if method != "POST":
        assert failure(lambda: World().batches(method, *rest))[0] == 404


@pytest.mark.parametrize(
    ("method", "rest"), [("POST", ()), ("GET", ()), ("GET", ("x",)), ("DELETE", ("x",))]
)
def test_an_api_key_of_bedrocks_opens_no_bucket(method: str, rest: tuple[str, ...]) -> None:
    aws = {"bedrock": options()["bedrock"]}
    asked = wanted(openai.FILES, method=method, rest=rest, options=aws, signs=False)
    driven = Driven()
    status, text = failure(lambda: run(FILES, asked, driven=driven))
    assert (status, driven.sends) == (500, [])
    assert "opens no bucket in S3" in text
    assert "set auth.aws_access_key_id" in text
    behind = asked._replace(options=wanted(options=options()).options)  # whatever that is
    run(FILES, behind._replace(method="GET", rest=()), [reply(b"<ListBucketResult/>")])


@pytest.mark.parametrize(("order", "dropped"), [("asc", ("order",)), ("desc", ())])
def test_an_order_that_cannot_be_had_is_named(order: str, dropped: tuple[str, ...]) -> None:
    for listed in (World().files, World().batches):
        driven = listed("GET", query={"order": order})
        assert getattr(driven.result, "dropped", None) == dropped
    with pytest.raises(FormatError, match="order: expected asc or desc"):
        World().files("GET", query={"order": "newest"})


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (
            # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
            reply(
                b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code>'
                b"<Message>Access Denied</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>",
                403,
            ),
            403,
            "S3: Access Denied",
        ),
        (
            reply(
                b"<Error><Code>PermanentRedirect</Code><Message>The bucket you are attempting to "
                b"access must be addressed using the specified endpoint.</Message></Error>",
                301,
            ),
            502,
            "S3: The bucket you are attempting to access must be addressed using the specified "
            "endpoint. The bucket is in another region than model.options.bedrock.aws_region.",
        ),
        (reply(b"", 307), 502, "the provider answered with status 307"),
        (reply(b"<html>", 503), 503, "the provider answered with status 503"),
        (reply(b"", 200), 502, "the provider's answer is not usable: expected ListBucketResult"),
        (reply(b"<a>", 200), 502, "the provider's answer is not usable: expected ListBucketResult"),
        (
            reply(b'<!DOCTYPE a [<!ENTITY b "c">]><ListBucketResult/>', 200),
            502,
            "the provider's answer is not usable: expected ListBucketResult",
        ),
    ],
)
def test_s3s_errors_are_told(answer: Reply, status: int, text: str) -> None:
    asked = wanted(openai.FILES, options=options(), method="GET", collection="files")
    found = failure(lambda: run(FILES, asked, [answer]))
    assert (found[0], found[1][: len(text)]) == (status, text)


@pytest.mark.parametrize("at", range(4))
def test_each_call_of_an_upload_may_fail(at: int) -> None:
    begun = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    good = [reply(begun), reply(b"", etag='"1"'), reply(b"", etag='"2"'), reply(b"<a/>")]
    bad = reply(b"<Error><Code>SlowDown</Code><Message>Slow down</Message></Error>", 503)
    replies = [*good[:at], bad, *([reply(b"", 204)] if at else [])]
    asked = wanted(openai.FILES, options=options(), content_type=TYPE, collection="files")
    driven = Driven()
    body = [form(ASSISTANTS, ("file", b"x" * (PART + 1), "a.bin"))]
    found = failure(lambda: run(FILES, asked, replies, body=body, driven=driven))
    assert found == (503, "S3: Slow down")
    assert (driven.sends[-1].method == "DELETE") is (at > 0)


@pytest.mark.parametrize("answer", [b"", b"<a/>", b"<InitiateMultipartUploadResult/>"])
def test_an_upload_that_is_not_begun_is_an_error(answer: bytes) -> None:
    asked = wanted(openai.FILES, options=options(), content_type=TYPE, collection="files")
    body = [form(ASSISTANTS, ("file", b"x" * (PART + 1), "a.bin"))]
    assert failure(lambda: run(FILES, asked, [reply(answer)], body=body))[0] == 502
