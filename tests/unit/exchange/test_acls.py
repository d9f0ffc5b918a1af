"""Who may use which target."""

from __future__ import annotations

from typing import Any

import pytest

from kong_ai_proxy import config
from kong_ai_proxy.config import AiProxyAdvanced
from kong_ai_proxy.exchange import acls
from kong_ai_proxy.exchange.errors import Refused
from kong_ai_proxy.exchange.messages import ClientRequest, Consumer
from kong_ai_proxy.exchange.plan import Body, Plan
from tests.unit.exchange.exchanges import ai_proxy, model, request

Json = dict[str, Any]

ID = "2f0ae8f5-8d9e-4d2b-a3c5-3f4f0c3f7b51"
BOB = Consumer(ID, "bob", (("g1", "gold"), ("g2", "silver")))


def match(kind: str, *values: str, key: str | None = None) -> Json:
    return {"type": kind, "values": list(values), "key": key}


def rule(*matches: Json) -> Json:
    return {"match": list(matches)}


def configured(
    deny: list[Json] | None = None, allow: list[Json] | None = None, *targets: Json
) -> AiProxyAdvanced:
    parsed = config.parse(
        "ai-proxy-advanced",
        {"targets": list(targets) or [ai_proxy()], "acls": {"deny": deny, "allow": allow}},
    )
    assert isinstance(parsed, AiProxyAdvanced)
    return parsed


def permitted(
    client: ClientRequest,
    deny: list[Json] | None = None,
    allow: list[Json] | None = None,
    target: Json | None = None,
    named: str | None = None,
) -> bool:
    parsed = configured(deny, allow, target or ai_proxy())
    return acls.of(parsed).permits(client, parsed.targets[0], named)


def holds(condition: Json, client: ClientRequest, **more: Any) -> bool:
    """Whether a condition holds, seen the same way by a denial and a permission."""
    denied = not permitted(client, deny=[rule(condition)], **more)
    assert permitted(client, allow=[rule(condition)], **more) is denied
    return denied


def of_bob(**fields: Any) -> ClientRequest:
    return request(consumer=BOB, **fields)


# Rules


def test_without_rules_everybody_is_permitted() -> None:
    assert permitted(request())
    assert not acls.of(configured()).restricts
    assert not acls.of(config.parse("ai-proxy", ai_proxy())).restricts


IS_BOB, IS_EVE = match("consumer", "bob"), match("consumer", "eve")
OPENAI, BEDROCK = match("provider", "openai"), match("provider", "bedrock")


@pytest.mark.parametrize(
    ("deny", "allow", "expected"),
    [
        ([rule(IS_BOB)], None, False),
        ([rule(IS_EVE)], None, True),
        (None, [rule(IS_BOB)], True),
        (None, [rule(IS_EVE)], False),
        (None, [rule(IS_EVE), rule(IS_BOB)], True),
        ([rule(IS_BOB)], [rule(IS_BOB)], False),
        ([rule(IS_EVE)], [rule(IS_BOB)], True),
        ([rule(IS_EVE)], [rule(IS_EVE)], False),
        ([rule(IS_BOB, BEDROCK)], None, True),
        ([rule(IS_BOB, OPENAI)], None, False),
        ([rule(IS_EVE, OPENAI)], None, True),
        (None, [rule(IS_BOB, IS_EVE)], False),
        (None, [rule(match("consumer", "eve", "bob"))], True),
    ],
)
def test_a_denial_wins_and_a_permission_is_needed_where_there_are_any(
    deny: list[Json] | None, allow: list[Json] | None, expected: bool
) -> None:
    assert permitted(of_bob(), deny, allow) is expected


def test_a_rule_about_targets_leaves_the_others() -> None:
    parsed = configured(
        [rule(IS_BOB, match("model", "expensive"))],
        None,
        ai_proxy(model=model("o1", "expensive")),
        ai_proxy(model=model("o1-mini", "cheap")),
    )
    permits = acls.of(parsed).of(of_bob())
    assert [permits(target, None) for target in parsed.targets] == [False, True]


# Conditions


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (match("consumer", "bob"), True),
        (match("consumer", ID), True),
        (match("consumer", ID.upper()), True),
        (match("consumer", "bob", key="username"), True),
        (match("consumer", "bob", key="id"), False),
        (match("consumer", ID, key="id"), True),
        (match("consumer", ID, key="username"), False),
        (match("consumer", "Bob"), False),
        (match("consumer_group", "silver"), True),
        (match("consumer_group", "g1"), True),
        (match("consumer_group", "silver", key="name"), True),
        (match("consumer_group", "silver", key="id"), False),
        (match("consumer_group", "g2", key="id"), True),
        (match("consumer_group", "bronze", "gold"), True),
        (match("consumer_group", "bronze"), False),
    ],
)
def test_a_consumer_goes_by_id_or_name(condition: Json, expected: bool) -> None:
    assert holds(condition, of_bob()) is expected


