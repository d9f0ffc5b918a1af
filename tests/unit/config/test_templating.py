"""Placeholders in names and options."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kong_ai_proxy.config.templating import TemplateError, compile_template
from tests.unit.config.samples import problems, target


def expand(text: str, **sources: dict[str, str]) -> str:
    template = compile_template(text)
    assert template is not None
    return template.expand(
        sources.get("headers", {}), sources.get("captures", {}), sources.get("query", {})
    )


def test_each_source_gives_its_value() -> None:
    text = "$(headers.x-model)/$(uri_captures.region)/$(query_params.v)"
    values = {
        "headers": {"x-model": "gpt-4o"},
        "captures": {"region": "eu"},
        "query": {"v": "1"},
    }
    assert expand(text, **values) == "gpt-4o/eu/1"


def test_text_around_and_between_placeholders_stays() -> None:
    headers = {"a": "1", "b": "2"}
    assert expand("west-$(headers.a)--$(headers.b).$", headers=headers) == "west-1--2.$"


def test_a_value_is_not_expanded_again() -> None:
    assert expand("$(headers.a)", headers={"a": "$(headers.a)"}) == "$(headers.a)"


@pytest.mark.parametrize("name", ["X-Model", "x-model", "X-MODEL"])
def test_a_placeholder_may_write_a_header_name_in_any_case(name: str) -> None:
    assert expand(f"$(headers.{name})", headers={"x-model": "m"}) == "m"


def test_values_are_encoded_for_their_place_and_literal_text_is_not() -> None:
    template = compile_template("a/$(uri_captures.x)/")
    assert template is not None
    assert template.expand({}, {"x": "b/c"}, {}, str.upper) == "a/B/C/"


def test_a_template_says_which_sources_it_reads() -> None:
    template = compile_template("$(headers.a)$(headers.b)$(query_params.c)")
    assert template is not None
    assert template.sources == {"headers", "query_params"}


def test_the_names_of_captures_and_query_parameters_have_case() -> None:
    with pytest.raises(TemplateError):
        expand("$(uri_captures.Model)", captures={"model": "m"})


@pytest.mark.parametrize("source", ["headers", "uri_captures", "query_params"])
def test_a_missing_value_is_named(source: str) -> None:
    with pytest.raises(TemplateError, match=rf"^{source} key x was not provided$"):
        expand(f"a$({source}.x)")


def test_an_empty_value_is_no_value() -> None:
    with pytest.raises(TemplateError, match="headers key x was not provided"):
        expand("a$(headers.x)b", headers={"x": ""})


def test_an_error_does_not_show_a_url() -> None:
    with pytest.raises(TemplateError, match=r"^cannot parse expression for field 'upstream_url'$"):
        compile_template("https://$(foo)/x?code=secret")


WRONG = [
    ("$(foo)", "cannot parse expression for field '$(foo)'"),
    ("a-$(headers.x.y)", "cannot parse expression for field 'a-$(headers.x.y)'"),
    ("$()", "cannot parse expression for field '$()'"),
    ("$(headers.)", "cannot parse expression for field '$(headers.)'"),
    ("$(headers.a)$(.b)", "cannot parse expression for field '$(headers.a)$(.b)'"),
    ("$(cookies.x)", "source 'cookies' is not supported"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_placeholder_is_refused(text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=f"^{re.escape(message)}$"):
        compile_template(text)


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_placeholder_is_found_at_load(text: str, message: str) -> None:
    options = {"azure_instance": text, "bedrock": {"aws_region": text}}
    found = problems("ai-proxy", target(model={"provider": "openai", "options": options}))
    assert found == {
        "config.model.options.azure_instance": message,
        "config.model.options.bedrock.aws_region": message,
    }
    assert problems("ai-proxy", target(model={"provider": "openai", "name": text})) == {
        "config.model.name": message
    }


def test_auth_has_no_placeholders() -> None:
    auth = {"header_name": "x-api-key", "header_value": "$(foo)"}
    assert problems("ai-proxy", target(auth=auth)) == {}


@pytest.mark.parametrize("text", ["", "gpt-4o", "$", "$(open", "(headers.x)", "$ (headers.x)"])
def test_text_without_placeholder_is_no_template(text: str) -> None:
    assert compile_template(text) is None


@given(st.text(), st.text())
def test_literal_text_comes_through_unchanged(before: str, after: str) -> None:
    assume("$(" not in before + "$" and "$(" not in after and not before.endswith("$"))
    assert compile_template(before) is None
    assert expand(f"{before}$(headers.x){after}", headers={"x": "v"}) == f"{before}v{after}"
