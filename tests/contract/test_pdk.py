"""The `kong` object and the table of methods say the same."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from kong_ai_proxy.pluginserver import pdk
from kong_ai_proxy.pluginserver.wire.methods import METHODS


class _Recorder:
    """Takes the place of an event."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def call(self, name: str, *args: object) -> None:
        self.called.append(name)

    exit = call

    def raw_body(self, max_bytes: int | None) -> None:
        self.called.append("kong.request.get_raw_body")


def _methods(thing: Any, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, member in inspect.getmembers(type(thing)):
        if name.startswith("_") or name == "wait":
            continue
        if isinstance(member, property):
            found |= _methods(getattr(thing, name), f"{path}.{name}")
        else:
            found[f"{path}.{name}"] = getattr(thing, name)
    return found


def test_every_method_of_the_table_is_there_and_no_other() -> None:
    assert _methods(pdk.Kong(_Recorder()), "kong").keys() == METHODS.keys()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_calls_what_it_is_called(name: str) -> None:
    event = _Recorder()
    method = _methods(pdk.Kong(event), "kong")[name]  # type: ignore[arg-type]
    method(
        *(
            1
            for parameter in inspect.signature(method).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind is not parameter.VAR_POSITIONAL
        )
    )
    assert event.called == [name]


def test_the_service_has_74_methods() -> None:
    """As many as Kong's pluginsocket.proto."""
    both = [method for method in METHODS.values() if "protobuf" in method.protocols]
    assert len(both) == 74