@pytest.mark.parametrize("condition", [match("consumer", "bob"), match("consumer_group", "gold")])
def test_what_a_client_says_of_itself_is_nothing(condition: Json) -> None:
    forged = {"x-consumer-username": "bob", "x-consumer-id": ID, "x-consumer-groups": "gold"}
    assert not holds(condition, request(headers=forged))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("blue",), True),
        (("red", "blue"), True),
        ((" blue ",), True),
        (("red, blue",), True),
        (("Blue",), False),
        (("bluebird",), False),
        ((), False),
    ],
)
def test_one_value_of_a_header_is_enough(values: tuple[str, ...], expected: bool) -> None:
    client = request()._replace(headers={"x-team": values} if values else {})
    assert holds(match("header", "green", "blue", key="X-Team"), client) is expected


def test_a_headers_whole_value_may_have_commas() -> None:
    condition = match("header", "blue, green", key="x-team")
    assert holds(condition, request(headers={"x-team": "blue, green"}))


@pytest.mark.parametrize(
    ("address", "value", "expected"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.9.9.9/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "::ffff:10.0.0.0/104", True),
        ("2001:db8::7", "2001:db8::/32", True),
        ("2001:0DB8:0:0::7", "2001:db8::7", True),
        ("2001:db9::7", "2001:db8::/32", False),
        ("10.1.2.3", "::/0", False),
        ("fe80::1%eth0", "fe80::/10", True),
    ],
)
def test_an_address_is_in_a_range(address: str, value: str, expected: bool) -> None:
    assert holds(match("ip", "192.0.2.1", value), request(address=address)) is expected


@pytest.mark.parametrize("address", ["", "unix:", "nonsense"])
def test_an_unknown_address_is_denied_and_not_permitted(address: str) -> None:
    client = request(address=address)
    assert not permitted(client, deny=[rule(match("ip", "10.0.0.0/8"))])
    assert not permitted(client, allow=[rule(match("ip", "0.0.0.0/0"))])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/chat/admin", True),
        ("/chat/admin/", True),
        ("/chat/admin/x", True),
        ("/chat//admin", True),
        ("/chat/%61dmin", True),
        ("/chat/x/../admin", True),
        ("/./chat/admin", True),
        ("/chat/administration", False),
        ("/chat", False),
        ("/chat/x/admin", False),
        ("/CHAT/admin", False),
    ],
)
def test_a_path_is_the_one_named_or_below_it(path: str, expected: bool) -> None:
    assert holds(match("path", "/chat/admin"), request(path=path)) is expected


@pytest.mark.parametrize("value", ["/chat/admin/", "/chat/%61dmin", "/chat/./admin"])
def test_a_rules_path_is_read_in_the_same_way(value: str) -> None:
    assert holds(match("path", value), request(path="/chat/admin/1"))


def test_a_path_of_a_slash_is_all_of_them() -> None:
    assert holds(match("path", "/"), request(path="/chat"))


def test_a_path_may_hold_any_bytes() -> None:
    assert holds(match("path", "/k\N{LATIN SMALL LETTER E WITH ACUTE}"), request(path="/k%C3%A9"))
    assert holds(match("path", "/chat"), request(path="/chat/\udcff%ff"))


TWO_READINGS = [
    "/public/..%2fadmin/x",
    "/public/%2e%2e/admin/x",
    "/public/%252e%252e%252fadmin/x",
    "/public%2f..%2fadmin%2fx",
]


@pytest.mark.parametrize("path", TWO_READINGS)
def test_what_some_would_read_as_another_path_is_denied_and_not_permitted(path: str) -> None:
    client = request(path=path)
    assert not permitted(client, deny=[rule(match("path", "/admin"))])
    assert not permitted(client, allow=[rule(match("path", "/public"))])


def test_a_path_encoded_without_end_is_denied_and_not_permitted() -> None:
    client = request(path="/public/%" + "25" * 1000 + "41")
    assert not permitted(client, deny=[rule(match("path", "/admin"))])
    assert not permitted(client, allow=[rule(match("path", "/public"))])


GPT = match("model", "gpt-5")


@pytest.mark.parametrize(
    ("own", "named", "expected"),
    [
        (model("gpt-5"), None, True),
        (model("gpt-5"), "other", True),
        (model("other"), "gpt-5", False),
        (model("other", "gpt-5"), "gpt-5", True),
        (model(None), "gpt-5", True),
        (model(None), "other", False),
        (model(None, "gpt-5"), None, True),
        (model("$(headers.x-model)"), "gpt-5", True),
        (model("$(headers.x-model)"), "other", False),
    ],
)
def test_a_model_goes_by_alias_or_the_name_that_the_provider_is_sent(
    own: Json, named: str | None, expected: bool
) -> None:
    assert holds(GPT, request(), target=ai_proxy(model=own), named=named) is expected


