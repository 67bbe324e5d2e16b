"""The page at `/`, in a real browser, with a made-up service behind it."""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from made_up_service import FILES, NOW, PAGE, Fake, empty, means, serving, status

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
DASH = "\N{EN DASH}"
SECRET = "tok-1234"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        # As root, in containers, Chromium has no sandbox; the page is our own.
        launched = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def page(browser: Any, fake: Fake) -> Iterator[Any]:
    """A page that is about to be opened; no error of it, and no breach of its policy, is overlooked."""
    with serving(fake) as address:
        context = browser.new_context(base_url=address, viewport={"width": 1200, "height": 900}, locale="de-DE")
        opened = context.new_page()
        opened.set_default_timeout(10_000)
        wrong: list[str] = []
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("console", lambda told: wrong.append(told.text) if told.type in ("error", "warning") else None)
        opened.on(
            "request",
            lambda asked: wrong.append(asked.url) if not asked.url.startswith(("http://127.0.0.1:", "data:")) else None,
        )
        opened.clock.install()
        yield opened
        context.close()
        # The browser's own words of answers that are no success.
        assert [line for line in wrong if not line.startswith("Failed to load resource")] == []


def opened(page: Any) -> Any:
    page.goto("/")
    page.wait_for_selector("#shown:not([hidden])")
    return page


def words(page: Any, name: str) -> str:
    return str(page.inner_text(f"#{name}"))


def cells(page: Any, name: str) -> list[list[str]]:
    return [row.split("\t") for row in page.eval_on_selector_all(f"#{name} tbody tr", TABBED)]


TABBED = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent).join('\\t'))"


def passes(page: Any, seconds: int) -> None:
    """Time goes on for the page, which has its answers meanwhile."""
    for _ in range(seconds):
        page.clock.run_for(1000)
        page.wait_for_timeout(60)


def until(page: Any, name: str, begins: str) -> str:
    """Let time go on until the page says so."""
    for _ in range(40):
        if words(page, name).startswith(begins):
            break
        passes(page, 1)
    assert words(page, name).startswith(begins)
    return words(page, name)


READY = "Ready: it learns and predicts."


def test_what_it_shows(page: Any, fake: Fake) -> None:
    opened(page)
    assert words(page, "state") == READY
    expected = {
        "tasks": "1,000",
        "datapoints": "11,110",
        "backlog": "7",
        "snapshot": "42 s",
        "recent-name": "Recent RMSE of sales",
        "recent": "0.46",
        "recent-note": "newest 1,000; of all: 0.93",
        "rate": f"{DASH} / s",
        "rate-note": "99 % within 18.3 ms",
        "better": "lower is better",
        "learner": "FTML",
    }
    assert {name: words(page, name) for name in expected} == expected
    # The last group has too few datapoints to say anything.
    assert words(page, "age-note") == f"Before a task's first datapoint: 2.4. After 9{DASH}16: 0.45, 81 % better."
    ages = cells(page, "age-table")
    assert [row[0] for row in ages] == [
        "0",
        "1",
        "2",
        *(f"{a}{DASH}{b}" for a, b in ((3, 4), (5, 8), (9, 16), (17, 32))),
    ]
    assert ages[0][1:] == ["2.4", "1,000", "9 %"]
    assert ages[-1][1:] == ["0.4", "20", "< 1 %"]
    assert cells(page, "latency")[0] == ["predict", "2.1", "4.7", "18.3", "90,000", DASH]
    later = dict(fake.status["latency"], predict={"count": 90_500, "p50": 0.002, "p90": 0.004, "p99": 0.02})
    fake.status = status(now=NOW + 2, latency=later)
    until(page, "rate", "250 / s")
    page.select_option("#score", "loss")
    assert words(page, "recent-name") == "Recent loss"
    assert cells(page, "age-table")[0][1] == "5.76"


