"""The panel "Try": what it shows of pictures is what `/embed` answers for them."""

import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image
from playwright.sync_api import Route, expect

from model.images.formats import heic
from model.images.image_files import SUFFIXES
from model.running.runner import Runner
from service.limits import ModelFacts
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.browser.conftest import Open, address_of
from tests.browser.visit import File
from tests.gemma import save_model
from tests.reference import SMALL, save_fixed
from tests.service.running import Running, serving, until

SIZES = {"photo.jpg": (480, 640), "receipt.jpg": (1500, 500), "icon.jpg": (40, 40)}


def jpeg(name: str, size: tuple[int, int]) -> File:
    return name, "image/jpeg", pictures.save(pictures.picture(*size, seed=len(name)), "JPEG")


THREE = [jpeg(name, size) for name, size in SIZES.items()]


def shown_cost(item: dict[str, Any]) -> str:
    """What a card says of an item of `/embed`."""
    (rows, columns), (height, width), (tall, wide) = item["grid"], item["size"], item["resized"]
    grid = f"{rows} × {columns}"
    if segments := item.get("segments"):
        grid = f"{len(segments)} × {grid}"
    return f"{grid} = {item['tokens']:,} tokens\n{width:,} × {height:,} → {wide:,} × {tall:,}"


def test_the_page_opens_with_our_samples_and_their_grids(visit: Open, server: Running) -> None:
    page = visit(address_of(server)).page
    expect(page.locator(".card")).to_have_count(4)
    expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
    expect(page.locator("#served")).to_contain_text(server.facts.name)


