"""The page in a browser: Chromium of the system, or of CHROMIUM."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from leo_lightning import __main__ as program
from tests.commands.report.run_folders import draw, make_run, write_csv

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium"),
]

VALIDATED = [0.50123, 0.61234, 0.71987, 0.69876]
LOSSES = [1.5, 0.87654321, 0.0001234567, 3.0]
HOSTILE = "<img src=x onerror=\"document.title='HACKED'\">"
SIZES = """() => [...document.querySelectorAll('body *')].filter(each => each.checkVisibility()
    && [...each.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
    .map(each => [parseFloat(getComputedStyle(each).fontSize), each.textContent.slice(0, 40)])"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all; a sandbox is refused to root."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs, one of them unfinished, with pictures and a name that means mischief."""
    root = tmp_path_factory.mktemp("runs")
    logged = {"train/loss": LOSSES, "train/accuracy": VALIDATED}
    names = ["first", f"second {HOSTILE} with a name that does not end as soon as one would like it to"]
    made = [
        make_run(root / names[0], VALIDATED, logged=logged, max_steps=80, tasks=[0.5, 0.75, 1.0]),
        make_run(root / names[1], VALIDATED[:3], logged=logged, kl_weight=0.1),
    ]
    for run in made:
        draw(run, "codes", [500, 1000, 1500])
        (run / "pictures" / "hardest_tasks").mkdir()
        table = [{"task": i, **{f"class_{n}": f"class number {n}" for n in range(9)}} for i in range(3)]
        write_csv(run / "pictures" / "hardest_tasks" / "step-00000500.csv", table)
    return made


@pytest.fixture(scope="module")
def reports(runs: list[Path]) -> tuple[Path, Path]:
    """A page of one run, and one of two."""
    assert program.run("report", [str(runs[0])]) == 0
    assert program.run("report", [*map(str, runs)]) == 0
    return runs[0] / "report.html", runs[0].parent / "report.html"


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[Path, int], Page]]:
    """Open a page at a width; at the end it has logged nothing, asked for nothing, and was not tricked."""
    noticed: list[str] = []
    asked: list[str] = []
    opened: list[Page] = []

    def visit(path: Path, width: int = 1280) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900})
        page = context.new_page()
        page.on("console", lambda message: noticed.append(message.text))
        page.on("pageerror", lambda error: noticed.append(str(error)))
        page.on("dialog", lambda dialog: noticed.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        opened.append(page)
        page.goto(path.as_uri())
        page.wait_for_selector(".plot .main-svg")
        return page

    try:
        yield visit
        assert not noticed
        assert [url for url in asked if not url.startswith("data:")] == [page.url for page in opened]
        assert "HACKED" not in [page.title() for page in opened]
    finally:
        for page in opened:
            page.context.close()


def hover(page: Page, name: str, share: float) -> list[str]:
    """The labels shown when the pointer is over a chart, at a share of its width."""
    chart = page.locator("figure.chart", has=page.get_by_text(name, exact=True)).locator(".nsewdrag")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    page.wait_for_selector(".hoverlayer .legend text")
    return page.locator(".hoverlayer text").all_text_contents()


def test_a_run_is_shown(visit: Callable[..., Page], reports: tuple[Path, Path]):
    """Catches a page that does not render, or lacks its outcome."""
    page = visit(reports[0])
    assert page.title() == "first · report"
    assert page.locator("h1").inner_text() == "first"
    assert page.locator(".score").inner_text() == "75.00 % ± 1.23"
    assert page.locator(".plot .main-svg").count() >= 4
    assert page.locator("html").get_attribute("lang") == "en"


def test_the_pointer_reads_the_log(visit: Callable[..., Page], reports: tuple[Path, Path]):
    """Catches a label with another value, or another step, than metrics.csv."""
    page = visit(reports[0])
    assert hover(page, "val/accuracy", 0.99) == ["step 80", "69.88% ± 1.00%"]
    title, value = hover(page, "train/loss", 0.5)
    step = int(title.removeprefix("step "))
    assert step % 20 == 0
    assert float(value) == pytest.approx(LOSSES[step // 20 - 1], rel=1e-4)


def test_several_runs_share_a_chart(visit: Callable[..., Page], reports: tuple[Path, Path]):
    """Catches a run that charts lack, a value without its step, and a legend that does nothing."""
    page = visit(reports[1])
    said = hover(page, "val/accuracy", 0.99)
    assert said[1] == "first: 69.88% ± 1.00% at step 80"
    assert said[2].startswith(f"second {HOSTILE}")
    assert said[2].endswith(": 71.99% ± 1.00% at step 60")
    curves = page.locator(".plot").first.locator(".scatterlayer .trace")
    assert curves.count() == 4  # with the bands
    colours = [page.locator("tbody .swatch line").nth(i).get_attribute("stroke") for i in range(2)]
    assert len(set(colours)) == 2
    page.get_by_role("checkbox").nth(1).uncheck()
    assert curves.count() == 2
    assert len(hover(page, "train/loss", 0.5)) == 2


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("which", [0, 1])
def test_all_is_legible(visit: Callable[..., Page], reports: tuple[Path, Path], which: int, width: int):
    """Catches a page that scrolls sideways, text that is too small, and a chart that is cut off."""
    page = visit(reports[which], width)
    for part in page.locator("summary").all():
        part.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate(SIZES)
    assert len(sizes) > 100
    assert [each for each in sizes if each[0] < 14] == []
    boxes = [chart.bounding_box() for chart in page.locator(".plot .main-svg").all()]
    assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)


def test_pictures_go_back_in_time(visit: Callable[..., Page], reports: tuple[Path, Path]):
    """Catches a slider that does nothing, and a first view that is not the last step."""
    page = visit(reports[0])
    album = page.locator(".pictures").first
    assert album.locator("img:visible").get_attribute("alt") == "codes of first at step 1500"
    album.get_by_role("slider").fill("0")
    assert album.locator("output").inner_text() == "step 500"
    assert album.locator("img:visible").get_attribute("alt") == "codes of first at step 500"
    assert page.evaluate("[...document.images].every(each => each.naturalWidth === 40)")


def test_a_command_is_copied(visit: Callable[..., Page], reports: tuple[Path, Path]):
    """Catches a button that fails in a page that was opened as a file."""
    page = visit(reports[0])
    page.get_by_role("button").first.click()
    page.get_by_role("button", name="Copy").first.wait_for()
    assert page.locator("button").first.inner_text() == "Copied"
    assert page.evaluate("getSelection().toString()").strip() == "python train.py --run.name one"


def test_it_prints(visit: Callable[..., Page], reports: tuple[Path, Path]):
    """Catches charts that are wider than paper, and settings that stay folded away."""
    page = visit(reports[0])
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    widths = [chart.bounding_box() for chart in page.locator(".plot .main-svg").all()]
    assert all(box and box["width"] <= 680 for box in widths)
    assert page.locator("nav").is_hidden()
    assert page.locator("details").evaluate("each => each.open")
    assert len(re.findall(rb"/Type */Page\b", page.pdf(format="A4"))) > 1
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    first = page.locator(".plot .main-svg").first.bounding_box()
    assert first is not None
    assert first["width"] > 1000


def test_the_policy_stops_what_is_not_ours(browser: Browser, reports: tuple[Path, Path], tmp_path: Path):
    """Catches a policy that a browser does not keep: the last line, should something not be escaped."""
    evil = f"<script>document.title='HACKED'</script>{HOSTILE}"
    (tmp_path / "evil.html").write_text(reports[0].read_text().replace("<main>", f"<main>{evil}", 1))
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((tmp_path / "evil.html").as_uri())
        page.wait_for_selector(".plot .main-svg")
        assert page.title() == "first · report"