def test_charts_are_drawn_to_their_axes_and_said_in_words(page: Any) -> None:
    opened(page)
    label = page.get_attribute("#age", "aria-label")
    assert label.startswith("RMSE of sales by datapoints of the task before. Before a task's first datapoint: 2.4")
    texts = page.eval_on_selector_all("#age text", "all => all.map(one => one.textContent)")
    assert {"RMSE of sales", "0", "2.5", f"3{DASH}4", "26 %", "datapoints before, and share of all judged"} <= set(
        texts
    )
    heights = page.eval_on_selector_all("#age circle", "all => all.map(one => Number(one.getAttribute('cy')))")
    lines = page.eval_on_selector_all("#age .grid", "all => all.map(one => Number(one.getAttribute('y1')))")
    assert len(lines) == 6  # 0, 0.5, ..., 2.5
    scale = (lines[0] - lines[-1]) / 2.5
    shown = [(lines[0] - height) / scale for height in heights]
    assert shown == pytest.approx([2.4, 1.6, 1.1, 0.8, 0.55, 0.45, 0.4], abs=1e-3)
    assert len(page.get_attribute("#time polyline", "points").split()) == 300
    for chart in ("age", "time"):
        page.locator(f"details:has(#{chart}-table) summary").press("Enter")  # by the keyboard
        assert page.is_visible(f"#{chart}-table")


def test_the_ends_of_axes_are_named_and_long_times_are_days(page: Any, fake: Fake) -> None:
    told = status(
        score_over_time=[{"time": NOW - 86400 * i, "datapoints": 99, "recent": {"loss": 1.0 + i}} for i in (9, 0)]
    )
    told["score"]["by_age"] = {str(age): means(9, loss=1.0) for age in (0, 1, 2, *(2**i + 1 for i in range(1, 14)))}
    fake.status = told
    page.set_viewport_size({"width": 320, "height": 800})
    opened(page)
    page.select_option("#score", "loss")
    texts = page.eval_on_selector_all("#age text", "all => all.map(one => one.textContent)")
    assert {"0", f"8,193{DASH}16,384"} <= set(texts)
    assert f"8,193{DASH}16,384: 1" in words(page, "age-note")
    assert words(page, "age-note").endswith(", the same.")
    assert re.fullmatch(r"10 at \d\d:\d\d on 6 Jan, 1 at \d\d:\d\d on 15 Jan: 90 % better\.", words(page, "time-note"))


def test_the_first_few_datapoints_are_not_compared(page: Any, fake: Fake) -> None:
    few = [(NOW - 60, 1, 0.001), (NOW - 50, 40, 0.1), (NOW - 40, 90, 0.5)]
    fake.status = status(score_over_time=[{"time": x, "datapoints": n, "recent": {"loss": y}} for x, n, y in few])
    opened(page)
    page.select_option("#score", "loss")
    assert re.fullmatch(r"0\.1 at [\d:]{8}, 0\.5 at [\d:]{8}: 5 times as much, worse\.", words(page, "time-note"))
    assert len(cells(page, "time-table")) == 3


def test_the_loss_stands_in_for_a_score_of_a_whole_set(page: Any, fake: Fake) -> None:
    fake.status = status()
    fake.status["score"]["by_age"] = {str(age): means(99, loss=1.0 / (1 + age)) for age in (0, 1)}
    opened(page)
    name = page.input_value("#score")
    assert name != "loss"
    note = f"By the loss, as {name} is of a whole set. Before a task's first datapoint: 1. After 1: 0.5, 50 % better."
    assert words(page, "age-note") == note
    assert words(page, "recent-name") == f"Recent {name}"


