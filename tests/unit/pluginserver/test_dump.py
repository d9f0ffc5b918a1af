"""`kong-ai-proxy dump`: what Kong's query_cmd reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kong_ai_proxy import resources
from kong_ai_proxy.pluginserver import access, dump


@pytest.mark.parametrize("plugin", ["ai-proxy", "ai-proxy-advanced"])
def test_one_document_with_the_packaged_schema(
    plugin: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert dump.main([plugin]) == 0
    document = json.loads(capfd.readouterr().out)
    schema = json.loads(resources.path("schemas", f"{plugin}.kong.json").read_bytes())
    assert document == {
        "Protocol": "ProtoBuf:1",
        "Plugins": [
            {
                "Name": plugin,
                "Phases": ["access"],
                "Priority": 770,
                "Version": document["Plugins"][0]["Version"],
                "Schema": schema,
            }
        ],
    }
    assert schema["name"] == plugin


def test_the_priority_is_that_of_the_plugins() -> None:
    assert dump.PRIORITY == access.PRIORITY


def test_the_protocol_is_the_one_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    assert dump.main(["ai-proxy", "--protocol", "msgpack"]) == 0
    assert json.loads(capfd.readouterr().out)["Protocol"] == "MsgPack:1"


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.1.0", "0.1.0"), ("1.2.3rc1", "1.2.3"), ("1.2.dev4", "1.2.0"), ("1.2.3.4", "1.2.3")],
)
def test_the_version_is_digits_and_dots(version: str, expected: str) -> None:
    assert dump.kong_version(version) == expected


@pytest.mark.parametrize("plugin", ["ai-rag", "../../etc/passwd", ""])
def test_an_unknown_plugin_is_named(plugin: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        dump.main([plugin])
    assert end.value.code == 2
    out, err = capfd.readouterr()
    assert not out
    assert repr(plugin) in err
    assert "ai-proxy-advanced" in err


def test_an_installation_without_schemas_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "path", lambda *parts: tmp_path)
    assert dump.main(["ai-proxy"]) == 1
    assert "make schemas" in capfd.readouterr().err


def test_nothing_heavy_is_imported_while_kong_waits() -> None:
    program = (
        "import sys; from kong_ai_proxy.cli import main; status = main(['dump', 'ai-proxy']); "
        "print(*sys.modules, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={}, capture_output=True, text=True, check=True
    )
    json.loads(done.stdout)
    heavy = {"pydantic", "kong_pdk", "asyncio", "aiohttp", "uvloop", "yaml", "greenlet"}
    assert not heavy & set(done.stderr.split())
