"""`kong-ai-proxy kong-conf`, and the ready pieces in kong.conf.d."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kong_ai_proxy.lua.path import lua_package_path
from kong_ai_proxy.pluginserver import kong_conf
from kong_ai_proxy.pluginserver.kong_conf import Settings, lines

PIECES = Path(__file__).parents[3] / "kong.conf.d"


def entries(text: str) -> dict[str, str]:
    """kong.conf as Kong reads it: `key = value` lines, `#` a comment unless `\\#`."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition(" = ")
            found[key] = value.replace("\\#", "#")
    return found


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    assert kong_conf.main(list(arguments)) == 0
    return entries(capsys.readouterr().out)


def test_both_plugins_have_a_server_name_and_share_one_socket_and_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    conf = printed(capsys)
    assert conf["plugins"] == "bundled,ai-proxy,ai-proxy-advanced"
    assert conf["pluginserver_names"] == "ai-proxy,ai-proxy-advanced"
    assert conf["pluginserver_ai_proxy_socket"] == conf["pluginserver_ai_proxy_advanced_socket"]
    assert [key for key in conf if key.endswith("_start_cmd")] == [
        "pluginserver_ai_proxy_start_cmd"
    ]
    assert conf["lua_package_path"] == lua_package_path()


def test_a_control_plane_starts_no_server_but_knows_the_schemas(
    capsys: pytest.CaptureFixture[str],
) -> None:
    conf = printed(capsys, "--role", "control_plane")
    assert sorted(conf) == [
        "lua_package_path",
        "plugins",
        "pluginserver_ai_proxy_advanced_query_cmd",
        "pluginserver_ai_proxy_query_cmd",
        "pluginserver_names",
    ]


def test_a_data_plane_has_what_a_traditional_node_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--role", "data_plane") == printed(capsys)


def test_options_reach_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--socket", "/run/x.sock", "--protocol", "msgpack", "--workers", "3")
    conf = printed(capsys, *options)
    start = shlex.split(conf["pluginserver_ai_proxy_start_cmd"])
    assert start[1:] == [
        *("serve", "--socket", "/run/x.sock", "--workers", "3", "--protocol", "msgpack")
    ]
    for name in ("ai_proxy", "ai_proxy_advanced"):
        assert conf[f"pluginserver_{name}_socket"] == "/run/x.sock"
        assert conf[f"pluginserver_{name}_query_cmd"].endswith(" --protocol msgpack")


@pytest.mark.parametrize("plugin", ["ai-proxy", "ai-proxy-advanced"])
def test_the_query_command_runs_as_kong_runs_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, plugin: str
) -> None:
    """Through the shell, from whatever folder, with an empty environment."""
    query = printed(capsys)[f"pluginserver_{plugin.replace('-', '_')}_query_cmd"]
    command = ["/bin/sh", "-c", query]
    done = subprocess.run(command, env={}, cwd=tmp_path, capture_output=True, check=True)
    assert [info["Name"] for info in json.loads(done.stdout)["Plugins"]] == [plugin]


def test_awkward_paths_survive_the_shell_and_the_file(tmp_path: Path) -> None:
    program = tmp_path / "it's a #1 $HOME folder"
    program.write_text('#!/bin/sh\necho "$1 $2"\n')
    program.chmod(0o755)
    text = "\n".join(lines(Settings(), (str(program),), "/x"))
    query = entries(text)["pluginserver_ai_proxy_query_cmd"]
    done = subprocess.run(["/bin/sh", "-c", query], env={}, capture_output=True, text=True)
    assert done.stdout == "dump ai-proxy\n"


def test_without_a_console_script_the_interpreter_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "python3"
    bare.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(bare))
    assert kong_conf.command() == (str(bare), "-P", "-m", "kong_ai_proxy")


@pytest.mark.parametrize(
    ("socket", "complaint"),
    [("run/x.sock", "expected an absolute path"), ("/" + "x" * 120, "choose a shorter one")],
)
def test_a_socket_path_that_cannot_work_is_refused(
    capsys: pytest.CaptureFixture[str], socket: str, complaint: str
) -> None:
    assert kong_conf.main(["--socket", socket]) == 1
    assert complaint in capsys.readouterr().err


def test_a_line_break_cannot_slip_a_setting_in() -> None:
    with pytest.raises(ValueError, match="line break"):
        lines(Settings(socket="/x\nplugins = off"), ("/p",), "/x")


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5", "²"])
def test_workers_are_a_whole_number_from_one(workers: str) -> None:
    with pytest.raises(SystemExit) as ended:
        kong_conf.main(["--workers", workers])
    assert ended.value.code == 2


def test_the_ready_piece_is_what_kong_conf_prints_for_an_installation_in_opt() -> None:
    piece = entries((PIECES / "ai-proxy.conf").read_text())
    root = "/opt/kong-ai-proxy"
    package = f"{root}/lib/python3.12/site-packages/kong_ai_proxy/lua"
    text = lines(Settings(), (f"{root}/bin/kong-ai-proxy",), lua_package_path(Path(package)))
    assert piece == entries("\n".join(text))


def test_the_control_planes_piece_too() -> None:
    piece = entries((PIECES / "ai-proxy-control-plane.conf").read_text())
    root = "/opt/kong-ai-proxy"
    package = f"{root}/lib/python3.12/site-packages/kong_ai_proxy/lua"
    settings = Settings(role="control_plane")
    text = lines(settings, (f"{root}/bin/kong-ai-proxy",), lua_package_path(Path(package)))
    assert piece == entries("\n".join(text))


def test_every_setting_of_a_piece_is_explained() -> None:
    for piece in PIECES.glob("*.conf"):
        blocks = piece.read_text().strip().split("\n\n")
        assert all(block.startswith("#") for block in blocks), piece.name


def test_no_console_script_of_another_interpreter_is_taken() -> None:
    """The lines are those of the installation that prints them."""
    program = kong_conf.command()[0]
    assert os.path.dirname(program) == os.path.dirname(sys.executable)
    assert shutil.which(program)


def test_what_to_look_at_first_goes_beside_the_lines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert kong_conf.main(["--socket", f"{tmp_path}/missing/ai.socket"]) == 0
    said = capsys.readouterr()
    assert "add to that line instead" in said.err
    assert f"there is no folder {tmp_path}/missing here: give --socket PATH" in said.err
    assert all(" = " in line for line in said.out.splitlines())
