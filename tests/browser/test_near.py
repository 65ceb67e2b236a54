"""The panel "Near": its cosines, neighbours, ranks and curve are those of the vectors that `/embed` answers."""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.browser.conftest import Open, address_of, alone
from tests.browser.proxy import proxied
from tests.browser.test_looks import WIDTHS, grave_faults
from tests.browser.test_many import LONGEST_TASK_MS, traced
from tests.browser.visit import File, Visit
from tests.reference import SMALL, save_fixed
from tests.service.running import Running, serving
from tests.text_models import save_whole

ROOT = Path(__file__).parents[2]


def smooth(seed: int, size: tuple[int, int]) -> Image.Image:
    """Few large patches of colour: a crop of it looks much like the whole."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return small.resize((size[1], size[0]), Image.Resampling.BICUBIC)


def png(name: str, image: Image.Image) -> File:
    return name, "image/png", pictures.save(image, "PNG")


def scene() -> list[File]:
    """A picture, a crop of it, and others of other shapes."""
    whole = smooth(1, (400, 600))
    others = [smooth(seed, size) for seed, size in ((2, (300, 300)), (3, (200, 640)), (4, (500, 250)))]
    named = {"whole.png": whole, "crop.png": whole.crop((40, 30, 560, 370))}
    return [
        png(name, image) for name, image in (named | {f"other{i}.png": each for i, each in enumerate(others)}).items()
    ]


def vector(server: Running, content: bytes, **parameters: object) -> NDArray[np.float64]:
    answer = server.embed(content, **parameters)
    assert answer.status_code == 200, answer.text
    return unit(answer.json()["data"][0]["embedding"])


def unit(numbers: list[float]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.array(numbers)
    found /= np.linalg.norm(found)
    return found


def vectors(server: Running, files: list[File], **parameters: object) -> NDArray[np.float64]:
    """`[B, D]`, rows of length 1."""
    return np.stack([vector(server, content, **parameters) for _, _, content in files])


def open_near(opened: Visit, files: list[File]) -> Page:
    """Drops the files, goes to the panel and embeds them there."""
    page = opened.page
    opened.drop(files)
    expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(len(files))
    page.get_by_role("tab", name="Near").click()
    page.locator("#near-embed").click()
    expect(page.locator("#near-state")).to_contain_text(f"{len(files)} of {len(files)} pictures embedded")
    expect(page.locator(".near-point")).to_have_count(len(files))
    return page


def ranking(page: Page, list_id: str) -> list[tuple[str, float]]:
    rows = page.locator(f"#{list_id} li").all()
    return [(row.locator(".near-name").inner_text(), float(row.locator(".near-cosine").inner_text())) for row in rows]


def expected_ranking(
    files: list[File], cosines: NDArray[np.float64], but: int | None = None
) -> list[tuple[str, float]]:
    return [(files[i][0], cosines[i]) for i in np.argsort(-cosines) if i != but]


def assert_ranked(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> None:
    assert [name for name, _ in found] == [name for name, _ in wanted]
    np.testing.assert_allclose([cosine for _, cosine in found], [cosine for _, cosine in wanted], atol=6e-4)


def test_neighbours_are_those_of_the_vectors_that_embed_answers(visit: Open, server: Running) -> None:
    files = scene()
    page = open_near(visit(address_of(server)), files)
    found = vectors(server, files, max_tokens=256)
    cosines = found @ found.T
    for i, (name, _, _) in enumerate(files):
        page.locator(f".near-point[aria-label='{name}']").click()
        expect(page.locator("#near-neighbours").get_by_role("button")).to_have_count(len(files) - 1)
        expect(page.locator(f".near-point[aria-label='{name}']")).to_have_attribute("aria-pressed", "true")
        wanted = expected_ranking(files, cosines[i], but=i)
        expect(page.locator("#near-neighbours .near-name").first).to_have_text(wanted[0][0])
        assert_ranked(ranking(page, "near-neighbours"), wanted)
    # What a user expects, whatever the numbers are.
    page.get_by_role("combobox", name="Nearest neighbours of").select_option("crop.png")
    expect(page.locator("#near-neighbours .near-name").first).to_have_text("whole.png")
    # The list that a choice makes anew keeps the keyboard.
    page.locator("#near-neighbours button").first.press("Enter")
    expect(page.locator("#near-neighbours .near-name").first).to_have_text("crop.png")
    expect(page.locator("#near-neighbours button").first).to_be_focused()


def test_two_panels_that_embed_at_once_send_each_picture_once(visit: Open, server: Running) -> None:
    files = scene()
    opened = visit(address_of(server))
    page = opened.page
    opened.drop(files)
    expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(len(files))
    packs = len(server.runner.packs)
    server.runner.hold()
    try:
        page.get_by_role("tab", name="Near").click()
        page.locator("#near-embed").click()
        page.get_by_role("tab", name="Try").click()
        expect(page.locator(".card:not([data-work=''])")).to_have_count(len(files))
        page.locator("#embed").click()
    finally:
        server.runner.free.set()
    opened.wait_until_embedded()
    expect(page.locator(".vector").filter(has_text="as planned")).to_have_count(len(files))
    tokens = sum(server.embed(content, max_tokens=256).json()["usage"]["tokens"] for _, _, content in files)
    ran = server.runner.packs[packs:]
    assert sum(map(sum, ran)) == 2 * tokens, "once by the page, once by this test"


def test_every_number_of_the_matrix_is_read_by_keyboard(visit: Open, server: Running) -> None:
    files = scene()
    page = open_near(visit(address_of(server)), files)
    found = vectors(server, files, max_tokens=256)
    cosines = found @ found.T
    places = {name: i for i, (name, _, _) in enumerate(files)}
    reading = page.locator("#near-matrix-reading")
    page.locator("#near-matrix-box").focus()
    read = set()
    for row in range(len(files)):
        page.keyboard.press("Home")
        for column in range(len(files)):
            if row != column:
                expect(reading).to_have_text(re.compile(r"^\S+ and \S+: -?\d\.\d{3}$"))
                first, second, number = re.fullmatch(r"(\S+) and (\S+): (\S+)", reading.inner_text()).groups()  # type: ignore[union-attr]
                assert abs(float(number) - cosines[places[first], places[second]]) < 6e-4
                read.add((first, second))
            page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    assert len(read) == len(files) * (len(files) - 1)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    row_name = reading.inner_text().split(" and ")[0]
    page.keyboard.press("Enter")
    expect(page.locator(f".near-point[aria-label='{row_name}']")).to_have_attribute("aria-pressed", "true")
    # The pointer reads the same numbers.
    box = page.locator("#near-matrix-canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] / 2)
    expect(reading).to_contain_text(" and ")


def test_arrow_keys_go_from_picture_to_picture_on_the_map(visit: Open, server: Running) -> None:
    page = open_near(visit(address_of(server)), scene())
    points = page.locator(".near-point")
    assert points.evaluate_all("all => all.filter((each) => each.tabIndex === 0).length") == 1
    page.locator(".near-point[tabindex='0']").focus()
    centre = "(() => { const box = document.activeElement.getBoundingClientRect(); return box.x + box.width / 2; })()"
    reached = {page.evaluate("document.activeElement.ariaLabel")}
    for key, sign in (("ArrowRight", 1), ("ArrowLeft", -1)):
        for _ in range(4):
            before, name = page.evaluate(centre), page.evaluate("document.activeElement.ariaLabel")
            page.keyboard.press(key)
            after = page.evaluate("document.activeElement.ariaLabel")
            reached.add(after)
            assert after == name or (page.evaluate(centre) - before) * sign > 0
    assert len(reached) > 1
    page.keyboard.press("Enter")
    expect(page.locator(".near-point:focus")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize(("count", "width"), [(2, 8), (3, 5), (40, 64), (200, 256)])
def test_the_map_is_the_best_plane_and_always_the_same(visit: Open, server: Running, count: int, width: int) -> None:
    rng = np.random.default_rng(count)
    made = rng.normal(size=(count, width)) * np.linspace(3, 0.2, width) + 0.5
    made = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    page = visit(address_of(server)).page
    # Numbers go both ways as text: the driver takes seconds for long lists.
    script = """async ([vectors, count]) => {
      const { cosinesOf, project } = await import("/pages/near-geometry.js");
      const cosines = cosinesOf(Float32Array.from(JSON.parse(vectors)), count);
      const { points, share } = project(cosines, count);
      return JSON.stringify({ cosines: [...cosines], points: [...points], share });
    }"""
    given = [json.dumps(made.ravel().tolist()), count]
    answer = page.evaluate(script, given)
    found: dict[str, Any] = json.loads(answer)
    wide = made.astype(np.float64)
    cosines = wide @ wide.T
    np.testing.assert_allclose(np.reshape(found["cosines"], (count, count)), cosines, atol=1e-6)
    centred = wide - wide.mean(0)
    strengths = np.linalg.svd(centred, compute_uv=False) ** 2
    best = strengths[:2].sum() / strengths.sum()
    assert found["share"] == pytest.approx(best, abs=1e-3)
    points = np.reshape(found["points"], (count, 2))
    # Distances on the plane are those of a projection: never longer than the vectors'.
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert (apart <= np.linalg.norm(wide[:, None] - wide[None], axis=-1) + 1e-3).all()
    assert points[:, 0].var() >= points[:, 1].var() - 1e-9
    assert page.evaluate(script, given) == answer


def test_pictures_that_are_all_the_same_lie_in_one_place(visit: Open, server: Running) -> None:
    content = pictures.save(smooth(1, (100, 100)), "PNG")
    page = open_near(visit(address_of(server)), [(f"{i}.png", "image/png", content) for i in range(3)])
    expect(page.locator("#near-share")).to_contain_text("100%")
    expect(page.locator("#near-matrix-low")).to_have_text("1.000")


def measured(page: Page) -> list[list[str]]:
    page.locator("#near-drift-run").click()
    expect(page.locator("#near-drift-result")).to_be_visible()
    rows = page.locator("#near-drift-rows tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def test_the_curve_has_the_cosines_of_what_embed_answers_at_each_budget(visit: Open, server: Running) -> None:
    image = pictures.picture(900, 700, seed=3)
    file = png("photo.png", image)
    opened = visit(address_of(server))
    opened.drop([file])
    page = opened.page
    page.get_by_role("tab", name="Near").click()
    rows = measured(page)
    budgets = [int(row[0].replace(",", "")) for row in rows]
    assert budgets == [64, 96, 128, 192, 256, 384, 512, 768, 1024]
    answers = [server.embed(file[2], max_tokens=budget).json()["data"][0] for budget in budgets]
    assert [int(row[1].replace(",", "")) for row in rows] == [item["tokens"] for item in answers]
    found = np.stack([unit(item["embedding"]) for item in answers])
    cosines = found @ found[-1]
    np.testing.assert_allclose([float(row[3]) for row in rows], cosines, atol=6e-5)
    # The sentence names the first budget from which no vector is under 0.99.
    first = max((i + 1 for i, cosine in enumerate(cosines) if cosine < 0.99), default=0)
    sentence = page.locator("#near-drift-sentence")
    if first == 0:
        expect(sentence).to_contain_text(f"Already {answers[0]['tokens']:,} tokens")
    elif first < len(rows) - 1:
        expect(sentence).to_contain_text(f"From {answers[first]['tokens']:,} tokens on")
    else:
        expect(sentence).to_contain_text(f"Below {answers[-1]['tokens']:,} tokens the cosine falls under 0.99")
    # The corners of the curve are in the same places: higher is nearer.
    heights = [float(each.get_attribute("cy") or "") for each in page.locator("#near-drift-curve circle").all()]
    slope, start = np.polyfit(cosines, heights, 1)
    assert slope < 0
    np.testing.assert_allclose(slope * cosines + start, heights, atol=0.05)
    across = [float(each.get_attribute("cx") or "") for each in page.locator("#near-drift-curve circle").all()]
    slope, start = np.polyfit(np.log([item["tokens"] for item in answers]), across, 1)
    np.testing.assert_allclose(slope * np.log([item["tokens"] for item in answers]) + start, across, atol=0.05)
    assert slope > 0


def test_a_picture_that_no_budget_changes_says_so_and_refusals_stand_in_the_table(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    opened.expected += ["Failed to load resource"]
    page = opened.page
    opened.drop([png("icon.png", pictures.picture(64, 64)), png("wide.png", pictures.picture(300, 900))])
    page.get_by_role("radio", name="native").check(force=True)
    page.get_by_role("tab", name="Near").click()
    measured(page)
    expect(page.locator("#near-drift-sentence")).to_contain_text("the same 16 tokens, so the budget changes nothing")
    # Tiles do not fit small budgets.
    page.get_by_role("tab", name="Try").click()
    page.get_by_role("radio", name="anyres").check(force=True)
    page.get_by_role("tab", name="Near").click()
    page.get_by_label("Picture to measure").select_option("wide.png")
    expect(page.locator("#near-drift-result")).to_be_hidden()
    rows = measured(page)
    assert len(rows[0]) == 2
    assert len(rows[-1]) == 5
    assert float(rows[-1][3]) == 1.0


def test_a_model_of_one_grid_has_no_curve(visit: Open, tmp_path: Path) -> None:
    save_fixed(tmp_path, "clip", SMALL | {"image_size": 64, "patch_size": 16})
    with serving(load_runner(Settings(model=str(tmp_path), devices="cpu", dtype="float32"))) as server:
        page = open_near(visit(address_of(server)), scene())
        expect(page.locator("#near-drift-hint")).to_contain_text("one grid")
        expect(page.locator("#near-drift-run")).to_be_hidden()


def test_a_model_without_text_says_so_and_what_to_serve(visit: Open, server: Running) -> None:
    page = visit(address_of(server)).page
    page.get_by_role("tab", name="Near").click()
    said = page.locator("#near-no-text")
    expect(said).to_contain_text("packlight-tiny is served without a text tower and a tokenizer")
    expect(said).to_contain_text("google/siglip2-base-patch16-naflex")
    expect(page.locator("#near-words")).to_be_hidden()
    expect(page.locator("#near-labels-text")).to_be_hidden()


@pytest.fixture(scope="module")
def with_text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("siglip2")
    save_whole(folder, "siglip2")
    with serving(load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))) as server:
        yield server


def test_words_rank_the_pictures_as_their_vectors_do(visit: Open, with_text: Running) -> None:
    files = scene()
    page = open_near(visit(address_of(with_text)), files)
    expect(page.locator("#near-no-text")).to_be_hidden()
    found = vectors(with_text, files, max_tokens=256)
    for words in ("a red bicycle", "two cats"):
        text = unit(with_text.embed_json(texts=[words]).json()["data"][0]["embedding"])
        page.locator("#near-words").fill(words)
        page.locator("#near-words").press("Enter")
        expect(page.locator("#near-search-said")).to_contain_text(f"Nearest to “{words}”")
        assert_ranked(ranking(page, "near-found"), expected_ranking(files, found @ text))
    # Pictures that are embedded anew are ranked anew.
    page.get_by_role("tab", name="Try").click()
    page.locator("#budget").fill("100")
    page.get_by_role("tab", name="Near").click()
    expect(page.locator("#near-found li")).to_have_count(0)
    page.locator("#near-embed").click()
    expect(page.locator("#near-found li")).to_have_count(len(files))
    assert_ranked(
        ranking(page, "near-found"), expected_ranking(files, vectors(with_text, files, max_tokens=100) @ text)
    )


def test_labels_have_the_probabilities_that_classify_answers(visit: Open, with_text: Running) -> None:
    files, labels = scene(), ["a cat", "a red bicycle", "a dog"]
    files[0] = (f"{9 * 'a long name '}.png", *files[0][1:])
    page = open_near(visit(address_of(with_text)), files)
    expect(page.locator("#near-labels-hint")).to_contain_text("its own probability")
    page.locator("#near-labels-text").fill(", ".join([*labels, "a cat", ""]))
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#near-labels-said")).to_have_text(f"{len(files)} of {len(files)} pictures")
    assert page.locator("#near-labels-head th").all_inner_texts() == ["Picture", *labels]
    # However long a name is, the numbers can be seen.
    ends = "part => part.getBoundingClientRect().right"
    table, number = page.locator("#near-labels-table"), page.locator("#near-labels-rows td").first
    assert number.evaluate(ends) <= table.evaluate(ends)
    for row, (name, _, content) in zip(page.locator("#near-labels-rows tr").all(), files, strict=True):
        form = {"labels": labels, "max_tokens": "256"}
        answer = with_text.http.post("/classify", files={"image": (name, BytesIO(content))}, data=form)
        item = answer.json()["data"][0]
        shown = [f"{100 * each:.1f}%" for each in item["probabilities"]]
        assert row.locator("th, td").all_inner_texts() == [name, *shown]
        assert row.locator("strong").all_inner_texts() == [shown[labels.index(item["label"])]]


def test_words_that_the_server_refuses_say_why(visit: Open, with_text: Running) -> None:
    opened = visit(address_of(with_text))
    opened.expected += ["Failed to load resource"]
    page = open_near(opened, scene())
    page.locator("#near-words").fill("long " * 20_000)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#near-search-said")).to_contain_text("max_text_chars")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_whole_panel_can_be_read_by_all_and_fits_its_width(
    visit: Open, with_text: Running, width: int, scheme: str
) -> None:
    opened = visit(
        address_of(with_text), viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme,
        reduced_motion="reduce",
    )  # fmt: skip
    page = open_near(opened, [*scene(), ("notes.heic", "image/heic", scene()[0][2])])
    page.locator("#near-words").fill("a red bicycle")
    page.locator("#near-words").press("Enter")
    page.locator("#near-labels-text").fill("a cat, a red bicycle, a dog, an old map of a harbour")
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#near-found li")).to_have_count(6)
    expect(page.locator("#near-labels-stop")).to_be_hidden()
    measured(page)
    page.locator("#near-matrix-box").focus()
    page.keyboard.press("ArrowRight")
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=ROOT / f"build/browser/near-text-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not grave_faults(opened)


def test_a_hundred_pictures_leave_the_page_responsive(visit: Open, server: Running, tmp_path: Path) -> None:
    opened = visit(address_of(server))
    page = opened.page
    files = [png(f"{i}.png", smooth(i, (60 + i, 160 - i))) for i in range(100)]
    opened.set_budget(64)
    with traced(page, tmp_path / "trace.json") as tasks_ms:
        open_near(opened, files)
        for _ in range(5):
            page.locator("#near-matrix-box").press("ArrowRight")
        page.locator("#near-matrix-box").press("Enter")
        expect(page.locator("#near-neighbours li")).to_have_count(6)
    assert len(tasks_ms) > 100
    assert max(tasks_ms) < LONGEST_TASK_MS


def test_it_works_with_a_key_and_behind_a_prefix(visit: Open, loaded: Any) -> None:
    with (
        serving(loaded, api_keys="the-key") as server,
        proxied(server.port, "/images") as port,
    ):
        opened = visit(f"http://127.0.0.1:{port}/images/", init="sessionStorage.setItem('packlight.key', 'the-key');")
        page = open_near(opened, scene())
        measured(page)
        expect(page.locator("#near-drift-sentence")).not_to_be_empty()
        assert not [url for url in opened.asked if not url.startswith((opened.address, "blob:"))]


def test_a_curve_waits_for_a_server_that_is_away_and_vectors_of_another_model_are_forgotten(visit: Open) -> None:
    files = scene()
    with alone() as first:
        opened = visit(f"http://127.0.0.1:{first.port}/")
        opened.expected += ["Failed to load resource"]
        page = open_near(opened, files)
    page.locator("#near-drift-run").click()
    expect(page.locator("#away")).to_contain_text("does not answer")
    # Other numbers make other vectors.
    with serving(load_runner(Settings(devices="cpu", dtype="bfloat16")), port=first.port):
        expect(page.locator("#near-drift-result")).to_be_visible()
        expect(page.locator("#away")).to_be_hidden()
        expect(page.locator("#near-state")).to_contain_text(f"0 of {len(files)} pictures embedded")
        expect(page.locator("#near-similar")).to_be_hidden()
        page.locator("#near-embed").click()
        expect(page.locator("#near-neighbours li")).to_have_count(len(files) - 1)
