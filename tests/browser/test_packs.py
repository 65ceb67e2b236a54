"""The panel "Packs": what it draws is what the server ran, and it listens only while it is seen."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from model.running.runner import Runner
from service.limits import ModelFacts
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.browser.conftest import Open, address_of, alone
from tests.browser.test_many import traced
from tests.browser.visit import File, Visit
from tests.service.running import PATIENCE_S, Running, serving, until
from tests.text_models import save_whole

Loaded = tuple[Runner, ModelFacts]

LONGEST_TASK_MS = 50.0
MOST_SHOWN = 40
SIZES = {"photo.png": (300, 400), "receipt.png": (700, 120), "icon.png": (60, 60)}


def png(height: int, width: int) -> bytes:
    return pictures.save(pictures.picture(height, width), "PNG")


FILES: list[File] = [(name, "image/png", png(*size)) for name, size in SIZES.items()]


@contextmanager
def one_pack(server: Running, *, images: int) -> Iterator[None]:
    """What is sent in the block runs in one pack, once `images` of them are there."""
    server.runner.hold()
    with ThreadPoolExecutor(1) as other:
        first = other.submit(server.embed, png(16, 16), max_tokens=4)
        assert server.runner.entered.wait(PATIENCE_S)
        try:
            yield
            try:
                until(lambda: server.metric("queue_images") == images)
            except AssertionError as error:
                queued, refused = (
                    server.metric("queue_images"),
                    server.metric("requests_total", route="/embed", status="429"),
                )
                raise AssertionError(f"{queued} of {images} images are queued, {refused} were refused") from error
        finally:
            server.runner.free.set()
        assert first.result().status_code == 200


def open_packs(opened: Visit) -> None:
    opened.page.get_by_role("tab", name="Packs").click()


def drop_native(opened: Visit, files: Sequence[File]) -> None:
    """Pictures that keep their own sizes, which differ."""
    opened.drop(files)
    opened.page.get_by_role("radio", name="native").check(force=True)
    opened.set_budget(512)
    expect(opened.page.locator(".card .grid").filter(has_text="tokens")).to_have_count(len(files))


def widths_by_tokens(parts: Locator) -> list[tuple[int, float]]:
    """Tokens and CSS pixels of each."""
    found = parts.evaluate_all("(all) => all.map((each) => [+each.dataset.tokens, each.getBoundingClientRect().width])")
    return [(tokens, width) for tokens, width in found]


def listeners_done(server: Running) -> float:
    return server.metric("requests_total", route="/stats")


def test_pictures_are_drawn_in_the_pack_that_ran_them(visit: Open, server: Running) -> None:
    opened = visit(address_of(server), reduced_motion="reduce")
    page = opened.page
    drop_native(opened, FILES)
    filler_before = server.metric("tokens_total", kind="padding")
    avoided_before = server.metric("padding_avoided_tokens_total", layout="pad_to_longest")
    with one_pack(server, images=3):
        page.locator("#embed").click()
    opened.wait_until_embedded()
    until(server.is_empty)
    tokens = [
        server.embed(content, strategy="native", max_tokens=512).json()["data"][0]["tokens"] for *_, content in FILES
    ]
    computed = server.runner.computed[-1 - len(FILES)]
    padded = max(tokens) * len(tokens)
    open_packs(opened)
    expect(page.locator("#packs-sentence")).to_have_text(
        f"These 3 pictures: {sum(tokens):,} tokens in one pack. Padded to the longest they would have taken {padded:,}."
    )
    # The blocker and the three that were sent again each had packs of their own, and nothing to pad to.
    expect(page.locator("#packs-packed-title")).to_have_text(f"Packed: {computed:,} tokens in 1 pack")
    assert server.metric("padding_avoided_tokens_total", layout="pad_to_longest") - avoided_before == padded - sum(
        tokens
    )
    filler = computed - sum(tokens)
    assert filler > 0
    expect(page.locator("#packs-hint")).to_contain_text(f"{filler} tokens of filler")
    assert server.metric("tokens_total", kind="padding") - filler_before >= filler

    (shelf,) = widths_by_tokens(page.locator(".shelf"))
    assert shelf[0] == computed
    scale = shelf[1] / computed
    slots = widths_by_tokens(page.locator(".shelf .slot"))
    assert sorted(found for found, _ in slots) == sorted(tokens)
    hatched = widths_by_tokens(page.locator(".shelf .empty"))
    assert [found for found, _ in hatched] == [filler]
    rows = widths_by_tokens(page.locator(".row .slot"))
    assert [found for found, _ in rows] == tokens
    padding = widths_by_tokens(page.locator(".row .empty:not(.beyond)"))
    assert [found for found, _ in padding] == [max(tokens) - each for each in tokens if each < max(tokens)]
    beyond = widths_by_tokens(page.locator(".row .beyond"))
    assert [found for found, _ in beyond] == [512 - max(tokens)] * 3
    for count, width in [*slots, *hatched, *rows, *padding, *beyond]:
        assert width == pytest.approx(count * scale, abs=1.5)

    page.locator(".numbers summary").click()
    expect(page.locator("#packs-numbers tr")).to_have_count(4)
    for (name, *_), count in zip(FILES, tokens, strict=True):
        expect(page.locator("#packs-numbers tr").filter(has_text=name)).to_contain_text(f"{count:,}")
    expect(
        page.locator("#packs-list li").filter(has_text=f"3 images · {sum(tokens):,} tokens + {filler} filler")
    ).to_have_count(1)


def test_segments_of_others_in_the_same_pack_are_gray_and_have_no_picture(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    drop_native(opened, FILES[:1])
    with ThreadPoolExecutor(1) as others:
        with one_pack(server, images=3):
            form = others.submit(server.embed_form, [png(100, 90), png(33, 70)], strategy="native")
            until(lambda: server.metric("queue_images") == 2)
            opened.page.locator("#embed").click()
        sent = [item["tokens"] for item in form.result().json()["data"]]
    opened.wait_until_embedded()
    open_packs(opened)
    expect(opened.page.locator("#packs-hint")).to_contain_text("other people's: 2 segments")
    # Two images of one request are decoded side by side, so either may come to the pack first.
    assert sorted(tokens for tokens, _ in widths_by_tokens(opened.page.locator(".shelf .other"))) == sorted(sent)
    expect(opened.page.locator(".shelf .other canvas")).to_have_count(0)
    expect(opened.page.locator(".shelf .colour-0 canvas")).to_have_count(1)


def test_pictures_fly_when_they_may_move(visit: Open, server: Running) -> None:
    for motion, flights in (("reduce", False), ("no-preference", True)):
        opened = visit(address_of(server), reduced_motion=motion)
        drop_native(opened, FILES)
        opened.embed()
        open_packs(opened)
        expect(opened.page.locator("#packs-sentence")).to_contain_text("Padded to the longest")
        if flights:
            opened.page.get_by_role("button", name="Play again").click()
        else:
            expect(opened.page.get_by_role("button", name="Play again")).to_be_hidden()
        assert bool(opened.page.evaluate("document.getAnimations().length")) is flights
        # They come to rest, and then nothing moves.
        until(lambda page=opened.page: not page.evaluate("document.getAnimations().length"))  # type: ignore[misc]


def test_the_server_is_listened_to_only_while_the_panel_is_seen(visit: Open, loaded: Loaded) -> None:
    # A server of its own: the streams of pages that other tests closed may end while this test counts.
    with serving(loaded) as server:
        opened = visit(address_of(server))
        page = opened.page
        expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
        opened.embed()

        def streams() -> int:
            return len([url for url in opened.asked if url.endswith("/stats")])

        assert (streams(), listeners_done(server)) == (0, 0)
        open_packs(opened)
        expect(page.locator("#packs-list li").first).to_be_visible()
        assert (streams(), listeners_done(server)) == (1, 0)
        page.get_by_role("tab", name="Try").click()
        until(lambda: listeners_done(server) == 1)
        open_packs(opened)
        until(lambda: streams() == 2)
        # The window is covered by another, and seen again.
        hide = """(hidden) => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
        page.evaluate(hide, True)
        until(lambda: listeners_done(server) == 2)
        assert streams() == 2
        page.evaluate(hide, False)
        until(lambda: streams() == 3)
        page.get_by_role("tab", name="Take it along").click()
        until(lambda: listeners_done(server) == 3)


