"""`kong-ai-proxy lua-path`."""

from __future__ import annotations

from pathlib import Path

import pytest

from kong_ai_proxy.lua import path


def test_its_first_pattern_finds_the_shim_of_this_installation() -> None:
    first = path.lua_package_path().split(";")[0]
    for plugin in ("ai-proxy", "ai-proxy-advanced"):
        for module in ("handler", "schema"):
            assert Path(first.replace("?", f"kong/plugins/{plugin}/{module}")).is_file()


def test_luas_own_places_come_after_it() -> None:
    assert path.lua_package_path(Path("/opt/x/lua")) == "/opt/x/lua/?.lua;/opt/x/lua/?/init.lua;;"


@pytest.mark.parametrize("character", [";", "?", "'", '"', "\\", "$", "#"])
def test_a_folder_that_nginx_or_lua_would_misread_is_refused(character: str) -> None:
    with pytest.raises(ValueError, match="install kong-ai-proxy in another folder"):
        path.lua_package_path(Path(f"/opt/a{character}b"))


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert path.main([]) == 0
    assert capsys.readouterr().out == path.lua_package_path() + "\n"
