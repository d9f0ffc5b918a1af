"""`kong-ai-proxy validate`, run as the command."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest

from kong_ai_proxy.cli import main

CHAT = """\
- name: ai-proxy
  config:
    route_type: llm/v1/chat
    model: {provider: openai}
"""
SAFE = """\
  url: https://ai.invalid
  retries: 0
  read_timeout: 600000
  tls_verify: true
"""


@pytest.fixture(autouse=True)
def _files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def validate(capsys: pytest.CaptureFixture[str]) -> Validate:
    return Validate(capsys)


class Validate:
    """Runs the command on files written from text; `status` is its exit status."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.status = -1

    def __call__(self, *texts: str) -> list[str]:
        names = [f"{chr(ord('a') + index)}.yml" for index in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            Path(name).write_text('_format_version: "3.0"\n' + dedent(text), encoding="utf-8")
        return self.run(*names)

    def run(self, *arguments: str) -> list[str]:
        self.status = main(["validate", *arguments])
        return self._capsys.readouterr().out.splitlines()

    def errors(self, text: str) -> list[str]:
        """The errors of one file, without the summary."""
        return [line for line in self(text)[:-1] if ": warning: " not in line]


def service(plugin: str = CHAT, settings: str = SAFE) -> str:
    """A decK file with one Service, one Route and a plugin on the Route."""
    route = "  routes:\n  - name: chat\n    response_buffering: false\n    plugins:\n"
    return f"services:\n- name: ai\n{settings}{route}{indent(plugin, '    ')}"


def test_a_good_file_has_nothing_but_a_summary(validate: Validate) -> None:
    assert validate(service()) == ["1 file, 1 plugin: 0 errors, 0 warnings"]
    assert validate.status == 0


def test_a_mistake_is_named_with_file_line_and_field(validate: Validate) -> None:
    plugin = CHAT.replace("openai", "openai, options: {max_token: 3}")
    assert validate(service(plugin)) == [
        "a.yml:15: config.model.options.max_token: unknown field, did you mean 'max_tokens'?",
        "1 file, 1 plugin: 1 error, 0 warnings",
    ]
    assert validate.status == 1


def test_a_disabled_plugin_is_checked_but_not_its_service(validate: Validate) -> None:
    plugin = "- name: ai-proxy\n  enabled: false\n  config: {route_type: llm/v1/chat}\n"
    assert validate(service(plugin, "  url: https://api.openai.com\n")) == [
        "a.yml:11: config.model: required field missing",
        "1 file, 1 plugin: 1 error, 0 warnings",
    ]


QUERY = "auth: {param_name: key, param_value: k, param_location: query}"


@pytest.mark.parametrize("place", ["query", "body"])
def test_a_credential_may_stand_wherever_the_provider_wants_it(
    validate: Validate, place: str
) -> None:
    assert validate(service(f"{CHAT}    {QUERY.replace('query', place)}\n"))[:-1] == []


BAD = "- name: ai-proxy\n  config: {model: {provider: openai}}\n"
PLACES = {
    "top level": f"plugins:\n{BAD}",
    "service": f"services:\n- name: s\n{SAFE}  plugins:\n{indent(BAD, '  ')}",
    "route of a service": service(BAD),
    "route": f"routes:\n- name: r\n  service: {{name: s}}\n  plugins:\n{indent(BAD, '  ')}"
    f"services:\n- name: s\n{SAFE}",
    "consumer": f"consumers:\n- username: u\n  plugins:\n{indent(BAD, '  ')}",
    "consumer group": f"consumer_groups:\n- name: g\n  plugins:\n{indent(BAD, '  ')}",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_plugin_is_found_wherever_it_stands(validate: Validate, place: str) -> None:
    (error,) = validate.errors(PLACES[place])
    assert error.endswith(": config.route_type: required field missing")


def test_other_plugins_are_none_of_its_business(validate: Validate) -> None:
    plugin = "- name: rate-limiting\n  config: {nonsense: true}\n"
    (summary,) = validate(service(plugin, "  url: https://api.example.com\n"))
    assert summary == "1 file, 0 plugins: 0 errors, 0 warnings"


def test_ai_proxy_advanced_is_checked_too(validate: Validate) -> None:
    plugin = "- name: ai-proxy-advanced\n  config:\n    targets:\n    - weight: 0\n"
    assert validate.errors(service(plugin)) == [
        "a.yml:15: config.targets[0].model: required field missing",
        "a.yml:15: config.targets[0].route_type: required field missing",
        "a.yml:15: config.targets[0].weight: value should be between 1 and 65535",
    ]


CHAT_TARGET = "    targets:\n    - route_type: llm/v1/chat\n      model: {provider: openai}\n"


def test_what_is_refused_for_good_is_an_error_with_its_reason(validate: Validate) -> None:
    balancer = "algorithm: lowest-usage, tokens_count_strategy: llm-accuracy"
    plugin = f"- name: ai-proxy-advanced\n  config:\n    balancer: {{{balancer}}}\n{CHAT_TARGET}"
    (line,) = validate.errors(service(plugin))
    assert line.startswith("a.yml:14: config.balancer.tokens_count_strategy: llm-accuracy needs ")


def test_a_wrong_entry_of_metadata_is_named_in_its_line(validate: Validate) -> None:
    plugin = f"- name: ai-proxy-advanced\n  config:\n{CHAT_TARGET}      metadata: {{top_k: x}}\n"
    assert validate.errors(service(plugin)) == [
        "a.yml:17: config.targets[0].metadata.top_k: expected an integer"
    ]


def test_a_rule_that_cannot_hold_is_named_in_its_line(validate: Validate) -> None:
    acls = "acls: {deny: [{match: [{type: ip, values: [10.0.0.1,\n      office]}]}]}"
    plugin = f"- name: ai-proxy-advanced\n  config:\n    {acls}\n{CHAT_TARGET}"
    (line,) = validate.errors(service(plugin))
    assert line.startswith("a.yml:15: config.acls.deny[0].match[0].values[1]: expected an IP")


def test_a_setting_of_the_balancer_without_effect_is_a_warning(validate: Validate) -> None:
    plugin = f"- name: ai-proxy-advanced\n  config:\n    balancer: {{retries: 2}}\n{CHAT_TARGET}"
    assert any(
        line.startswith("a.yml:14: warning: config.balancer.retries: no effect with one target")
        for line in validate(service(plugin))
    )


HOSTS = [
    ("url: https://api.openai.com", "the host must be a name that never resolves"),
    ("host: localhost", "the host must be a name that never resolves"),
    ("host: 127.0.0.1", "Kong answers 500 when a plugin sets the target"),
    ("url: 'http://[::1]:80'", "Kong answers 500 when a plugin sets the target"),
    ("path: /x", "the host is missing"),
]


@pytest.mark.parametrize(("setting", "message"), HOSTS)
def test_a_service_that_would_fail_open_is_an_error(
    validate: Validate, setting: str, message: str
) -> None:
    settings = SAFE.replace("url: https://ai.invalid", setting)
    (error,) = validate.errors(service(settings=settings))
    assert error.split(": ")[1] == "service ai"
    assert message in error
    assert error.endswith("use url: http://ai.invalid")
    assert validate.status == 1


def test_an_upstream_of_that_name_makes_it_resolve(validate: Validate) -> None:
    (error,) = validate.errors(service() + "upstreams:\n- name: ai.invalid\n")
    assert "the Upstream ai.invalid makes this name resolve" in error


def test_a_service_that_would_retry_or_time_out_is_an_error(validate: Validate) -> None:
    settings = "  url: https://ai.invalid\n  tls_verify: true\n  read_timeout: 599999\n"
    assert [line.split(": ")[:3] for line in validate.errors(service(settings=settings))] == [
        ["a.yml:3", "service ai", "retries"],
        ["a.yml:6", "service ai", "read_timeout"],
    ]


def test_defaults_of_the_file_count(validate: Validate) -> None:
    defaults = (
        "_info: {defaults: {service: {retries: 0, read_timeout: 600000, tls_verify: true}}}\n"
    )
    assert validate(defaults + service(settings="  host: ai.invalid\n"))[:-1] == []


def test_unverified_tls_and_buffering_are_warnings(validate: Validate) -> None:
    text = service(settings=SAFE.replace("  tls_verify: true\n", ""))
    text = text.replace("response_buffering: false", "paths: [/x]")
    lines = validate(text)
    assert [line.split(": ")[1:4] for line in lines[:-1]] == [
        ["warning", "service ai", "tls_verify"],
        ["warning", "route chat", "response_buffering"],
    ]
    assert lines[-1] == "1 file, 1 plugin: 0 errors, 2 warnings"
    assert validate.status == 0


def test_uploads_should_not_be_buffered(validate: Validate) -> None:
    lines = validate(service(CHAT.replace("llm/v1/chat", "llm/v1/files")))
    assert any("warning: route chat: request_buffering" in line for line in lines)


@pytest.mark.parametrize(
    ("route_type", "model", "field"),
    [
        (
            "llm/v1/files",
            "{provider: bedrock, options: {bedrock: {aws_region: eu-west-1}}}",
            "model.options.bedrock.batch_bucket_prefix",
        ),
        (
            "llm/v1/files",
            "{provider: bedrock, options: {bedrock: {batch_bucket_prefix: 's3://B'}}}",
            "model.options.bedrock.batch_bucket_prefix",
        ),
        ("realtime/v1/realtime", "{provider: gemini}", "route_type"),
        (
            "video/v1/videos/generations",
            "{provider: bedrock, options: {bedrock: {aws_region: eu-west-1}}}",
            "model.options.bedrock.video_output_s3_uri",
        ),
        (
            "llm/v1/files",
            "{provider: gemini, options: {gemini: {api_endpoint: a.example, project_id: p, "
            "location_id: l}}}",
            "model.options.upstream_url",
        ),
    ],
)
def test_an_option_without_which_no_request_would_succeed_is_a_warning(
    validate: Validate, route_type: str, model: str, field: str
) -> None:
    text = service(CHAT.replace("llm/v1/chat", route_type)).replace("{provider: openai}", model)
    lines = validate(text)
    assert any(f"warning: config.{field}: " in line for line in lines), lines
    assert validate.status == 0


@pytest.mark.parametrize(
    ("name", "value"), [("paths", "['~/v1/files$']"), ("methods", "[POST, DELETE]")]
)
def test_a_route_that_matches_no_single_object_is_a_warning(
    validate: Validate, name: str, value: str
) -> None:
    text = service(CHAT.replace("llm/v1/chat", "llm/v1/files"))
    text = text.replace(
        "response_buffering: false", f"response_buffering: false\n    {name}: {value}"
    )
    lines = validate(text)
    assert any(f"warning: route chat: {name}: " in line for line in lines), lines


def test_a_global_plugin_concerns_every_service_with_a_route(validate: Validate) -> None:
    other = "- name: web\n  url: https://web.example\n  routes: [{name: web}]\n"
    unused = "- name: unused\n  url: https://unused.example\n"
    text = service(plugin="[]") + other + unused + "plugins:\n" + CHAT
    text = text.replace("    plugins:\n    []", "")
    services = {line.split(": ")[1] for line in validate.errors(text)}
    assert services == {"service web"}


def test_a_plugin_that_names_its_route_concerns_only_that(validate: Validate) -> None:
    other = "- name: web\n  url: https://web.example\n  routes: [{name: web}]\n"
    text = service("- name: cors\n") + other + "plugins:\n" + CHAT + "  route: {name: chat}\n"
    assert validate.errors(text) == []


def test_a_plugin_that_names_a_route_elsewhere_gets_a_warning(validate: Validate) -> None:
    lines = validate("plugins:\n" + CHAT + "  route: other\n")
    assert lines[0] == "a.yml:7: warning: route: not in this file, so it is not checked"


ADVANCED = """\
- name: ai-proxy-advanced
  config:
    targets:
    - route_type: llm/v1/chat
      model: {provider: openai}
"""
WITH_ROUTE = service("- name: cors\n")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (service(CHAT + ADVANCED), "16 12"),
        (service(ADVANCED + CHAT), "17 12"),
        (WITH_ROUTE + f"  plugins:\n{indent(CHAT + ADVANCED, '  ')}", "18 14"),
        (WITH_ROUTE + "plugins:\n" + CHAT + ADVANCED, "18 14"),
        (service(CHAT) + "plugins:\n" + ADVANCED + "  route: chat\n", "17 12"),
        ("consumers:\n- username: u\n  plugins:\n" + indent(CHAT + ADVANCED, "  "), "9 5"),
    ],
    ids=["route", "the other order", "service", "global", "by the route's name", "consumer"],
)
def test_both_plugins_at_one_place_are_an_error(validate: Validate, text: str, lines: str) -> None:
    line, other = lines.split()
    assert validate.errors(text) == [
        f"a.yml:{line}: name: ai-proxy and ai-proxy-advanced both apply to the same requests "
        f"(the other one is in line {other}): remove one"
    ]