def test_without_stats_the_answers_tell_which_pictures_shared_a_pack(visit: Open, loaded: Loaded) -> None:
    with serving(loaded, stats="off") as server:
        opened = visit(address_of(server))
        opened.expected += ["404"]
        drop_native(opened, FILES)
        with one_pack(server, images=3):
            opened.page.locator("#embed").click()
        opened.wait_until_embedded()
        open_packs(opened)
        expect(opened.page.locator("#packs-state")).to_contain_text("stats=off")
        expect(opened.page.locator("#packs-live")).to_be_hidden()
        expect(opened.page.locator("#packs-sentence")).to_contain_text("in one pack. Padded to the longest")
        expect(opened.page.locator("#packs-hint")).to_contain_text("is not known")
        expect(opened.page.locator(".shelf .slot canvas")).not_to_have_count(0)


def test_the_stream_needs_the_key_too(visit: Open, loaded: Loaded) -> None:
    with serving(loaded, api_keys="the-key") as server:
        opened = visit(address_of(server) + "#packs")
        opened.expected += ["Failed to load resource"]
        page = opened.page
        page.get_by_label("This server asks for a key.").fill("the-key")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#packs-state")).to_be_empty()
        expect(page.locator("#packs-figures")).to_contain_text("Padding waste")
        assert not [url for url in opened.asked if "the-key" in url]


