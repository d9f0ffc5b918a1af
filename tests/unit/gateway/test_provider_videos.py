"""Videos of the stand-in provider, through OpenAI's own client and its models."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import video_create_params

from kong_ai_proxy.gateway.provider import mp4, png, videos
from tests.unit.gateway.provider_client import client, plain

# OpenAI's client calls these operations deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


def test_videos_know_every_parameter_of_the_official_client() -> None:
    official = video_create_params.VideoCreateParams.__annotations__
    assert official.keys() == videos.RULES.keys()


async def test_a_video_moves_on_with_each_poll() -> None:
    async with client() as official:
        made = await official.videos.create(prompt="A red house")
        polled = [await official.videos.retrieve(made.id) for _ in range(3)]
    seen = [(video.status, video.progress) for video in (made, *polled)]
    assert seen == [("queued", 0), ("in_progress", 50), ("completed", 100), ("completed", 100)]
    assert (made.model, made.seconds, made.size) == ("sora-2", "4", "720x1280")
    assert made.id.startswith("video_")
    assert polled[1].completed_at is not None


async def _done(official: openai.AsyncOpenAI, **asked: Any) -> openai.types.Video:
    video = await official.videos.create(**{"prompt": "A red house", **asked})
    while video.status != "completed":
        video = await official.videos.retrieve(video.id)
    return video


def _boxes(data: bytes) -> dict[bytes, bytes]:
    found, at = {}, 0
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        assert size >= 8
        found[data[at + 4 : at + 8]] = data[at + 8 : at + size]
        at += size
    assert at == len(data)
    return found


async def test_a_film_and_its_stills_can_be_fetched() -> None:
    async with client() as official:
        video = await _done(official, size="1280x720", seconds="8", model="sora-2-pro")
        film = await official.videos.download_content(video.id)
        still = await official.videos.download_content(video.id, variant="thumbnail")
        sheet = await official.videos.download_content(video.id, variant="spritesheet")
    boxes = _boxes(film.content)
    assert list(boxes) == [b"ftyp", b"moov", b"mdat"]
    assert boxes[b"mdat"].count(png.SIGNATURE) == 8
    assert film.response.headers["content-type"] == "video/mp4"
    assert png.size_of(still.content) == (320, 180)
    assert png.size_of(sheet.content) == (2560, 180)


def test_a_films_pictures_are_where_it_says() -> None:
    pictures = [png.picture(32, 16, "a"), png.picture(32, 16, "b")]
    made = mp4.film(32, 16, pictures)
    at = made.index(b"stco")
    _, count, place = struct.unpack(">III", made[at + 4 : at + 16])
    assert count == 1
    assert made[place:] == b"".join(pictures)


def test_file_knows_a_film(tmp_path: Path) -> None:
    if not Path("/usr/bin/file").exists():
        pytest.skip("no /usr/bin/file here")
    (tmp_path / "film").write_bytes(mp4.film(32, 16, [png.picture(32, 16, "a")]))
    found = subprocess.run(
        ["/usr/bin/file", "-b", tmp_path / "film"], capture_output=True, text=True, check=True
    )
    assert "ISO Media" in found.stdout


async def test_a_video_is_not_there_before_it_is_done() -> None:
    async with client() as official:
        made = await official.videos.create(prompt="x")
        with pytest.raises(openai.NotFoundError, match="not ready"):
            await official.videos.download_content(made.id)
        with pytest.raises(openai.BadRequestError, match="must be completed"):
            await official.videos.remix(made.id, prompt="y")


async def test_a_video_is_remixed() -> None:
    async with client() as official:
        old = await _done(official, seconds="12")
        new = await official.videos.remix(old.id, prompt="A blue house")
    assert new.remixed_from_video_id == old.id
    assert (new.status, new.seconds, new.prompt) == ("queued", "12", "A blue house")


async def test_the_clients_own_poll_loop_works() -> None:
    async with client() as official:
        video = await official.videos.create_and_poll(prompt="x")
    assert video.status == "completed"


async def test_videos_are_listed_and_deleted() -> None:
    async with client() as official:
        made = [(await official.videos.create(prompt=str(n))).id for n in range(3)]
        gone = await official.videos.delete(made[1])
        listed = [video.id async for video in official.videos.list(limit=1)]
        oldest = [video.id async for video in official.videos.list(order="asc")]
        with pytest.raises(openai.NotFoundError):
            await official.videos.retrieve(made[1])
    assert gone.deleted
    assert listed == [made[2], made[0]]
    assert oldest == listed[::-1]


async def test_a_video_may_begin_with_an_image() -> None:
    image = png.picture(720, 1280, "a")
    async with client() as official:
        file = await official.files.create(file=("a.png", image), purpose="vision")
        assert await official.videos.create(prompt="x", input_reference=("a.png", image))
        for reference in ({"file_id": file.id}, {"image_url": "https://x/a.png"}):
            body = {"prompt": "x", "input_reference": reference}  # a form has no place for these
            assert await official.post("/videos", body=body, cast_to=openai.types.Video)


async def test_a_video_may_be_asked_for_in_json() -> None:
    async with plain() as http:
        answer = await http.post("/v1/videos", json={"prompt": "x", "seconds": "8"})
    assert answer.json()["seconds"] == "8"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x" * 32001}, "prompt"),
        ({"seconds": 4}, "seconds"),
        ({"seconds": "5"}, "seconds"),
        ({"size": "1x1"}, "size"),
        ({"input_reference": {}}, "input_reference"),
        ({"input_reference": {"file_id": "a", "image_url": "b"}}, "input_reference"),
        ({"fps": 30}, None),
    ],
)
async def test_wrong_videos(change: dict[str, Any], param: str | None) -> None:
    async with plain() as http:
        answer = await http.post("/v1/videos", json={"prompt": "x", **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("image", [b"no image", png.picture(64, 64, "a")])
async def test_a_wrong_image_is_refused(image: bytes) -> None:
    async with client() as official:
        with pytest.raises(openai.BadRequestError):
            await official.videos.create(prompt="x", input_reference=("a.png", image))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/videos/x"),
        ("GET", "/v1/videos/%2e%2e/content"),
        ("DELETE", "/v1/videos/..%2Fx"),
        ("POST", "/v1/videos/x/remix"),
    ],
)
async def test_unknown_videos_are_not_found(method: str, path: str) -> None:
    async with plain() as http:
        assert (await http.request(method, path)).status_code == 404


async def test_a_wrong_variant_is_refused() -> None:
    async with client() as official:
        video = await _done(official)
        wrong: Any = "audio"
        with pytest.raises(openai.BadRequestError, match="Supported values"):
            await official.videos.download_content(video.id, variant=wrong)