def test_the_grids_that_the_slider_shows_are_those_that_embed_gives(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    opened.drop(THREE)
    expect(opened.page.locator(".card")).to_have_count(3)
    for strategy, budget in (("naflex", 256), ("naflex", 700), ("native", 90), ("square", 333), ("anyres", 1024)):
        opened.page.get_by_role("radio", name=strategy).check(force=True)
        opened.set_budget(budget)
        items = {}
        for name, _, content in THREE:
            items[name] = server.embed(content, max_tokens=budget, strategy=strategy).json()["data"][0]
            expect(opened.card(name).locator(".grid")).to_have_text(shown_cost(items[name]), use_inner_text=True)
        opened.embed()
        for name, item in items.items():
            vector = opened.card(name).locator(".vector")
            expect(vector).to_contain_text(f"as planned: {item['tokens']:,} tokens, {item['grid'][0]} × ")
            first = ", ".join(f"{value:.3f}" for value in item["embedding"][:3])
            expect(vector).to_contain_text(f"[{first}, … {len(item['embedding'])}]")


def test_moving_the_slider_takes_no_time_of_the_device(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    opened.drop(THREE)
    receipt = opened.card("receipt.jpg").locator(".grid")
    expect(receipt).to_contain_text("tokens")
    packs = len(server.runner.packs)
    before = receipt.text_content()
    slider = opened.page.locator("#budget")
    slider.focus()
    for _ in range(5):
        slider.press("PageUp")
    expect(receipt).not_to_have_text(before or "")
    expect(opened.page.locator("#budget-number")).to_have_value(slider.input_value())
    assert len(server.runner.packs) == packs


def test_a_picture_is_upright_and_has_the_upright_grid(visit: Open, server: Running) -> None:
    image = Image.new("RGB", (640, 320), "blue")
    image.paste("red", (0, 0, 320, 320))
    # Turned by a quarter, what was left is above.
    content = pictures.save(image, "JPEG", exif=pictures.exif(6), quality=95)
    opened = visit(address_of(server))
    opened.drop([("turned.jpg", "image/jpeg", content)])
    item = server.embed(content, max_tokens=256).json()["data"][0]
    assert item["size"] == [640, 320]
    expect(opened.card("turned.jpg").locator(".grid")).to_have_text(shown_cost(item), use_inner_text=True)
    canvas = opened.card("turned.jpg").locator("canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile("patches"))
    seen = np.asarray(Image.open(BytesIO(canvas.screenshot())).convert("RGB")).astype(int)
    height, width = seen.shape[:2]
    above, below = seen[: height // 3, width // 4 : -width // 4], seen[-height // 3 :, width // 4 : -width // 4]
    assert np.median(above[..., 0]) > 200 > 60 > np.median(below[..., 0])
    assert np.median(below[..., 2]) > 200 > 60 > np.median(above[..., 2])


def test_strategies_stand_side_by_side_with_what_a_fixed_square_does(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    opened.drop(THREE)
    opened.set_budget(1024)
    opened.card("receipt.jpg").locator(".show").click()
    ways = opened.page.locator(".way")
    expect(opened.page.locator("#compare-title")).to_be_in_viewport()
    expect(ways).to_have_count(6)
    content = {name: content for name, _, content in THREE}["receipt.jpg"]
    for strategy in ("naflex", "native", "square", "anyres"):
        item = server.embed(content, max_tokens=1024, strategy=strategy).json()["data"][0]
        way = ways.filter(has=opened.page.get_by_role("heading", name=strategy, exact=True))
        expect(way.locator(".grid")).to_contain_text(f"{item['tokens']:,} tokens")
        assert way.locator("canvas").evaluate("canvas => canvas.width > 20 && canvas.height > 20")
    expect(ways.filter(has_text="A CLIP of 336 pixels")).to_contain_text("67% of the picture cropped")
    expect(ways.filter(has_text="A SigLIP of 512 pixels")).to_contain_text("squashed 3.0:1")
    # Tiles that do not fit the budget are refused in words.
    opened.set_budget(300)
    refused = ways.filter(has=opened.page.get_by_role("heading", name="anyres", exact=True))
    expect(refused).to_contain_text("The smallest layout")


def test_what_cannot_be_embedded_says_so_in_place_and_harms_no_other(visit: Open, server: Running) -> None:
    heic = BytesIO()
    pillow_heif.from_pillow(pictures.picture(300, 400)).save(heic)
    broken = pictures.save(pictures.picture(200, 300), "JPEG")[:700]
    opened = visit(address_of(server))
    opened.expected += ["Failed to load resource"]
    opened.drop(
        [
            jpeg("good.jpg", (300, 200)),
            ("broken.jpg", "image/jpeg", broken),
            ("notes.txt", "text/plain", b"no picture at all"),
            # Of few bytes, and more pixels than the server decodes.
            ("huge.png", "image/png", pictures.save(Image.new("1", (20_000, 15_000)), "PNG")),
            ("phone.heic", "image/heic", heic.getvalue()),
        ]
    )
    for name in ("notes.txt", "phone.heic"):
        expect(opened.card(name).locator(".fate")).to_contain_text("This browser cannot show the file")
    opened.embed()
    expect(opened.card("good.jpg").locator(".vector")).to_contain_text("as planned")
    expect(opened.card("broken.jpg").locator(".fate")).to_contain_text("Not embedded: ")
    expect(opened.card("notes.txt").locator(".fate")).to_contain_text("Not embedded: ")
    expect(opened.card("huge.png").locator(".fate")).to_contain_text("max_decode_pixels")
    # The server reads what the browser does not: its grid is shown without the picture.
    item = server.embed(heic.getvalue(), max_tokens=256).json()["data"][0]
    expect(opened.card("phone.heic").locator(".grid")).to_have_text(shown_cost(item), use_inner_text=True)
    expect(opened.card("phone.heic").locator(".vector")).to_contain_text("as planned")
    said = opened.page.locator("#said")
    expect(said).to_contain_text("2 pictures embedded. broken.jpg was not: ")
    # A server that is ready and refuses this call alone is asked three times, and its words are shown.
    refusal = {"error": {"code": "unavailable", "message": "the engine begins anew"}}
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=503, headers={"Retry-After": "0.01"}, json=refusal)

    opened.page.route("**/embed?*", refuse)
    opened.set_budget(300)
    opened.embed()
    expect(opened.card("good.jpg").locator(".fate")).to_have_text("Not embedded: the engine begins anew.")
    assert len(asked) == 3 * 5
    opened.page.route("**/embed?*", lambda route: route.fulfill(content_type="text/html", body="<h1>Log in</h1>"))
    opened.embed()
    expect(opened.card("good.jpg").locator(".fate")).to_contain_text("the answer is not the server's")
    # No more than three are read out.
    expect(said).to_contain_text("2 others were not: see their cards in Try.")


def test_a_file_of_more_bytes_than_the_server_takes_says_so_in_place(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    opened.expected += ["Failed to load resource"]
    content = THREE[0][2] + bytes(server.settings.max_upload_bytes)
    # Too large to be dropped through the driver.
    opened.page.evaluate(
        """([length]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(length)], "fat.jpg", { type: "image/jpeg" }));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
        }""",
        [len(content)],
    )
    expect(opened.card("fat.jpg")).to_be_visible()
    opened.embed()
    expect(opened.card("fat.jpg").locator(".fate")).to_contain_text("max_upload_bytes")


def test_the_pictures_of_a_folder_are_taken_and_nothing_else_in_it(
    visit: Open, server: Running, tmp_path: Path
) -> None:
    outer, empty = tmp_path / "outer", tmp_path / "empty"
    (outer / "inner").mkdir(parents=True)
    empty.mkdir()
    for path in (outer / "2.jpg", outer / "10.JPG", outer / "inner" / "deep.jpg", tmp_path / "beside.jpg"):
        path.write_bytes(THREE[0][2])
    (outer / "notes.txt").write_text("no picture")
    # Every suffix that `packlight embed` takes.
    others = [outer / "inner" / f"of_kind_{at}{suffix}" for at, suffix in enumerate((*SUFFIXES, *heic.SUFFIXES))]
    for path in others:
        path.write_bytes(THREE[0][2])
    opened = visit(address_of(server))
    expect(opened.page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
    opened.drop_paths([empty])
    expect(opened.page.locator("#left-out")).to_have_text("There is no picture in what you dropped.")
    expect(opened.page.locator(".card")).to_have_count(4)
    opened.drop_paths([outer, tmp_path / "beside.jpg"])
    named = ["beside.jpg", "2.jpg", "10.JPG", "deep.jpg", *(path.name for path in others)]
    expect(opened.page.locator(".card .name")).to_have_text(named)
    opened.embed()
    expect(opened.page.locator(".vector").filter(has_text="as planned")).to_have_count(len(named))


def test_a_pasted_picture_is_taken_and_a_removed_one_is_gone(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    opened.page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(120, 80);
          canvas.getContext("2d").fillRect(0, 0, 120, 80);
          const transfer = new DataTransfer();
          transfer.items.add(new File([await canvas.convertToBlob()], "pasted.png", { type: "image/png" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
        }"""
    )
    expect(opened.page.locator(".card")).to_have_count(1)
    expect(opened.card("pasted.png").locator(".grid")).to_contain_text("120 × 80 →")
    opened.page.get_by_role("button", name="Remove pasted.png").click()
    expect(opened.page.locator(".card")).to_have_count(0)
    expect(opened.page.locator("#embed")).to_be_disabled()
    opened.page.get_by_role("button", name="Use our samples").click()
    expect(opened.page.locator(".card")).to_have_count(4)


def test_everything_can_be_done_by_keyboard(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    page = opened.page
    expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
    with page.expect_file_chooser():
        page.locator("#choose").focus()
        page.keyboard.press("Enter")
    for wanted in ("samples", "budget", "budget-number"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == wanted
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="native")).to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".vector").filter(has_text="as planned")).to_have_count(4)
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#embed")).to_be_focused()
    removes = page.locator(".remove")
    removes.nth(3).focus()
    page.keyboard.press("Enter")
    expect(removes).to_have_count(3)
    expect(removes.nth(2)).to_be_focused()
    # What was removed comes back with its vector, to where it stood.
    page.locator("#clear").focus()
    for count, button in ((0, "#clear"), (3, "#undo"), (4, "#undo")):
        page.locator(button).focus()
        page.keyboard.press("Enter")
        expect(removes).to_have_count(count)
    expect(page.locator("#clear")).to_be_focused()
    expect(page.locator(".card .name")).to_have_text(["lake.webp", "receipt.webp", "icon.webp", "chart.webp"])
    expect(page.locator(".vector").filter(has_text="as planned")).to_have_count(4)
    page.locator("#tab-try").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    expect(page.locator("#try")).to_be_hidden()
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#packs")).to_be_focused()


def test_more_pictures_than_the_page_holds_are_left_out_in_words(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    content = pictures.save(pictures.picture(20, 20), "PNG")
    opened.drop([(f"{number}.png", "image/png", content) for number in range(203)])
    expect(opened.page.locator(".card")).to_have_count(200)
    left_out = opened.page.locator("#left-out")
    expect(left_out).to_contain_text("3 pictures left out: the page holds 200 at a time")
    opened.page.locator(".remove").first.click()
    expect(opened.page.locator(".card")).to_have_count(199)
    expect(left_out).to_contain_text("the page holds 200 at a time")


def test_a_model_of_one_grid_says_why_there_is_no_budget(
    visit: Open, tmp_path: Path, loaded: tuple[Runner, ModelFacts]
) -> None:
    save_fixed(tmp_path, "clip", SMALL | {"image_size": 64, "patch_size": 16})
    fixed = load_runner(Settings(model=str(tmp_path), devices="cpu", dtype="float32"))
    with serving(fixed) as server:
        opened = visit(address_of(server))
        opened.drop(THREE)
        expect(opened.page.locator("#budget")).to_be_disabled()
        expect(opened.page.locator("#budget-hint")).to_contain_text("one grid")
        for name, _, content in THREE:
            item = server.embed(content).json()["data"][0]
            expect(opened.card(name).locator(".grid")).to_have_text(shown_cost(item), use_inner_text=True)
        opened.embed()
        expect(opened.page.locator(".vector").filter(has_text="as planned")).to_have_count(3)


def test_a_busy_server_is_asked_again_when_it_says(visit: Open, loaded: tuple[Runner, ModelFacts]) -> None:
    with (
        serving(loaded, max_image_tokens=256, max_batch_tokens=256, max_queue_tokens=512) as server,
        ThreadPoolExecutor(8) as others,
    ):
        opened = visit(address_of(server))
        opened.expected += ["Failed to load resource"]
        opened.drop(THREE[:1])
        expect(opened.card("photo.jpg").locator(".grid")).to_contain_text("tokens")
        server.runner.hold()
        waiting = [others.submit(server.embed, THREE[0][2]) for _ in range(8)]
        until(lambda: any(each.done() for each in waiting))
        opened.page.locator("#embed").click()
        expect(opened.card("photo.jpg").locator(".fate")).to_contain_text("busy")
        server.runner.free.set()
        opened.wait_until_embedded()
        expect(opened.card("photo.jpg").locator(".vector")).to_contain_text("as planned")
        assert {each.result().status_code for each in waiting} == {200, 429}


def test_a_model_with_budgets_of_its_own_begins_at_the_least_and_measures_at_each(visit: Open, tmp_path: Path) -> None:
    save_model(tmp_path)
    with serving(load_runner(Settings(model=str(tmp_path), devices="cpu", dtype="float32"))) as server:
        opened = visit(address_of(server))
        page = opened.page
        opened.drop(THREE)
        expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(3)
        slider = page.locator("#budget")
        expect(slider).to_have_attribute("min", "630")
        expect(page.locator("#budget-hint")).to_contain_text("budgets of 630, 1,260, 2,520 patches")
        slider.focus()
        page.keyboard.press("Home")
        page.locator("#budget-number").fill("5")
        for name, _, content in THREE:
            item = server.embed(content, max_tokens=630).json()["data"][0]
            expect(opened.card(name).locator(".grid")).to_have_text(shown_cost(item), use_inner_text=True)
        opened.embed()
        expect(page.locator(".vector").filter(has_text="as planned")).to_have_count(3)
        page.get_by_role("tab", name="Near").click()
        page.locator("#near-drift-run").click()
        expect(page.locator("#near-drift-rows tr")).to_have_count(3)
        expect(page.locator("#near-drift-rows")).not_to_contain_text("trained")
        expect(page.locator("#near-labels-form")).to_be_hidden()
        expect(page.locator("#near-search")).to_be_visible()