def test_one_listener_too_many_is_told_and_asks_again(visit: Open, loaded: Loaded) -> None:
    with serving(loaded, max_connections=40) as server:
        opened = visit(address_of(server))
        opened.expected += ["Failed to load resource"]
        with ExitStack() as stack:
            for _ in range(20):
                answer = stack.enter_context(server.http.stream("GET", "/stats"))
                assert answer.status_code == 200
            open_packs(opened)
            expect(opened.page.locator("#packs-state")).to_contain_text("listeners follow /stats")
        expect(opened.page.locator("#packs-state")).to_be_empty()


def test_the_stream_goes_on_when_the_server_is_back(visit: Open, loaded: Loaded) -> None:
    with alone() as first:
        opened = visit(f"http://127.0.0.1:{first.port}/")
        opened.expected += ["Failed to load resource", "net::ERR"]
        drop_native(opened, FILES[:1])
        opened.embed()
        open_packs(opened)
        expect(opened.page.locator("#packs-list li")).to_have_count(1)
        first.end()
    expect(opened.page.locator("#away")).to_contain_text("does not answer")
    with serving(loaded, port=first.port) as second:
        expect(opened.page.locator("#away")).to_be_empty()
        second.embed(png(64, 64))
        # What ran before stays, and so do the user's own pictures.
        expect(opened.page.locator("#packs-list li")).to_have_count(2)
        expect(opened.page.locator("#packs-sentence")).to_contain_text("in one pack")


def test_under_load_the_panel_stays_small_and_light(visit: Open, server: Running, tmp_path: Path) -> None:
    opened = visit(address_of(server))
    page = opened.page
    drop_native(opened, FILES)
    opened.embed()
    open_packs(opened)
    expect(page.locator("#packs-list li").first).to_be_visible()
    sent = [png(32, 32 + 16 * number) for number in range(8)]
    with traced(page, tmp_path / "trace.json") as tasks_ms:
        for number in range(2 * MOST_SHOWN):
            assert server.embed(sent[number % len(sent)], strategy="native").status_code == 200
        with server.http.stream("GET", "/stats") as answer:
            newest = json.loads(next(answer.iter_lines()))["packs"][-1]["id"]
        expect(page.locator(f"#packs-list li[data-pack='{newest}']")).to_be_visible()
    expect(page.locator("#packs-list li")).to_have_count(MOST_SHOWN)
    expect(page.locator("#packs-said")).to_contain_text("images a second")
    assert len(tasks_ms) > 20
    assert max(tasks_ms) < LONGEST_TASK_MS


def test_texts_have_another_colour_than_images(visit: Open, tmp_path: Path) -> None:
    save_whole(tmp_path, "siglip2")
    with serving(load_runner(Settings(model=str(tmp_path), devices="cpu", dtype="float32"))) as server:
        opened = visit(address_of(server) + "#packs")
        opened.expected += ["Failed to load resource"]
        server.embed_json(texts=["two dogs", "a red bicycle"])
        server.embed(png(64, 64))
        colours = []
        for words in (" text", " image"):
            bar = opened.page.locator("#packs-list li").filter(has_text=words).first.locator("canvas")
            colours.append(bar.evaluate("(canvas) => [...canvas.getContext('2d').getImageData(1, 5, 1, 1).data]"))
        assert colours[0] != colours[1]
        expect(opened.page.locator("#packs-figures")).to_contain_text("Texts a second")


def test_packs_that_the_server_has_forgotten_are_said_to_be_unknown(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    drop_native(opened, FILES)
    opened.embed()
    small = png(16, 16)
    for _ in range(70):
        assert server.embed(small, max_tokens=1).status_code == 200
    open_packs(opened)
    expect(opened.page.locator("#packs-hint")).to_contain_text("is not known")
    expect(opened.page.locator("#packs-sentence")).to_contain_text("Padded to the longest")
    expect(opened.page.locator(".shelf .slot")).to_have_count(3)