@pytest.mark.parametrize(
    "text",
    [
        service(CHAT + ADVANCED + "  enabled: false\n"),
        service(CHAT + ADVANCED + "  consumer: u\n"),
        "plugins:\n" + CHAT + "  route: elsewhere\n" + ADVANCED + "  route: other\n",
    ],
    ids=["disabled", "for one consumer", "two other routes"],
)
def test_both_plugins_in_one_file_are_none(validate: Validate, text: str) -> None:
    assert validate.errors(text) == []


def test_a_route_without_a_service_is_an_error(validate: Validate) -> None:
    text = f"routes:\n- name: r\n  response_buffering: false\n  plugins:\n{indent(CHAT, '  ')}"
    (error,) = validate.errors(text)
    assert error.startswith("a.yml:3: route r: service: a Route without a Service answers 503")


def test_a_configuration_may_be_shared(validate: Validate) -> None:
    shared = "_plugin_configs:\n  ai:\n    route_type: llm/v1/chat\n    wrong: 1\n"
    plugin = "- name: ai-proxy\n  _config: ai\n  config: {model: {provider: openai}}\n"
    assert validate.errors(shared + service(plugin)) == ["a.yml:5: config.wrong: unknown field"]


def test_partials_cannot_be_used(validate: Validate) -> None:
    plugin = CHAT + "  partials: [{name: model}]\n"
    (error,) = validate.errors(service(plugin))
    assert error.startswith("a.yml:16: partials: cannot be used with a plugin server")