@pytest.mark.parametrize(
    "named",
    ["GPT-5", " gpt-5", "Gpt-5\n", "models/gpt-5", "publishers/openai/models/gpt-5"],
)
def test_another_spelling_is_denied_and_not_permitted(named: str) -> None:
    target = ai_proxy(model=model(None))
    assert not permitted(request(), deny=[rule(GPT)], target=target, named=named)
    assert not permitted(request(), allow=[rule(GPT)], target=target, named=named)


@pytest.mark.parametrize(
    ("client", "permitted_"),
    [
        (request(), False),
        (ClientRequest("POST"), False),
        (ClientRequest("GET", headers={"upgrade": ("websocket",)}), False),
        (ClientRequest("GET", headers={"transfer-encoding": ("chunked",)}), False),
        (ClientRequest("GET"), True),
    ],
)
def test_a_model_that_nobody_knows_is_denied_where_there_may_be_one(
    client: ClientRequest, permitted_: bool
) -> None:
    target = ai_proxy(model=model(None))
    assert permitted(client, deny=[rule(GPT)], target=target) is permitted_
    assert not permitted(client, allow=[rule(GPT)], target=target)


def test_a_provider_is_the_targets() -> None:
    assert holds(OPENAI, request())
    assert not holds(BEDROCK, request())


# What a plan makes of them


def plan(*args: Any) -> Plan:
    return Plan(configured(*args))


@pytest.mark.parametrize(
    ("condition", "uses"),
    [
        (match("consumer", "bob"), {"uses_consumer"}),
        (match("consumer_group", "gold"), {"uses_consumer", "uses_groups"}),
        (match("ip", "10.0.0.1"), {"uses_address"}),
        (match("path", "/chat"), {"uses_path"}),
        (match("header", "x", key="y"), set()),
        (match("provider", "openai"), set()),
        (match("model", "gpt-5"), set()),
    ],
)
def test_a_plan_knows_what_its_rules_look_at(condition: Json, uses: set[str]) -> None:
    names = ("uses_consumer", "uses_groups", "uses_address", "uses_path")
    for made in (plan([rule(condition)]), plan(None, [rule(condition)])):
        assert {name for name in names if getattr(made, name)} == uses


def test_a_client_that_may_use_no_target_is_told_so_and_not_why() -> None:
    made = plan([rule(match("consumer", "bob"))])
    with pytest.raises(Refused) as caught:
        made.attempt(of_bob(), None)
    assert caught.value.status == 403
    assert caught.value.message == "this consumer may not use the model"


def test_targets_that_are_not_permitted_are_no_candidates() -> None:
    made = plan(
        [rule(IS_BOB, match("model", "a"))],
        None,
        ai_proxy(model=model("a")),
        ai_proxy(model=model("b")),
        ai_proxy(model=model("c")),
    )
    assert made.ask(of_bob(), b'{"messages":[]}').candidates == (1, 2)
    assert made.ask(request(), b'{"messages":[]}').candidates == (0, 1, 2)


def form(*fields: tuple[str, str]) -> bytes:
    lines = [
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields
    ]
    return ("".join(lines) + "--b--\r\n").encode()


@pytest.mark.parametrize(
    ("route_type", "content_type", "body"),
    [
        (
            "llm/v1/chat",
            "application/json",
            '{"messages":[{"role":"user","content":"x"}],"model":"%s"}',
        ),
        ("llm/v1/embeddings", "application/json", '{"input":"x","model":"%s"}'),
        ("image/v1/images/generations", "application/json", '{"prompt":"x","model":"%s"}'),
        ("audio/v1/audio/transcriptions", "multipart/form-data; boundary=b", "%s"),
        ("preserve", "application/json", '{"model":"%s"}'),
    ],
)
@pytest.mark.parametrize(("named", "refused"), [("gpt-5", True), ("gpt-6", False)])
def test_the_model_in_a_body_is_read_for_a_rule(
    route_type: str, content_type: str, body: str, named: str, refused: bool
) -> None:
    made = plan([rule(GPT)], None, ai_proxy(route_type=route_type, model=model(None)))
    is_form = "multipart" in content_type
    raw = form(("model", named)) if is_form else (body % named).encode()
    client = request(raw, headers={"content-type": content_type})
    assert made.body(client) is Body.READ
    if refused:
        with pytest.raises(Refused, match="may not use"):
            made.attempt(client, raw)
    else:
        made.attempt(client, raw)
