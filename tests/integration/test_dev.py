"""`kong-ai-proxy dev` as its user has it: a process, its output, curl, Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from kong_ai_proxy import resources
from kong_ai_proxy.gateway.provider import Provider

_DEV = [sys.executable, "-P", "-m", "kong_ai_proxy", "dev"]
_SECONDS = 40


def _environment(folder: Path, **more: str) -> dict[str, str]:
    """Ours without any key, with temporary files in a folder of the test's own."""
    kept = {k: v for k, v in os.environ.items() if "OPENAI" not in k and not k.startswith("DECK")}
    return {**kept, "TMPDIR": str(folder), **more}


@dataclass
class Dev:
    """A running `dev`."""

    process: subprocess.Popen[str]
    folder: Path
    lines: list[str] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stdout is not None
        self.lines += iter(self.process.stdout.readline, "")

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> str:
        """The first group of the pattern in what it printed. Fails after a while."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            found = re.search(pattern, self.text)
            if found:
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        pytest.fail(f"dev did not print {pattern!r}: {self.text}")

    @property
    def url(self) -> str:
        return self.wait_for(r"gateway +(http://\S+)\n")

    def command(self, what: str) -> str:
        """The printed command below `# what`."""
        return self.wait_for(rf"# {re.escape(what)}\n(.+)\n")

    def processes(self) -> list[psutil.Process]:
        """Everything that it started, however far removed: all name its private folder."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found.append(process)
        return found


@contextlib.contextmanager
def _dev(folder: Path, *arguments: str, **env: str) -> Iterator[Dev]:
    process = subprocess.Popen(
        [*_DEV, "--port", "0", *arguments],
        env=_environment(folder, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that a signal to its group is a Ctrl-C in its terminal
    )
    dev = Dev(process, folder)
    reader = threading.Thread(target=dev.read, daemon=True)
    reader.start()
    try:
        yield dev
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=30)
        reader.join(timeout=10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Dev]:
    # Not tmp_path: the path of a Unix socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="kap-dev-") as folder, _dev(Path(folder)) as dev:
        dev.wait_for("# OpenAI's own (client)")
        yield dev


def _shell(command: str, folder: Path | None = None, *, check: bool = True) -> str:
    """What a printed command prints."""
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, timeout=30, check=check, cwd=folder
    )
    return done.stdout.decode(errors="replace")


def _chunks(answer: str) -> list[Any]:
    events = [line.removeprefix("data: ") for line in answer.splitlines() if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def test_it_says_what_it_is(running: Dev) -> None:
    assert "stand-in for Kong" in running.text
    assert "it is not Kong" in running.text
    assert "the bundled stand-in provider" in running.text


def test_the_chat_line_works(running: Dev) -> None:
    answer = json.loads(_shell(running.command("chat")))
    assert "Hello" in answer["choices"][0]["message"]["content"]


def test_the_streamed_chat_line_works(running: Dev) -> None:
    chunks = _chunks(_shell(running.command("chat, streamed")))
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert "Count to five" in text


def test_the_tools_line_works(running: Dev) -> None:
    answer = json.loads(_shell(running.command("tools")))
    function = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert function["name"] == "get_weather"
    assert json.loads(function["arguments"]) == {"city": "Paris"}


def test_the_completions_line_works(running: Dev) -> None:
    answer = json.loads(_shell(running.command("completions")))
    assert "Once upon a time" in answer["choices"][0]["text"]


def test_the_embeddings_line_works(running: Dev) -> None:
    answer = json.loads(_shell(running.command("embeddings")))
    assert len(answer["data"][0]["embedding"]) == 1536


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("responses", '"object":"response"'),
        ("files", '"object":"file"'),
        ("batches", '"object":"list"'),
        ("assistants", '"object":"assistant"'),
        ("videos", '"object":"video"'),
    ],
)
def test_the_line_of_each_other_capability_works(running: Dev, what: str, words: str) -> None:
    assert words in _shell(running.command(what))


