"""aiohttp, requests, httpx and OpenAI's client."""

import asyncio
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httpx
import numpy as np
import pytest
import requests

from tests.clients.asking import BIG, PATH, PHOTO, Seen, data_uri, expected
from tests.service.running import PATIENCE_S, Running

if TYPE_CHECKING:
    from openai import OpenAI

MEBIBYTE = 2**20


def pieces(data: bytes) -> Iterator[bytes]:
    """For a body whose length the client does not know."""
    yield from (data[start : start + MEBIBYTE] for start in range(0, len(data), MEBIBYTE))


def over_requests(url: str) -> list[bytes]:
    with requests.Session() as session:
        session.trust_env = False

        def post(**given: Any) -> bytes:
            answer = session.post(url, timeout=PATIENCE_S, **given)
            answer.raise_for_status()
            return answer.content

        return [
            post(data=PHOTO, headers={"Content-Type": "image/jpeg"}),
            post(files={"image": ("a.jpg", PHOTO, "image/jpeg")}),
            post(json={"images": [data_uri(PHOTO)]}),
            post(data=BIG, headers={"Content-Type": "image/bmp"}),
            post(files={"image": ("a.bmp", BIG, "image/bmp")}),
            post(data=pieces(BIG), headers={"Content-Type": "image/bmp"}),
        ]


def over_httpx(url: str) -> list[bytes]:
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:

        def post(**given: Any) -> bytes:
            return client.post(url, **given).raise_for_status().content

        return [
            post(content=PHOTO, headers={"Content-Type": "image/jpeg"}),
            post(files={"image": ("a.jpg", PHOTO, "image/jpeg")}),
            post(json={"images": [data_uri(PHOTO)]}),
            post(content=BIG, headers={"Content-Type": "image/bmp"}),
            post(files={"image": ("a.bmp", BIG, "image/bmp")}),
            post(content=pieces(BIG), headers={"Content-Type": "image/bmp"}),
        ]


def over_aiohttp(url: str) -> list[bytes]:
    async def asked() -> list[bytes]:
        async with aiohttp.ClientSession(raise_for_status=True) as session:

            async def post(data: Any = None, **given: Any) -> bytes:
                async with session.post(url, data=data, **given) as answer:
                    return await answer.read()

            return [
                await post(PHOTO, headers={"Content-Type": "image/jpeg"}),
                await post(form(PHOTO, "image/jpeg")),
                await post(json={"images": [data_uri(PHOTO)]}),
                await post(io.BytesIO(BIG), headers={"Content-Type": "image/bmp"}),
                await post(form(BIG, "image/bmp")),
                await post(later(BIG), headers={"Content-Type": "image/bmp"}, expect100=True),
            ]

    def form(image: bytes, kind: str) -> aiohttp.FormData:
        made = aiohttp.FormData()
        # aiohttp warns of a large body in bytes.
        made.add_field("image", io.BytesIO(image), filename="a", content_type=kind)
        return made

    async def later(data: bytes) -> Any:
        for piece in pieces(data):
            yield piece

    return asyncio.run(asked())


@pytest.mark.parametrize("client", [over_requests, over_httpx, over_aiohttp])
def test_a_client_gets_the_same_answer_however_it_sends_an_image(server: Running, seen: Seen, client: Any) -> None:
    photo, big = expected(server, PHOTO), expected(server, BIG)
    seen.connections = 0
    assert client(f"http://127.0.0.1:{server.port}{PATH}") == [photo, photo, photo, big, big, big]
    assert seen.connections == 1
    assert seen.heads[-1]["transfer-encoding"] == "chunked"


@pytest.fixture
def client(server: Running) -> Iterator["OpenAI"]:
    import openai

    http_client = openai.DefaultHttpxClient(trust_env=False)
    url = f"http://127.0.0.1:{server.port}/v1"
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0, http_client=http_client) as made:
        yield made


def test_openais_client_embeds_data_uris_over_one_connection(server: Running, seen: Seen, client: "OpenAI") -> None:

    def numbers(found: Any) -> list[float]:
        return cast(list[float], np.array(found, np.float32).tolist())

    photo, big = (numbers(server.embed(image).json()["data"][0]["embedding"]) for image in (PHOTO, BIG))
    name = client.models.retrieve(client.models.list().data[0].id).id
    seen.connections = 0
    for given in ({}, {"encoding_format": "float"}, {"encoding_format": None, "user": None, "dimensions": None}):
        answer = client.embeddings.create(model=name, input=data_uri(PHOTO), **given)
        assert numbers(answer.data[0].embedding) == photo
    answer = client.embeddings.create(model=name, input=[data_uri(BIG, "image/bmp")])
    assert numbers(answer.data[0].embedding) == big
    assert seen.connections == 0, "the connection of the first request was kept"
