"""The page and its server: with a key, behind a prefix, and while the server is away."""

import pytest
from playwright.sync_api import expect

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.browser.conftest import Open, address_of, alone
from tests.browser.proxy import proxied
from tests.service.running import Running, serving

PICTURE = ("photo.png", "image/png", pictures.save(pictures.picture(300, 400), "PNG"))


def test_a_key_is_asked_for_in_place_and_kept_for_the_tab_alone(visit: Open, loaded: tuple[Runner, ModelFacts]) -> None:
    with serving(loaded, api_keys="the-key") as server:
        opened = visit(address_of(server))
        opened.expected += ["401"]
        page = opened.page
        field, said = page.get_by_label("This server asks for a key."), page.locator("#key-said")
        for wrong in ("another-key", "kéy with spaces"):
            field.fill(wrong)
            page.get_by_role("button", name="Use this key").click()
            expect(said).to_have_text("The server does not take this key.")
            page.evaluate("document.getElementById('key-said').textContent = ''")
        field.fill("the-key")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#key")).to_be_hidden()
        expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
        opened.drop([PICTURE])
        opened.embed()
        expect(page.locator(".vector")).to_contain_text("as planned")
        # The tab still knows it, and nothing else does.
        page.reload()
        expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
        expect(page.locator("#key")).to_be_hidden()
        assert page.evaluate("localStorage.length") == 0
        assert page.evaluate("document.cookie") == ""
        assert not [url for url in opened.asked if "the-key" in url]
        other = page.context.new_page()
        other.goto(opened.address)
        expect(other.locator("#key")).to_be_visible()


def test_a_key_that_the_server_takes_no_more_is_asked_for_again(visit: Open, loaded: tuple[Runner, ModelFacts]) -> None:
    with serving(loaded, api_keys="the-key") as server:
        opened = visit(address_of(server), init="sessionStorage.setItem('packlight.key', 'an-old-key');")
        opened.expected += ["401"]
        expect(opened.page.locator("#key-said")).to_contain_text("does not take the key that this tab had")


def test_the_page_works_behind_a_path_prefix(visit: Open, server: Running) -> None:
    with proxied(server.port, "/images/packlight") as port:
        address = f"http://127.0.0.1:{port}/images/packlight/"
        opened = visit(address)
        expect(opened.page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
        opened.drop([PICTURE])
        opened.embed()
        expect(opened.page.locator(".vector")).to_contain_text("as planned")
        opened.page.get_by_role("tab", name="Take it along").click()
        expect(opened.page.get_by_role("region", name="curl code")).to_contain_text(f"{address}embed")
        assert not [url for url in opened.asked if not url.startswith((address, "blob:"))]


def test_a_page_of_which_a_file_does_not_come_says_so(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    opened.expected += ["ERR_FAILED"]
    opened.page.route("**/pages/words.js", lambda route: route.abort())
    opened.page.reload()
    expect(opened.page.locator("#away")).to_contain_text("Load the page again")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_server_that_goes_away_and_comes_back(visit: Open, loaded: tuple[Runner, ModelFacts], how: str) -> None:
    with alone() as first:
        opened = visit(f"http://127.0.0.1:{first.port}/")
        opened.expected += ["Failed to load resource"]
        opened.drop([PICTURE])
        grid = opened.card("photo.png").locator(".grid")
        expect(grid).to_contain_text("14 × 18 = 252 tokens")
        if how == "stopped":
            first.end()
    opened.set_budget(576)
    away = opened.page.locator("#away")
    expect(away).to_contain_text("does not answer")
    # What was asked for meanwhile waits.
    opened.page.locator("#embed").click()
    with serving(loaded, port=first.port):
        expect(away).to_be_hidden()
        expect(grid).to_contain_text("21 × 27 = 567 tokens")
        opened.wait_until_embedded()
        expect(opened.card("photo.png").locator(".vector")).to_contain_text("as planned: 567 tokens")


def test_the_documentation_is_drawn_without_the_internet(visit: Open, server: Running) -> None:
    page = visit(address_of(server) + "docs").page
    expect(page.get_by_role("heading", name="Packlight").first).to_be_visible()
    expect(page.get_by_text("Embed images and texts", exact=True)).to_be_visible()


def test_the_documentation_of_a_server_with_keys_asks_for_one_and_sends_it(
    visit: Open, loaded: tuple[Runner, ModelFacts]
) -> None:
    with serving(loaded, api_keys="the-key") as server:
        opened = visit(address_of(server) + "docs")
        opened.expected += ["401"]
        page = opened.page
        info = page.locator("#operations-default-info_info_get")
        info.locator(".opblock-summary-control").click()
        info.get_by_role("button", name="Try it out").click()
        info.get_by_role("button", name="Execute").click()
        status = info.locator(".live-responses-table .response-col_status").last
        expect(status).to_contain_text("401")
        page.get_by_role("button", name="Authorize", exact=True).first.click()
        window = page.locator(".auth-container").filter(has_text="bearer")
        window.locator("input").fill("the-key")
        window.get_by_role("button", name="Apply credentials").click()
        page.locator(".close-modal").click()
        info.get_by_role("button", name="Execute").click()
        expect(status).to_contain_text("200")
