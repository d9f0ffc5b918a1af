"""What `kong-ai-proxy serve` says to options and socket paths that cannot work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kong_ai_proxy.pluginserver import serve
from kong_ai_proxy.pluginserver.generation import MAX_PATH_BYTES, Settings, socket_problem
from kong_ai_proxy.relay.settings import RelaySettings

CERTIFICATE = Path(__file__).parent.parent / "gateway" / "proxy" / "localhost.pem"


def refusal(capfd: pytest.CaptureFixture[str], *argv: str) -> str:
    """What is printed where `argv` is refused."""
    with pytest.raises(SystemExit) as end:
        serve.main(list(argv))
    assert end.value.code == 2
    return capfd.readouterr().err


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room in a Unix socket's path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_settings_survive_the_way_to_the_processes() -> None:
    relay = RelaySettings("/ca.pem", "http://u:p@proxy:1", "a,b")
    settings = Settings(
        "/run/ü socket", 3, "msgpack", 1.5, 9.0, "debug", 2.0, "/plugins", relay, "redis://:p@host"
    )
    assert Settings.from_json(settings.to_json()) == settings


def test_the_socket_is_needed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KONG_AI_PROXY_SOCKET", raising=False)
    assert "pluginserver_ai_proxy_socket" in refusal(capfd)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--workers", "0", "expected a whole number from 1 to 64, got '0'"),
        ("--workers", "65", "expected a whole number from 1 to 64"),
        ("--workers", "two", "got 'two'"),
        ("--drain", "-1", "expected a number of seconds from 0 to 86400, got '-1'"),
        ("--drain", "nan", "got 'nan'"),
        ("--event-time-limit", "60", "expected a number of seconds from 0.1 to 59, got '60'"),
        ("--event-time-limit", "", "got ''"),
        ("--protocol", "grpc", "expected protobuf or msgpack, got 'grpc'"),
        ("--time-budget", "0", "expected a number of seconds from 0.01 to 86400, got '0'"),
        ("--first-token-timeout", "x", "expected a number of seconds from 0.01"),
        ("--min-stream-rate", "0", "expected a number of events a second from 0.1 to 10000"),
        ("--prompt-affinity", "yes", "expected on or off, got 'yes'"),
        ("--log-level", "loud", "expected debug or info or warning or error, got 'loud'"),
    ],
)
def test_an_option_out_of_range_is_named_with_its_range(
    option: str, value: str, expected: str, short: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capfd, "--socket", str(short / "s"), f"{option}={value}")
    assert f"argument {option}" in said
    assert expected in said


def test_a_variable_out_of_range_is_named(
    short: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KONG_AI_PROXY_EVENT_TIME_LIMIT", "61")
    said = refusal(capfd, "--socket", str(short / "s"))
    assert "KONG_AI_PROXY_EVENT_TIME_LIMIT: expected a number of seconds" in said


def test_variables_stand_for_options_and_the_command_line_wins(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short)
    for name, value in {
        "SOCKET": "relative.socket",
        "WORKERS": "5",
        "PROTOCOL": "protobuf",
        "DRAIN": "0.5",
        "EVENT_TIME_LIMIT": "7",
        "LOG_LEVEL": "",
    }.items():
        monkeypatch.setenv(f"KONG_AI_PROXY_{name}", value)
    settings = serve._settings(["--workers", "3"])
    assert settings == Settings(f"{short.resolve()}/relative.socket", 3, "protobuf", 0.5, 7.0)


def test_msgpack_has_one_worker_and_says_so_when_more_were_asked_for(
    short: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    quiet = serve._settings(["--socket", str(short / "s"), "--protocol", "msgpack"])
    assert (quiet.workers, capfd.readouterr().err) == (1, "")
    told = serve._settings(["--socket", str(short / "s"), "--protocol=msgpack", "--workers=4"])
    assert told.workers == 1
    assert "one worker serves in place of 4" in capfd.readouterr().err


def test_a_missing_directory_is_named(short: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert f"there is no directory {short}/none" in refusal(
        capfd, "--socket", str(short / "none" / "s")
    )


def test_a_path_too_long_for_a_unix_socket_is_measured(short: Path) -> None:
    room = MAX_PATH_BYTES - len(str(short)) - 1
    assert socket_problem(str(short / ("s" * room))) is None
    assert "108 bytes, at most 107" in str(socket_problem(str(short / ("s" * (room + 1)))))


def test_a_short_name_leaves_room_for_the_temporary_one(short: Path) -> None:
    folder = short / ("d" * (MAX_PATH_BYTES - len(str(short)) - 1 - 7))
    folder.mkdir()
    assert "too long" in str(socket_problem(str(folder / "s")))


def test_the_limit_is_the_kernels(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as fits, socket.socket(socket.AF_UNIX) as does_not:
        fits.bind(str(short / ("s" * (MAX_PATH_BYTES - len(str(short)) - 1))))
        with pytest.raises(OSError, match="too long"):
            does_not.bind(str(short / ("t" * (MAX_PATH_BYTES - len(str(short))))))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_names_the_user(short: Path) -> None:
    short.chmod(0o500)
    assert f"user {os.geteuid()} may not create files" in str(socket_problem(str(short / "s")))
    short.chmod(0o700)


def test_a_directory_that_may_not_be_written_is_refused(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert "nginx_user" in str(socket_problem(str(short / "s")))


def test_what_is_no_socket_is_left_alone(short: Path) -> None:
    (short / "s").write_text("mine")
    assert "is not a socket" in str(socket_problem(str(short / "s")))


def test_a_stale_socket_may_be_replaced(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(short / "s"))
    assert socket_problem(str(short / "s")) is None


def test_help_names_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        serve.main(["--help"])
    assert end.value.code == 0
    said = capfd.readouterr().out
    options = ("socket", "workers", "protocol", "drain", "event-time-limit", "log-level")
    for option in (*options, "ca-file", "https-proxy", "no-proxy", "redis"):
        assert f"--{option} " in said


def test_a_private_ca_is_loaded_to_see_whether_it_can_be(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short)
    (short / "ca.pem").write_bytes(CERTIFICATE.read_bytes())
    settings = serve._settings(["--socket", "s", "--ca-file", "ca.pem"])
    assert settings.relay.ca_file == f"{short.resolve()}/ca.pem"


def test_a_ca_that_is_none_is_refused(short: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--socket", str(short / "s"), "--ca-file")
    assert f"--ca-file: cannot read {short}/none: No such file" in refusal(
        capfd, *options, str(short / "none")
    )
    (short / "empty").touch()
    assert "expected certificates in PEM format in" in refusal(
        capfd, *options, str(short / "empty")
    )
    assert f"cannot read {short}: Is a directory" in refusal(capfd, *options, str(short))


@pytest.fixture
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "NO_PROXY", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ([], None),
        (["HTTPS_PROXY"], "http://HTTPS_PROXY"),
        (["HTTPS_PROXY", "https_proxy"], "http://https_proxy"),
        (["https_proxy", "KONG_AI_PROXY_HTTPS_PROXY"], "http://KONG_AI_PROXY_HTTPS_PROXY"),
    ],
)
def test_the_usual_variables_name_the_proxy(
    short: Path, monkeypatch: pytest.MonkeyPatch, variables: list[str], proxy: str | None
) -> None:
    for name in variables:
        monkeypatch.setenv(name, name)
    monkeypatch.setenv("NO_PROXY", "internal.example")
    options = ["--socket", str(short / "s")]
    relay = serve._settings(options).relay
    assert (relay.https_proxy, relay.no_proxy) == (proxy, "internal.example")
    relay = serve._settings([*options, "--https-proxy=p:1", "--no-proxy="]).relay
    assert (relay.https_proxy, relay.no_proxy) == ("http://p:1", "")


@pytest.mark.usefixtures("_no_proxies")
def test_a_proxy_that_cannot_be_is_refused_without_its_password(
    short: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--socket", str(short / "s"))
    said = refusal(capfd, *options, "--https-proxy=socks5://user:hunter2@proxy")
    assert "--https-proxy: expected http://HOST:PORT: another scheme" in said
    assert "hunter2" not in said
    monkeypatch.setenv("https_proxy", "socks5://user:hunter2@proxy")
    said = refusal(capfd, *options)
    assert "https_proxy: expected http://HOST:PORT: another scheme" in said
    assert "hunter2" not in said


@pytest.mark.usefixtures("_no_proxies")
def test_help_does_not_show_what_the_variables_hold(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2@proxy")
    with pytest.raises(SystemExit):
        serve.main(["--help"])
    assert "hunter2" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "redis://127.0.0.1:6380/2",
        "rediss://user:p%40ss@redis.example:6379",
        "redis://:secret@[::1]:6379/",
    ],
)
def test_a_redis_url_is_taken_from_the_command_line_or_the_environment(
    url: str, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serve._settings(["--socket", str(short / "s"), "--redis", url]).redis == url
    monkeypatch.setenv("KONG_AI_PROXY_REDIS", f" {url} ")
    assert serve._settings(["--socket", str(short / "s")]).redis == url


def test_the_scheme_of_a_redis_url_may_be_in_capitals(short: Path) -> None:
    settings = serve._settings(["--socket", str(short / "s"), "--redis", "REDISS://host"])
    assert settings.redis == "rediss://host"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://:gehe1m@host", "another scheme"),
        ("host:6379", "redis:// is missing"),
        ("redis://:gehe1m@", "no host"),
        ("redis://:gehe1m@host:port", "host or port cannot be read"),
        ("redis://:gehe1m@host:70000", "host or port cannot be read"),
        (
            "redis://:gehe1m wort@host",
            "for TLS: characters that need a percent",
        ),
        ("redis://:gehe1m@host/name", "something else than a database's number"),
        ("redis://:gehe1m@host/0?ssl_cert_reqs=none", "something else than a database's number"),
        ("redis://:gehe1m#wort@host", "expected redis://[USER:PASSWORD@]HOST"),
        ("", "redis:// is missing"),
        ("localhost", "redis:// is missing"),
        (":gehe1m@localhost", "redis:// is missing"),
        ("redis://", "no host"),
    ],
)
def test_a_wrong_redis_url_is_refused_without_its_password(
    url: str, expected: str, short: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capfd, "--socket", str(short / "s"), f"--redis={url}")
    assert "argument --redis: expected redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]" in said
    assert expected in said
    assert "gehe1m" not in said


def test_redis_without_its_package_names_the_extra(
    short: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = refusal(capfd, "--socket", str(short / "s"), "--redis=redis://host")
    assert "pip install 'kong-ai-proxy[redis]'" in said


def test_launcher_and_supervisor_start_without_what_workers_need() -> None:
    """Kong waits for all three, one after the other, at each reload."""
    heavy = {"aiohttp", "asyncpg", "numpy", "orjson", "pydantic", "redis", "uvloop"}
    code = "import kong_ai_proxy.pluginserver.serve, kong_ai_proxy.pluginserver.supervisor, sys"
    told = subprocess.run(
        [sys.executable, "-c", f"{code}; print(*({heavy!r} & sys.modules.keys()))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == []
