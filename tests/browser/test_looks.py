"""How the page looks and reads: at two widths, in both colour schemes. Screenshots go to `build/browser`."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Open, address_of
from tests.browser.visit import Visit
from tests.service.running import Running, until

ROOT = Path(__file__).parents[2]
AXE = ROOT / "build/browser/node_modules/axe-core/axe.min.js"
WIDTHS = {1440: 1000, 390: 844}


def grave_faults(opened: Visit) -> list[str]:
    """What axe finds that is serious or critical."""
    # By the driver, which the page's policy does not bind.
    opened.page.evaluate(AXE.read_text(encoding="utf-8"))
    violations = opened.page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def draw_everything(opened: Visit) -> None:
    """Scrolls to every card: what cannot be seen is not drawn."""
    for card in opened.page.locator(".card:visible").all():
        card.scroll_into_view_if_needed()
    opened.page.evaluate("scrollTo(0, 0)")


def test_a_request_to_another_server_is_forbidden_and_seen(browser: Browser, server: Running) -> None:
    opened = Visit.of(browser, address_of(server))
    opened.page.evaluate("fetch('http://packlight.test/').catch(() => null)")
    until(lambda: opened.page.evaluate("watched.violations.length"))
    with pytest.raises(AssertionError, match=r"connect-src: http://packlight\.test"):
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_panel_can_be_read_by_all_and_fits_its_width(
    visit: Open, server: Running, width: int, scheme: str
) -> None:
    opened = visit(
        address_of(server), viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme,
        reduced_motion="reduce",
    )  # fmt: skip
    opened.expected += ["Failed to load resource"]
    page = opened.page
    expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
    opened.set_budget(800)
    opened.embed()
    expect(page.locator(".vector").filter(has_text="as planned")).to_have_count(4)
    for tab in page.get_by_role("tab").all():
        tab.click()
        panel = tab.get_attribute("aria-controls")
        draw_everything(opened)
        page.screenshot(path=ROOT / f"build/browser/{panel}-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), panel
        assert not grave_faults(opened), panel


def test_a_failure_a_notice_and_the_key_can_be_read_too(visit: Open, server: Running) -> None:
    opened = visit(address_of(server))
    opened.expected += ["Failed to load resource"]
    page = opened.page
    opened.drop([("notes.txt", "text/plain", b"no picture")])
    opened.embed()
    expect(page.locator(".fate")).to_contain_text("Not embedded")
    # Pictures that nobody has scrolled to have names too.
    page.set_viewport_size({"width": 320, "height": 300})
    page.get_by_role("button", name="Use our samples").click()
    expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
    page.evaluate(
        """() => {
          document.getElementById("away").textContent = "The server does not answer.";
          document.getElementById("key").hidden = false;
          document.getElementById("key-said").textContent = "The server does not take this key.";
        }"""
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=ROOT / f"build/browser/notices-{scheme}.png", full_page=True)
        assert not grave_faults(opened)


def test_the_tab_remembers_the_colours_that_were_chosen(visit: Open, server: Running) -> None:
    page = visit(address_of(server), color_scheme="light").page
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark colours").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Light colours").click()
    assert page.evaluate(ground) == light
    # The choice beats the system, in both directions.
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == light
    # Paper is light, and has no button that nobody can press.
    page.get_by_role("button", name="Dark colours").click()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    expect(page.locator("#embed")).to_be_hidden()
