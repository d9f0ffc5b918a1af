"""The configurations that Kong's documentation shows."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.unit.config.samples import FIXTURES, fill_in, problems

DOCUMENTED: list[dict[str, Any]] = yaml.safe_load(
    (FIXTURES / "documented_configs.yaml").read_text(encoding="utf-8")
)
# "[1] config.@entity: must set model.options.x for y" and "config.model.z: unknown field"
MISTAKE = re.compile(r"(?:\[(\d+)\] )?(config[\w.\[\]@]*): (.*)")
EACH = [
    pytest.param(entry["plugin"], entry["check"], index, config, id=f"{entry['id']}[{index}]")
    for entry in DOCUMENTED
    for index, config in enumerate(entry["configs"])
]


def mistakes(check: str, index: int) -> list[tuple[str, str]]:
    """Field and text of what the documentation wrote wrongly in its configuration `index`."""
    found = (MISTAKE.fullmatch(text.strip()) for text in check.removeprefix("FAIL:").split(" ; "))
    return [(match[2], match[3]) for match in found if match and int(match[1] or index) == index]


def test_all_of_them_are_here() -> None:
    assert len(DOCUMENTED) == 108


@pytest.mark.parametrize(("plugin", "check", "index", "config"), EACH)
def test_it_is_accepted_or_refused_for_the_field_that_is_wrong(
    plugin: str, check: str, index: int, config: dict[str, Any]
) -> None:
    found = problems(plugin, fill_in(config))
    expected = mistakes(check, index)
    assert len(found) == len(expected)
    for field, text in expected:
        if field.endswith(".@entity"):
            missing = re.search(r"model\.options\.\w+", text)
            assert missing
            assert f"{field.removesuffix('.@entity')}.{missing[0]}" in found
        else:
            assert found[field].startswith("unknown field")


@pytest.mark.parametrize("entry", [e for e in DOCUMENTED if len(e["configs"]) > 1])
def test_a_list_of_configurations_is_not_one(entry: dict[str, Any]) -> None:
    found = problems(entry["plugin"], fill_in(entry["configs"]))
    assert found == {"config": "expected a record"}
