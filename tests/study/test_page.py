import os
import re
import shutil
from html.parser import HTMLParser

import pytest

from tests.study.fake import ABLATION, config, write_run, write_study
from vitlocal.study.compare import compare

EVIL = "<script>alert(1)</script>&\"'$x$ ${title}"
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_study(
        folder / "study",
        ABLATION,
        lambda condition, components, rng: (0.02 if "mixing" in components else 0.3) + 0.002 * rng.random(),
    )
    runs = folder / "lightning_logs" / f"{EVIL.replace('/', '')}-baseline" / "version_0"
    compare([folder / "study", write_run(runs, config(seed=11))], folder / "out")
    return folder / "out" / "index.html"


class Reader(HTMLParser):
    """Collects what a browser would fetch, what runs, ids, and unclosed elements."""

    VOID = ("meta", "link", "br", "wbr", "img")

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids, self.scripts, self.text = [], [], [], 0, []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[key] for key in ("href", "xlink:href", "src", "srcset") if key in values]
        self.ids += [values["id"]] if "id" in values else []
        self.scripts += tag == "script"
        assert not [key for key in values if key.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def reader(index):
    reader = Reader()
    reader.feed(index.read_text())
    return reader


def test_the_page_is_whole_and_alone(reader):
    assert reader.open == [] and reader.scripts == 1
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert len(set(reader.ids)) == len(reader.ids)
    inside = {link[1:] for link in reader.links if link.startswith("#")}
    assert inside and inside <= set(reader.ids)


def test_clips_and_fills_point_to_what_is_there(index, reader):
    text = index.read_text()
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(reader.ids)
    assert not re.search(r"url\((?!#)|@import", text)


def test_names_from_outside_are_text(reader):
    assert any(EVIL.replace("/", "") in text for text in reader.text)


def test_the_page_says_what_was_found(reader):
    text = " ".join(" ".join(reader.text).split())
    assert text.count("holds") >= 3 and "Effects of the components" in text
    assert text.count("It shows:") == text.count("It doesn't show:") == 7 + 6  # no effects of one run
    assert "python -m vitlocal fit --seed_everything=2" in text


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    given = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not given:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=given, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, index):
    pages = []

    def open_page(**options):
        page = browser.new_page(viewport={"width": 1200, "height": 900}, **options)
        page.fetched, page.errors = [], []
        page.on("request", lambda request: page.fetched.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda message: page.errors.append(message.text))
        page.on("dialog", lambda dialog: page.errors.append("dialog"))
        page.goto(index.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()


def column(page, number, table=0):
    return page.eval_on_selector_all(
        "table", f"tables => [...tables[{table}].tBodies[0].rows].map(row => row.cells[{number}].textContent)"
    )


def test_browser_fetches_nothing_and_reports_no_error(open_page, index):
    page = open_page()
    assert [url for url in page.fetched if not url.startswith("data:")] == [index.as_uri()]
    assert page.errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200


def test_a_button_sorts_up_and_down(open_page):
    page = open_page()
    before = column(page, 2)
    heading = page.locator("table").first.locator("th").nth(2)
    assert heading.get_attribute("aria-sort") is None
    button = heading.get_by_role("button", name="minimum MAD")
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(page, 2) == sorted(before, key=lambda cell: float(cell.split()[0])) != before
    button.focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(page, 2) == sorted(before, key=lambda cell: -float(cell.split()[0]))
    page.locator("table").first.locator("th").nth(0).get_by_role("button").click()
    assert heading.get_attribute("aria-sort") is None
    assert sorted(column(page, 0)) == sorted(ABLATION)  # rows are moved, none is lost


def test_unknown_values_stay_at_the_end(open_page):
    page = open_page()
    number = page.eval_on_selector_all(
        "h3", "all => all.findIndex(h => h.textContent.startsWith('First epoch'))"
    )
    assert number > 0
    table = page.locator("h3", has_text="First epoch below a MAD").first.locator("xpath=following::table[1]")
    button = table.locator("th").nth(2).get_by_role("button")
    for _ in range(2):
        button.click()
        cells = table.locator("tbody tr td:nth-child(3)").all_text_contents()
        known = [not cell.startswith("\N{EN DASH}") for cell in cells]
        assert known == sorted(known, reverse=True) and 0 < sum(known) < len(known)


def test_figures_are_in_the_pages_ink_in_light_and_dark(open_page):
    colours = {}
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        colours[scheme] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('figure svg text')).fill]"
        )
    assert colours["light"] == ["rgb(255, 255, 255)", "rgb(27, 29, 34)"]
    assert colours["dark"] == ["rgb(22, 24, 29)", "rgb(230, 232, 236)"]


def test_everything_is_there_without_javascript(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("table").count() >= 11 and page.locator("th button").count() == 0
    assert page.locator("figure svg").count() == 7 + 6  # as above
    assert page.locator("table tbody tr").first.is_visible()
