"""Routing, with tables whose outcomes a Kong 3.9.3 with its default router has shown."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest

from kong_ai_proxy.gateway.context import Headers
from kong_ai_proxy.gateway.router import Match, RouteError, Router, compile_path, split_port

_SERVICE: Mapping[str, object] = {"id": "s", "path": "/base"}


def _route(name: str, **fields: object) -> Mapping[str, object]:
    id_ = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    return {"id": id_, "name": name, "strip_path": True, **fields}


def _find(
    routes: list[Mapping[str, object]],
    path: str = "/",
    *,
    method: str = "GET",
    host: str = "h.example",
    headers: Headers | None = None,
) -> Match | None:
    router = Router((route, _SERVICE) for route in routes)
    return router.find(method, path, [("Host", host), *(headers or [])], port=8000)


def _name(match: Match | None) -> object:
    return match.route["name"] if match else None


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        ({"paths": ["/a/b"]}, {"paths": ["/a"]}),
        ({"paths": ["~/a"]}, {"paths": ["/a/b"]}),
        ({"paths": ["~/a"], "regex_priority": 1}, {"paths": ["~/a/b"]}),
        ({"hosts": ["h.example"]}, {"hosts": ["*.example"], "paths": ["~/a"]}),
        ({"hosts": ["h.example"]}, {"paths": ["~/a"], "methods": ["GET"]}),
        ({"paths": ["~/a"]}, {"paths": ["/a/b"], "methods": ["GET"]}),
        ({"paths": ["/a"], "methods": ["GET"]}, {"paths": ["/a/b"]}),
        ({"headers": {"x": ["1"], "y": ["2"]}}, {"headers": {"x": ["1"]}}),
        (
            {"paths": ["/a"], "methods": ["GET"], "hosts": ["*.example"], "headers": {"x": ["1"]}},
            {"paths": ["~/a/b"], "hosts": ["h.example"]},
        ),
    ],
)
def test_precedence(winner: dict[str, object], loser: dict[str, object]) -> None:
    headers = [("X", "1"), ("Y", "2")]
    one, two = _route("winner", **winner), _route("loser", **loser)
    for routes in ([one, two], [two, one]):
        assert _name(_find(routes, "/a/b", headers=headers)) == "winner"


def test_of_equal_routes_the_greater_id_wins() -> None:
    low = {**_route("low", paths=["/a"]), "id": "00000000-0000-4000-8000-000000000000"}
    high = {**_route("high", paths=["/a"]), "id": "ffffffff-0000-4000-8000-000000000000"}
    assert _name(_find([low, high], "/a")) == "high"
    assert _name(_find([high, low], "/a")) == "high"


def test_no_route() -> None:
    assert _find([_route("a", paths=["/a"])], "/b") is None


def test_a_prefix_need_not_end_at_a_segment() -> None:
    match = _find([_route("a", paths=["/a"])], "/ab")
    assert match is not None
    assert match.upstream_path == "/base/b"


def test_matching_is_case_sensitive() -> None:
    assert _find([_route("a", paths=["/a"])], "/A") is None


def test_methods() -> None:
    routes = [_route("a", methods=["POST", "PUT"])]
    assert _find(routes, method="PUT") is not None
    assert _find(routes, method="GET") is None


@pytest.mark.parametrize(
    ("pattern", "host", "found"),
    [
        ("h.example", "h.example", True),
        ("h.example", "h.example:99", True),
        ("h.example", "x.h.example", False),
        ("*.example", "a.b.example", True),
        ("*.example", "example", False),
        ("h.*", "h.org:99", True),
        ("h.example:99", "h.example:99", True),
        ("h.example:99", "h.example", False),
        ("h.example:8000", "h.example", True),
    ],
)
def test_hosts(pattern: str, host: str, found: bool) -> None:
    assert (_find([_route("a", hosts=[pattern])], host=host) is not None) is found


@pytest.mark.parametrize(
    ("values", "sent", "found"),
    [
        (["1"], ["1"], True),
        (["1"], ["2", "1"], True),
        (["A"], ["a"], True),
        (["1"], ["2"], False),
        (["1"], [], False),
        (["~*^z.+"], ["Zoo"], True),
        (["~*^z.+"], ["a"], False),
    ],
)
def test_headers(values: list[str], sent: list[str], found: bool) -> None:
    headers = [("x-kind", value) for value in sent]
    match = _find([_route("a", headers={"X-Kind": values})], headers=headers)
    assert (match is not None) is found


def test_captures_are_decoded() -> None:
    route = _route("a", paths=["~/rx/(?<tenant>[^/]+)/(?<rest>.+)$"])
    match = _find([route], "/rx/acme/chat/x%20y")
    assert match is not None
    assert match.captures_named == {"tenant": "acme", "rest": "chat/x y"}
    assert match.captures_unnamed == ("acme", "chat/x y")
    assert match.captures_match == "/rx/acme/chat/x y"
    assert match.prefix == "/rx/acme/chat/x y"
    assert match.upstream_path == "/base"


def test_an_encoded_slash_stays_one_segment() -> None:
    match = _find([_route("a", paths=["~/rx/(?<tenant>[^/]+)$"])], "/rx/a%2fb")
    assert match is not None
    assert match.captures_named == {"tenant": "a%2Fb"}


def test_a_regular_expression_is_anchored_at_the_start_only() -> None:
    routes = [_route("a", paths=[r"~/v\d"])]
    assert _find(routes, "/x/v1") is None
    match = _find(routes, "/v1/rest")
    assert match is not None
    assert match.upstream_path == "/base/rest"


def test_an_expression_without_groups_captures_nothing() -> None:
    match = _find([_route("a", paths=["~/a"])], "/a")
    assert match is not None
    assert (match.captures_named, match.captures_unnamed, match.captures_match) == ({}, (), "")


def test_without_strip_path_the_whole_path_goes_on() -> None:
    match = _find([_route("a", paths=["/a"], strip_path=False)], "/a/%20b")
    assert match is not None
    assert match.upstream_path == "/base/a/%20b"
    assert match.prefix is None


def test_a_route_without_paths_keeps_the_path() -> None:
    match = _find([_route("a", hosts=["h.example"])], "/x/y")
    assert match is not None
    assert match.upstream_path == "/base/x/y"


def test_a_path_that_is_not_utf8_has_no_route() -> None:
    assert _find([_route("a", paths=["/"])], "/%E9") is None


def test_a_broken_expression_names_itself() -> None:
    with pytest.raises(RouteError, match=r"invalid regex: '/\('"):
        compile_path("/(")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("a", ("a", None)),
        ("a:80", ("a", 80)),
        ("a:", ("a", None)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", None)),
        ("::1", ("::1", None)),
    ],
)
def test_split_port(header: str, expected: tuple[str, int | None]) -> None:
    assert split_port(header) == expected
