"""`layout=padded` where the engine is a process of its own: the layout crosses over, and padding is counted there."""

from tests import pictures
from tests.process.server import running

IMAGES = [pictures.save(pictures.picture(height, width), "PNG") for height, width in ((160, 160), (32, 32), (32, 48))]


def test_padding_is_computed_and_counted_by_an_engine_process() -> None:
    files = [("image", ("x.png", image, "image/png")) for image in IMAGES]
    # Full with the third image, as a fourth would make it 400 tokens: it waits for no time to pass.
    with running("--layout", "padded", "--max-wait-ms", "15000", "--max-batch-tokens", "399") as server:
        assert server.http.get("/info").json()["model"]["layout"] == "padded"
        answer = server.http.post("/embed", files=files, data={"strategy": "native"})
        assert [image["tokens"] for image in answer.json()["data"]] == [100, 4, 6]
        assert server.metric('tokens_total{kind="image"}') == 110
        # Together they are 300 tokens, which a CPU fills up to 304 rows.
        assert server.metric("pack_images_sum") == 3 * server.metric("pack_images_count")
        assert server.metric('tokens_total{kind="padding"}') == 304 - 110