def test_a_variable_that_is_not_set_is_one_warning(validate: Validate) -> None:
    plugin = CHAT.replace("openai", '"${{ env "DECK_PROVIDER" }}"')
    plugin += '  tags: ["${{ env "DECK_PROVIDER" }}"]\n'
    lines = validate(service(plugin))
    assert lines == [
        "a.yml:15: warning: DECK_PROVIDER: "
        "this environment variable is not set, so what it fills in is not checked",
        "1 file, 1 plugin: 0 errors, 1 warning",
    ]
    assert validate.status == 0


def test_a_variable_that_is_set_is_checked(
    validate: Validate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECK_PROVIDER", "nobody")
    plugin = CHAT.replace("openai", '"${{ env "DECK_PROVIDER" }}"')
    (error,) = validate.errors(service(plugin))
    assert error.startswith("a.yml:15: config.model.provider: expected one of: anthropic, ")


def test_a_service_from_a_variable_is_not_guessed(validate: Validate) -> None:
    settings = SAFE.replace("https://ai.invalid", '"${{ env "DECK_URL" }}"')
    settings = settings.replace("retries: 0", 'retries: ${{ env "DECK_RETRIES" }}')
    assert validate.errors(service(settings=settings)) == []


def test_several_files_have_one_summary(validate: Validate) -> None:
    lines = validate(service(), service(BAD), "a: 1\na: 2\n")
    assert lines == [
        "b.yml:13: config.route_type: required field missing",
        "c.yml:3: file: a is there already, in line 2",
        "3 files, 2 plugins: 2 errors, 0 warnings",
    ]


def test_a_file_that_is_not_there_is_an_error(validate: Validate) -> None:
    assert validate.run("none.yml")[0] == "none.yml:1: file: No such file or directory"
    assert validate.status == 1


def test_wrong_usage_has_its_own_status(validate: Validate) -> None:
    with pytest.raises(SystemExit) as caught:
        validate.run()
    assert caught.value.code == 2


def test_help_explains_itself(validate: Validate, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        validate.run("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "usage: kong-ai-proxy validate" in text
    assert "exit status" in text


ODD = [
    "services: 5\n",
    "services: [5, {routes: 5}, {plugins: [5, {name: [ai-proxy]}]}]\n",
    "plugins: [{name: ai-proxy, config: text, _config: [1], service: [1], route: {}}]\n",
    "_info: 5\n_plugin_configs: [1]\n" + service(),
    "upstreams: [{}, 5]\nconsumers: {}\n" + service(settings="  url: 5\n  retries: x\n"),
]


@pytest.mark.parametrize("text", ODD)
def test_a_file_of_the_wrong_shape_is_no_crash(validate: Validate, text: str) -> None:
    assert "plugin" in validate(text)[-1]