def test_an_empty_learner(page: Any, fake: Fake) -> None:
    fake.status, fake.tasks = empty(), []
    opened(page)
    assert "nothing is stored yet: send the first datapoints to /v1/learn" in words(page, "state")
    assert not page.is_visible("#judged")
    assert [words(page, name) for name in ("tasks", "recent", "snapshot", "found")] == ["0", DASH, "none", "0 tasks"]
    fake.status = status()
    until(page, "state", READY)
    assert page.is_visible("#judged")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"learns": False}, "good", "Ready: it predicts, and follows the process that learns."),
        ({"failed": True, "ready": False}, "bad", "Learning has ended by an error"),
        ({"ready": False, "backlog": 4000}, "wait", "Catching up with what was stored before it began"),
        ({"rebuilding": True}, "wait", "learned anew"),
    ],
)
def test_states_of_the_learner(page: Any, fake: Fake, changes: dict[str, Any], kind: str, message: str) -> None:
    fake.status = status(**changes)
    opened(page)
    assert message in words(page, "state")
    assert page.get_attribute("#state", "data-kind") == kind


def test_what_is_not_a_number_or_the_same_everywhere(page: Any, fake: Fake) -> None:
    score = {
        "overall": means(5, accuracy=0.5, loss=None),
        "by_age": {"0": means(5, accuracy=0.5, loss=None)},
        "recent": means(5, accuracy=0.5, loss=None),
        "not_finite": 3,
    }
    judged = {"name": "accuracy", "higher_is_better": True}
    one = [{"time": NOW, "datapoints": 5, "recent": {"accuracy": 0.5, "loss": None}}]
    fake.status = status(
        score=score, problem={"scores": [judged, {"name": "F1"}]}, score_over_time=one, classes=["a", "b"]
    )
    opened(page)
    assert words(page, "better") == "higher is better"
    assert words(page, "age-note") == "So far there is only 0 before: nothing to compare yet."
    assert words(page, "datapoints-note") == "3 not judged: not finite"
    assert page.locator("#time circle").count() == 1
    page.select_option("#score", "loss")
    assert words(page, "recent") == DASH
    assert not page.is_visible("#time")


def test_the_service_goes_and_comes_back(page: Any, browser: Any) -> None:
    fake = Fake()
    with serving(fake) as address:
        page.goto(address)
        page.wait_for_selector("#shown:not([hidden])")
    gone = until(page, "state", "The service does not answer.")
    assert re.fullmatch(r".*\. What is shown is from \d\d:\d\d:\d\d\. Trying again\.", gone)
    assert words(page, "tasks") == "1,000"  # what was known is kept
    assert "old" in page.get_attribute("#shown", "class")
    with serving(fake, int(address.rpartition(":")[2])):
        until(page, "state", READY)
        assert "old" not in page.get_attribute("#shown", "class")


def test_what_the_service_refuses_is_said(page: Any, fake: Fake) -> None:
    opened(page)
    fake.refusal = (503, "the learner is closed")
    until(page, "state", "The service refuses to say how it stands: the learner is closed.")
    asked = len(fake.asked)
    passes(page, 2)
    assert len(fake.asked) == asked  # asks less often
    fake.refusal = None
    until(page, "state", READY)


def test_a_token_is_asked_for_and_kept_in_the_tab_alone(page: Any, fake: Fake) -> None:
    fake.token = SECRET
    page.goto("/")
    page.wait_for_selector("#token:not([hidden])")
    assert words(page, "state") == "The service asks for a token."
    assert not page.is_visible("#shown")
    for wrong, message in (("two words", "no spaces"), ("wrong", "The service does not know this token.")):
        page.fill("#secret", wrong)
        page.press("#secret", "Enter")
        page.wait_for_function("message => document.querySelector('#state').textContent.includes(message)", arg=message)
    page.fill("#secret", SECRET)
    page.press("#secret", "Enter")
    page.wait_for_selector("#shown:not([hidden])")
    assert not page.is_visible("#token")
    assert not page.is_visible("#metrics")  # a link carries no token
    assert page.evaluate("[localStorage.length, document.cookie, location.href.includes('tok')]") == [0, "", False]
    assert page.evaluate("Object.values(sessionStorage)") == [SECRET]
    page.reload()
    page.wait_for_selector("#shown:not([hidden])")
    page.click("#leave")
    page.wait_for_selector("#token:not([hidden])")
    assert page.evaluate("sessionStorage.length") == 0
    assert not page.is_visible("#shown")
    assert not [path for path in fake.asked if SECRET in path]