def test_what_was_spoken_is_heard(running: Dev, tmp_path: Path) -> None:
    _shell(running.command("speech"), tmp_path)
    assert (tmp_path / "speech.wav").read_bytes().startswith(b"RIFF")
    for what in ("transcriptions", "translations"):
        assert "seconds of audio" in _shell(running.command(what), tmp_path)


def test_what_was_drawn_is_edited(running: Dev, tmp_path: Path) -> None:
    _shell(running.command("image generations"), tmp_path)
    assert (tmp_path / "house.png").read_bytes().startswith(b"\x89PNG")
    assert '"output_format":"png"' in _shell(running.command("image edits"), tmp_path)


def test_the_realtime_line_begins_a_session(running: Dev) -> None:
    said = _shell(running.command("realtime"), check=False)  # curl is told to stop listening
    assert '"type":"session.created"' in said


def test_the_python_line_works(running: Dev) -> None:
    assert "stand-in provider" in _shell(running.command("OpenAI's own client"))


def test_the_admin_api_is_there(running: Dev) -> None:
    admin = running.wait_for(r"Admin API +(http://\S+)\n")
    plugins = httpx.get(f"{admin}/plugins", verify=False, timeout=_SECONDS).json()["data"]
    names = [plugin["name"] for plugin in plugins]
    assert sorted(names) == ["ai-proxy"] * 13 + ["ai-proxy-advanced"]  # which has realtime


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kap-dev-") as name:
        yield Path(name)


def _end(dev: Dev, number: signal.Signals) -> None:
    """Signal it as a terminal does, and make sure that nothing of it is left."""
    os.killpg(dev.process.pid, number)
    assert dev.process.wait(timeout=20) == 0
    assert dev.processes() == []
    assert list(dev.folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    with _dev(folder) as dev:
        url = dev.url
        dev.wait_for("# OpenAI's own (client)")
        assert dev.processes()
        _end(dev, number)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, verify=False, timeout=_SECONDS)
    assert "Traceback" not in dev.text


def test_ctrl_c_ends_a_stream_under_way(folder: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "n": 99}
    with (
        _dev(folder) as dev,
        httpx.stream(
            "POST",
            f"{dev.url}/v1/chat/completions",
            json=body,
            verify=False,
            timeout=_SECONDS,
        ) as answer,
    ):
        assert next(answer.iter_lines()).startswith("data: ")
        _end(dev, signal.SIGINT)
    assert "Traceback" not in dev.text


def test_ctrl_c_while_it_starts_leaves_nothing(folder: Path) -> None:
    with _dev(folder) as dev:
        deadline = time.monotonic() + _SECONDS
        while not dev.processes() and time.monotonic() < deadline:
            time.sleep(0.01)
        _end(dev, signal.SIGINT)
    assert "Traceback" not in dev.text


def test_it_ends_when_nobody_reads_what_it_says(folder: Path) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        [*_DEV, "--port", "0"],
        env=_environment(folder),
        stdout=writer,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        os.close(writer)
        with os.fdopen(reader) as output:
            assert any("own client" in line for line in output)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) is not None
    assert list(folder.iterdir()) == []


def test_a_taken_port_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _refused(folder, "--port", str(port))
    assert f"port {port} (for the gateway) is taken" in done
    assert "--port N" in done


