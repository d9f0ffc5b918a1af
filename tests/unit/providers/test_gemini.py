"""Where calls of Google's models go: the Gemini API and Vertex AI."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy.config import ModelOptions
from kong_ai_proxy.formats import anthropic, gemini, openai
from kong_ai_proxy.formats.errors import FormatError
from kong_ai_proxy.formats.json_object import REMOVED
from kong_ai_proxy.formats.openai import chat as openai_chat
from kong_ai_proxy.providers.base import Call, Endpoint, Native, Provider
from kong_ai_proxy.providers.gemini import GEMINI, VERTEX

WHERE = {
    "api_endpoint": "us-central1-aiplatform.googleapis.com",
    "project_id": "my-project",
    "location_id": "us-central1",
}
PARENT = "/v1/projects/my-project/locations/us-central1"


def options(**more: Any) -> ModelOptions:
    return ModelOptions.model_validate({"gemini": {**WHERE, **more}})


def public(model: str, route_type: str = openai.CHAT, **more: Any) -> Endpoint:
    assert GEMINI.endpoint
    return GEMINI.endpoint(Call(route_type, model, ModelOptions(), **more))


def vertex(model: str, route_type: str = openai.CHAT, **more: Any) -> Endpoint:
    assert VERTEX.endpoint
    endpoint_id = more.pop("endpoint_id", None)
    found = options(endpoint_id=endpoint_id) if endpoint_id else options()
    return VERTEX.endpoint(Call(route_type, model, found, **more))


def native(
    provider: Provider, operation: str, path: str = "", model: str = "", real: str = ""
) -> Endpoint | None:
    assert provider.native
    call = Call(openai.CHAT, real or model, options())
    return provider.native(Native("gemini", operation, model, path), call)


def placed(found: Endpoint | None) -> Endpoint:
    """Where it is; what happens to bodies, test_named_models.py knows."""
    assert found is not None
    return found._replace(change=None)


def test_the_options_say_which_of_the_two_it_is() -> None:
    assert GEMINI.find(options()) is VERTEX
    own = GEMINI.find(ModelOptions())
    assert own.base(ModelOptions()) == "https://generativelanguage.googleapis.com"
    assert VERTEX.base(options()) == "https://us-central1-aiplatform.googleapis.com"


def test_completions_are_known_to_vertex_only() -> None:
    assert GEMINI.endpoints == {openai.CHAT, openai.EMBEDDINGS}
    assert VERTEX.endpoints == {openai.CHAT, openai.COMPLETIONS, openai.EMBEDDINGS}


class TestGeminiApi:
    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("gemini-2.5-flash", "models/gemini-2.5-flash"),
            ("models/gemini-2.5-flash", "models/gemini-2.5-flash"),
            ("tunedModels/mine", "tunedModels/mine"),
            ("a/b:c d?", "models/a%2Fb%3Ac%20d%3F"),
        ],
    )
    def test_a_model_is_one_segment(self, model: str, path: str) -> None:
        assert public(model) == Endpoint(f"/v1beta/{path}:generateContent", gemini.GENERATE)

    @pytest.mark.parametrize(
        "model", ["", "..", "models/..", "../../v1/files", "models/", "\ud800", "x" * 600]
    )
    def test_what_is_no_model_is_refused(self, model: str) -> None:
        for provider in (public, vertex):
            with pytest.raises(FormatError, match="model: expected a name"):
                provider(model)

    def test_streams_are_asked_for_as_events(self) -> None:
        path = "/v1beta/models/m:streamGenerateContent"
        assert public("m", stream=True) == Endpoint(path, gemini.GENERATE, "alt=sse")

    def test_a_client_of_its_own_format_says_itself_how_it_wants_a_stream(self) -> None:
        assert public("m", stream=True, client="gemini").query == ""

    def test_embeddings(self) -> None:
        found = public("text-embedding-004", openai.EMBEDDINGS)
        path = "/v1beta/models/text-embedding-004:batchEmbedContents"
        assert found == Endpoint(path, gemini.EMBED)

    @pytest.mark.parametrize(
        ("operation", "codec"),
        [
            ("embedContent", gemini.EMBED_ONE),
            ("batchEmbedContents", gemini.EMBED),
            ("countTokens", None),
            ("batchGenerateContent", None),
        ],
    )
    def test_operations_of_a_model(self, operation: str, codec: Any) -> None:
        found = native(GEMINI, operation, f"/v1beta/models/alias:{operation}", "alias", "real")
        assert placed(found) == Endpoint(f"/v1beta/models/real:{operation}", codec)

    @pytest.mark.parametrize(
        ("path", "theirs"),
        [
            ("/v1beta/files", "/v1beta/files"),
            ("/files/abc-1", "/v1beta/files/abc-1"),
            ("/v1beta/files/abc:download", "/download/v1beta/files/abc:download"),
            ("/upload/v1beta/files", "/upload/v1beta/files"),
            ("/v1beta/batches/1:cancel", "/v1beta/batches/1:cancel"),
            ("/v1beta/models/veo/operations/7", "/v1beta/models/veo/operations/7"),
        ],
    )
    def test_files_batches_and_operations(self, path: str, theirs: str) -> None:
        assert native(GEMINI, "", path) == Endpoint(theirs)

    @pytest.mark.parametrize(
        "path",
        [
            "/v1beta/tunedModels",
            "/v1beta/files/a/b",
            "/v1beta/files/%2e%2E",
            "/v1beta/files/..",
            "",
        ],
    )
    def test_anything_else_is_unknown(self, path: str) -> None:
        assert native(GEMINI, "", path) is None


class TestVertex:
    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("gemini-2.5-flash", "publishers/google/models/gemini-2.5-flash"),
            ("google/gemini-2.5-flash", "publishers/google/models/gemini-2.5-flash"),
            ("publishers/google/models/x@1", "publishers/google/models/x@1"),
            ("a/b", "publishers/google/models/a%2Fb"),
            ("endpoints/123", "endpoints/123"),
            ("projects/p/locations/l/endpoints/123", "endpoints/123"),
        ],
    )
    def test_models_of_googles(self, model: str, path: str) -> None:
        assert vertex(model) == Endpoint(f"{PARENT}/{path}:generateContent", gemini.GENERATE)
        streamed = vertex(model, openai.COMPLETIONS, stream=True)
        assert streamed.path == f"{PARENT}/{path}:streamGenerateContent"
        assert streamed.query == "alt=sse"

    def test_a_project_cannot_leave_its_place(self) -> None:
        assert VERTEX.endpoint
        where = ModelOptions.model_validate({"gemini": {**WHERE, "project_id": "a/p?x"}})
        path = VERTEX.endpoint(Call(openai.CHAT, "m", where)).path
        assert path.startswith("/v1/projects/a%2Fp%3Fx/locations/us-central1/")

    @pytest.mark.parametrize(
        ("model", "operation", "codec"),
        [
            ("text-embedding-005", "predict", gemini.VERTEX_EMBEDDINGS),
            ("gemini-embedding-001", "predict", gemini.VERTEX_EMBEDDINGS),
            ("gemini-embedding-2-preview", "batchEmbedContents", gemini.VERTEX_EMBED),
        ],
    )
    def test_embeddings(self, model: str, operation: str, codec: Any) -> None:
        path = f"{PARENT}/publishers/google/models/{model}:{operation}"
        assert vertex(model, openai.EMBEDDINGS) == Endpoint(path, codec)

    @pytest.mark.parametrize(
        "model", ["claude-sonnet-4-5@20250929", "publishers/anthropic/models/claude-opus-4"]
    )
    def test_claude(self, model: str) -> None:
        name = model.rpartition("/")[2]
        for stream, operation in ((False, "rawPredict"), (True, "streamRawPredict")):
            found = vertex(model, stream=stream)
            assert found.path == f"{PARENT}/publishers/anthropic/models/{name}:{operation}"
            assert found.codec is anthropic.MESSAGES
            assert found.query == ""
            assert found.change
            changes = found.change({"model": model}, Call(openai.CHAT, model, options()))
            assert changes == {"model": REMOVED, "anthropic_version": "vertex-2023-10-16"}

    def test_mistral(self) -> None:
        model = "mistral-large@2411"
        found = vertex(model, stream=True)
        assert found.path == f"{PARENT}/publishers/mistralai/models/{model}:streamRawPredict"
        assert found.codec is openai_chat.CHAT
        assert found.change
        body = {"model": model, "seed": 1, "stream_options": {"include_usage": True}}
        assert found.change(body, Call(openai.CHAT, model, options())) == {
            "model": "mistral-large",
            "seed": REMOVED,
            "random_seed": 1,
            "stream_options": REMOVED,
        }
        assert "logit_bias" in VERTEX.refused_for(Call(openai.CHAT, model, options()))
        assert not VERTEX.refused_for(Call(openai.CHAT, "gemini-2.5-flash", options()))

    @pytest.mark.parametrize(
        ("model", "publisher"), [("codestral-2501", "mistralai"), ("jamba-1.5-mini@001", "ai21")]
    )
    def test_others(self, model: str, publisher: str) -> None:
        found = vertex(model)
        assert found.path == f"{PARENT}/publishers/{publisher}/models/{model}:rawPredict"
        assert found.codec is openai_chat.CHAT

    def test_open_models_as_a_service(self) -> None:
        found = vertex("meta/llama-4-maverick-17b-128e-instruct-maas")
        assert found == Endpoint(f"{PARENT}/endpoints/openapi/chat/completions", openai_chat.CHAT)

    @pytest.mark.parametrize(
        ("model", "route_type", "path", "codec"),
        [
            ("llama", openai.CHAT, "/chat/completions", openai_chat.CHAT),
            ("gemini-2.5-flash", openai.CHAT, ":generateContent", gemini.GENERATE),
            ("textembedding", openai.EMBEDDINGS, ":predict", gemini.VERTEX_EMBEDDINGS),
        ],
    )
    def test_deployed_models(self, model: str, route_type: str, path: str, codec: Any) -> None:
        found = vertex(model, route_type, endpoint_id="42")
        assert found == Endpoint(f"{PARENT}/endpoints/42{path}", codec)

    def test_operations_go_to_the_operators_project(self) -> None:
        path = "/v1/projects/other/locations/eu/publishers/google/models/m:predictLongRunning"
        found = native(VERTEX, "predictLongRunning", path, "m")
        assert found == Endpoint(f"{PARENT}/publishers/google/models/m:predictLongRunning")

    @pytest.mark.parametrize(
        ("path", "theirs"),
        [
            (
                "/v1/projects/other/locations/eu/batchPredictionJobs",
                f"{PARENT}/batchPredictionJobs",
            ),
            ("/batchPredictionJobs/7:cancel", f"{PARENT}/batchPredictionJobs/7:cancel"),
        ],
    )
    def test_batch_jobs(self, path: str, theirs: str) -> None:
        assert placed(native(VERTEX, "", path)) == Endpoint(theirs)

    @pytest.mark.parametrize(
        ("location", "host"),
        [("global", "discoveryengine"), ("eu", "eu-discoveryengine"), ("", "discoveryengine")],
    )
    def test_rerank_is_another_service(self, location: str, host: str) -> None:
        parent = f"/v1/projects/p/locations/{location}" if location else ""
        found = native(VERTEX, "", f"{parent}/rankingConfigs/default_ranking_config:rank")
        assert placed(found) == Endpoint(
            f"/v1/projects/my-project/locations/{location or 'global'}"
            "/rankingConfigs/default_ranking_config:rank",
            base_url=f"https://{host}.googleapis.com",
        )

    @pytest.mark.parametrize(
        "path", ["/v1/projects/p/locations/l/models", "/batchPredictionJobs/%2e%2e", ""]
    )
    def test_anything_else_is_unknown(self, path: str) -> None:
        assert native(VERTEX, "", path) is None

    def test_tokens_of_claude_are_counted_by_a_model_of_that_name(self) -> None:
        assert VERTEX.native
        asked = Native("anthropic", "messages/count_tokens")
        found = VERTEX.native(asked, Call(openai.CHAT, "claude-opus-4", options()))
        assert found == Endpoint(f"{PARENT}/publishers/anthropic/models/count-tokens:rawPredict")
        assert VERTEX.native(asked, Call(openai.CHAT, "gemini-2.5-pro", options())) is None