MARKUP = "<img src=x onerror=\"document.title='broken'\">"


def test_names_are_text(page: Any, fake: Fake) -> None:
    names = [MARKUP, "1", 1, "", " north", "x" * 200, "\u202eright to left", "south\u0000\x1b[2J"]
    fake.tasks = [{"task": name, "datapoints": i + 1} for i, name in enumerate(names)]
    score = {"type": "Score", "name": MARKUP, "higher_is_better": False}
    told = status(tasks=len(names), problem={"scores": score, "model": {"type": MARKUP}}, classes=[MARKUP, "b"])
    told["score"]["overall"]["values"] = told["score"]["recent"]["values"] = {MARKUP: 0.5}
    fake.status = told
    opened(page)
    shown = [row[0] for row in cells(page, "task-table")][::-1]
    assert shown[:5] == [MARKUP, '"1"', "1", '""', '" north"']
    assert shown[6:] == [r"\u202eright to left", r"south\u0000\u001b[2J"]
    assert words(page, "recent-name") == f"Recent {MARKUP}"
    assert page.locator("img").count() == 0
    assert page.title() == "metaleader"
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200


def test_many_tasks_are_searched_and_some_are_shown(page: Any, fake: Fake) -> None:
    fake.tasks = [{"task": f"user {i}", "datapoints": i % 977} for i in range(30_000)]
    fake.status = status(tasks=30_000)
    opened(page)
    assert [path for path in fake.asked if "tasks" in path] == [
        "/v1/tasks?start=10000&limit=10000",
        "/v1/tasks?start=20000&limit=10000",
    ]
    assert words(page, "found") == "30,000 tasks; the first 100 are shown"
    assert len(cells(page, "task-table")) == 100
    assert cells(page, "task-table")[0] == ["user 29999", str(29_999 % 977)]
    page.fill("#search", "USER 2999")
    assert words(page, "found") == "10 tasks of the newest 20,000 with this in the name"
    page.fill("#search", "")
    page.select_option("#order", "most")
    assert cells(page, "task-table")[0][1] == "976"
    took = page.evaluate(
        "(() => { const began = performance.now(); showTasks(); return performance.now() - began; })()"
    )
    assert took < 200  # milliseconds
    passes(page, 4)
    assert len([path for path in fake.asked if "tasks" in path]) == 2  # nothing is new
    fake.status = status(tasks=30_000, stored=99_999)
    passes(page, 12)
    assert len([path for path in fake.asked if "tasks" in path]) == 4


@pytest.mark.parametrize("width", [320, 700, 1200])
def test_it_fits_every_width(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    opened(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.eval_on_selector_all(
        "svg text",
        "all => all.filter(one => { const box = one.getBBox(), wide = one.ownerSVGElement.viewBox.baseVal.width;"
        " return box.x < -1 || box.x + box.width > wide + 1; }).map(one => one.textContent)",
    )
    assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_have_contrast(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    opened(page)
    low = page.evaluate(CONTRAST)
    assert low == []


# Of every element with text of its own, the contrast with what is behind it (WCAG 2); those below 4.5.
CONTRAST = """() => {
  const parts = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor; if (parts(colour)[3] !== 0) return colour; }
    return "rgb(255,255,255)"; };
  return [...document.querySelectorAll("body *")].filter((node) => node.getClientRects().length
    && [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())).map((node) => {
      const style = getComputedStyle(node), ink = light(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
      const paper = light(behind(node)), [a, b] = [Math.max(ink, paper), Math.min(ink, paper)];
      return [node.textContent.slice(0, 30), (a + 0.05) / (b + 0.05)]; }).filter(([, ratio]) => ratio < 4.5);
}"""


def test_it_needs_nothing_from_elsewhere() -> None:
    for name, _ in FILES.values():
        content = (PAGE / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*//.*|[;,{)] // .*$", "", content, flags=re.MULTILINE), name
        assert "innerHTML" not in content
        assert " style=" not in content
        assert "localStorage" not in content