def _refused(folder: Path, *arguments: str, status: int = 1, **env: str) -> str:
    """What it says on stderr when it does not start."""
    env = _environment(folder, **env)
    done = subprocess.run([*_DEV, *arguments], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--upstream", "ftp://x"], "--upstream 'ftp://x' is not an http or https URL"),
        (["--config", "/nowhere.yaml"], "--config /nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_option_is_explained(folder: Path, arguments: list[str], words: str) -> None:
    assert words in _refused(folder, "--port", "0", *arguments)


@pytest.mark.parametrize(
    "arguments", [["--port", "x"], ["--port", "65535"], ["--config", "a", "--upstream", "b"]]
)
def test_options_that_make_no_sense_are_refused(folder: Path, arguments: list[str]) -> None:
    assert "usage: kong-ai-proxy dev" in _refused(folder, *arguments, status=2)


def test_a_file_that_is_not_valid_is_refused_with_its_line(folder: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("_format_version: '3.0'\nservices:\n- name: s\n  url: http://ai.invalid\n")
        file.write("  plugins:\n  - name: ai-proxy\n    config: {route_type: chat}\n")
        file.flush()
        said = _refused(folder, "--port", "0", "--config", file.name)
    assert "the decK file is not valid" in said
    assert "route_type: expected one of" in said


def test_without_protobuf_it_names_the_extra(folder: Path) -> None:
    hide = "import sys; sys.modules['google.protobuf'] = sys.modules['google'] = None; "
    run = "from kong_ai_proxy.gateway.dev import main; sys.exit(main(['--port', '0']))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", hide + run],
        env=_environment(folder),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "pip install 'kong-ai-proxy[standin]'" in done.stderr


async def test_upstream_is_asked_for_its_models_and_gets_the_key(folder: Path) -> None:
    provider = await Provider.start(api_key="sk-own")
    try:
        with _dev(folder, "--upstream", provider.url, OPENAI_API_KEY="sk-own") as dev:
            command = await asyncio.to_thread(dev.command, "embeddings")
            answer = json.loads(await asyncio.to_thread(_shell, command))
            assert provider.url in dev.text
    finally:
        await provider.stop()
    assert answer["model"] == "text-embedding-3-small"
    assert [seen.path for seen in provider.seen] == ["/v1/models", "/v1/embeddings"]
    assert {seen.headers["Authorization"] for seen in provider.seen} == {"Bearer sk-own"}


def test_an_upstream_that_does_not_answer_is_a_warning(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with _dev(folder, "--upstream", f"http://127.0.0.1:{port}") as dev:
        said = dev.wait_for(r"(Warning: .*)\n")
    assert f"http://127.0.0.1:{port}/v1 does not answer" in said


def test_config_runs_a_file_unchanged(folder: Path) -> None:
    example = str(resources.path("examples", "templating.yaml"))
    with _dev(folder, "--config", example, OPENAI_API_KEY="sk-own") as dev:
        assert f"as {example} says" in dev.wait_for(r"(upstream .*)\n")
        dev.wait_for("# (model-in-header: POST /chat)\n")
        body: dict[str, Any] = {"messages": []}
        answer = httpx.post(f"{dev.url}/chat", json=body, verify=False, timeout=20)
    assert answer.status_code == 400  # the header that names the model is missing


def test_options_of_serve_are_tried_by_their_variables(folder: Path) -> None:
    said = _refused(folder, "--port", "0", KONG_AI_PROXY_TIME_BUDGET="soon")
    assert "KONG_AI_PROXY_TIME_BUDGET: expected a number of seconds" in said


def test_config_needs_the_variables_of_the_file_all_at_once(folder: Path) -> None:
    example = str(resources.path("examples", "bedrock.yaml"))
    said = _refused(folder, "--port", "0", "--config", example)
    names = "DECK_AWS_ACCESS_KEY_ID, DECK_AWS_SECRET_ACCESS_KEY, DECK_BEDROCK_API_KEY"
    assert f"set {names} in the environment, with or without DECK_" in said
    assert "or `upstream_url` below model.options for a server of your own" in said


def test_config_takes_a_providers_own_variable_and_says_what_to_try(folder: Path) -> None:
    example = str(resources.path("examples", "gemini.yaml"))
    with _dev(folder, "--config", example, GEMINI_API_KEY="key") as dev:
        command = dev.wait_for("# gemini-image-generations: .*\n(curl .+)\n")
        assert command.startswith(f"curl {dev.url}/gemini/v1/images/generations ")
        dev.wait_for("# (gemini-batches: GET\\|POST /gemini/v1/batches)\n")
