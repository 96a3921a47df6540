"""The live page at `/` of the admin endpoint, in a browser without a window, beside a program under load.

One browser and one program for the whole file. Where a test needs what no server would say, the browser is told that
the kernel had said it.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright
from support import net
from support.fixtures import or_skip
from support.program import ROOT, Program
from support.servers import RedisServer

PAGE_BYTES_MAX = 40 << 10
HUNG_S = 10
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = '<img src=x onerror="document.title=1">'
HOSTILE_COMMAND = "<b>&lt;\u202e"
HOSTILE_URL = "redis+app://%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D1%3E"

PROGRAM = """
import iokernel, json, threading, time
from support.hang import hang

admin, fast, stuck, hostile, command, seconds = sys.argv[1:]
kernel = iokernel.Kernel(name="shop", admin=admin)
service, silent = kernel.open(fast, require=True), kernel.open(stuck, heartbeat="60s")
kernel.open(hostile)
orders = kernel.counter("orders", "Orders taken.", shop="berlin")
service.wait_ready(5)
silent.wait_ready(5)

def load(number):
    while True:
        service.call("SET", f"key:{number}", "value")
        orders.inc()
        time.sleep(0.01)

def hold_the_interpreter():
    hang(float(seconds))

print(json.dumps({"up": True}), flush=True)
sys.stdin.readline()
waits = [service("BLPOP", "nothing", 0, timeout=600), silent(command, "argument", timeout=600)]
for number in range(3):
    threading.Thread(target=load, args=(number,), daemon=True).start()
print(json.dumps({"loaded": True}), flush=True)
sys.stdin.readline()
with kernel.marker("price the order", id=7):
    hold_the_interpreter()
print(json.dumps({"over": True}), flush=True)
sys.stdin.readline()
import os
os._exit(0)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield made
        made.close()


class Shop:
    """The program, and where its page is."""

    def __init__(self, program: Program, url: str) -> None:
        self.program = program
        self.url = url

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=5) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def shop(browser: Browser) -> Iterator[Shop]:
    with ExitStack() as stack:
        fast, stuck = (stack.enter_context(or_skip(RedisServer)()) for _ in range(2))
        admin = f"127.0.0.1:{net.free_port()}"
        arguments = [admin, fast.url, stuck.url, HOSTILE_URL, HOSTILE_COMMAND, str(HUNG_S)]
        program = stack.enter_context(Program(PROGRAM, *arguments))
        program.hear()
        # What was sent to it stays in flight.
        stuck.pause()
        stack.callback(stuck.cont)
        program.go_on()
        program.hear()
        yield Shop(program, f"http://{admin}")
        program.go_on()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, shop: Shop) -> Iterator[Open]:
    """Opens the page in a profile of its own. `said`: what paths answer instead of the kernel. Errors fail the test."""
    errors: list[str] = []
    with ExitStack() as stack:

        def made(said: dict[str, Any] | None = None, **options: Any) -> Page:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            stack.callback(context.close)
            context.set_default_timeout(10_000)
            page = context.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda line: errors.append(line.text) if line.type in ("error", "warning") else None)
            for path, answer in (said or {}).items():
                page.route(f"**/{path}*", fulfilled(answer))
            page.goto(shop.url + "/")
            page.get_by_label("Refresh every").select_option("500")
            expect(page.locator("#link")).to_have_text(re.compile("live"))
            return page

        yield made
    assert errors == []


def fulfilled(answer: Any) -> Callable[[Route], None]:
    body = answer if isinstance(answer, str) else json.dumps(answer)
    return lambda route: route.fulfill(body=body, content_type="text/plain" if body is answer else "application/json")


def rows(page: Page, part: str) -> Locator:
    return page.locator(f'[data-part="{part}"] tbody tr')


def card(page: Page, text: str) -> Locator:
    return page.locator("#endpoints article").filter(has_text=text)


def changes(locator: Locator) -> None:
    """Its text becomes another."""
    expect(locator).not_to_have_text(locator.inner_text(), timeout=10_000)


def column(page: Page, part: str, label: str) -> list[str]:
    return page.locator(f'[data-part="{part}"] tbody td[data-label="{label}"]').all_inner_texts()


# What it is


def test_it_is_one_small_file_of_its_own(shop: Shop) -> None:
    text = (ROOT / "src" / "kernel" / "observing" / "page.html").read_bytes()
    assert len(text) < PAGE_BYTES_MAX
    with urllib.request.urlopen(shop.url + "/", timeout=5) as answer:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert answer.read() == text
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert not re.findall(rb"(?:src|href)=\"(?!data:)|url\(|@import|innerHTML|insertAdjacentHTML|\beval\b", text)


# A program under load


def test_numbers_move(open_page: Open, shop: Shop) -> None:
    page = open_page()
    kernel = shop.ask("state")["kernel"]
    expect(page.locator("#name")).to_have_text("shop")
    expect(page.locator("#about")).to_contain_text(f"pid {kernel['pid']} · version {kernel['version']}")
    expect(page.locator("#ready")).to_contain_text("ready")
    busy = card(page, "require=true")
    expect(busy.locator(".pill").first).to_contain_text("up")
    line = busy.locator("svg").first
    expect(line).to_have_attribute("data-samples", re.compile("[2-9]"))
    before = int(line.get_attribute("data-samples") or 0)
    changes(page.locator("#about"))
    changes(busy.locator("td[data-label=Requests]"))
    expect(busy.locator("td[data-label=Requests]")).to_have_text(re.compile(r"^[1-9][\d,.]*/s$"))
    expect(page.locator("#rate")).to_have_text(re.compile(r"^[1-9]"))
    expect(busy.locator("td[data-label=Latency]")).to_have_text(re.compile("[µm]s$"))
    orders = rows(page, "metrics").filter(has_text="shop=berlin")
    changes(orders.locator("td[data-label=Value]"))
    expect(orders.locator("td[data-label=Rate]")).to_have_text(re.compile(r"^[1-9][\d,.]*/s$"))
    expect(rows(page, "metrics").filter(has_text="iokernel_requests_total")).to_be_visible()
    assert int(line.get_attribute("data-samples") or 0) > before
    assert line.get_attribute("aria-label")


def test_requests_in_flight_are_sorted_filtered_and_held(open_page: Open) -> None:
    page = open_page()
    # Those of the load come and go.
    filter_ = page.get_by_placeholder("Filter by endpoint or command")
    filter_.fill("blpop")
    expect(rows(page, "requests")).to_have_count(1)
    expect(rows(page, "requests")).to_contain_text("waits for the reply")
    changes(rows(page, "requests").locator("td[data-label=Age]"))
    filter_.fill("no such thing")
    expect(page.get_by_text("No request fits the filter.")).to_be_visible()
    filter_.fill("")
    pause = page.get_by_role("button", name="Pause")
    pause.press("Enter")
    expect(pause).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#requests-n")).to_contain_text("paused")
    head = page.locator('[data-part="requests"] th').filter(has_text="Command")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    shown = column(page, "requests", "Command")
    assert len(shown) >= 2 and shown[-1] == "BLPOP"
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    assert column(page, "requests", "Command")[0] == "BLPOP"
    held = column(page, "requests", "Age")
    changes(page.locator("#about"))
    changes(page.locator("#about"))
    assert column(page, "requests", "Age") == held
    pause.click()
    expect(page.locator("#requests-n")).not_to_contain_text("paused")


def test_it_stays_live_while_the_program_hangs(open_page: Open, shop: Shop) -> None:
    page = open_page()
    expect(page.locator("#main-state")).to_contain_text("responsive")
    shop.program.go_on()
    began = time.monotonic()
    expect(page.locator("#main-state")).to_contain_text("stalled")
    expect(page.locator("#markers")).to_have_text("price the order id=7")
    page.get_by_role("button", name="Take stack").click()
    expect(page.locator("#stack .frames li").filter(has_text="hold_the_interpreter").first).to_be_visible()
    expect(page.locator("#stack")).to_contain_text("innermost frame first")
    changes(page.locator("#busy"))
    expect(page.locator("#link")).to_contain_text("live")
    assert "BLPOP" in column(page, "requests", "Command")
    assert time.monotonic() - began < HUNG_S, "the page was slower than the program's return"
    page.locator("#stack summary").filter(has_text="Threads").click()
    expect(page.locator("#stack tbody tr").first).to_be_visible()
    shop.program.hear()
    expect(page.locator("#main-state")).to_contain_text("responsive")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#stack")).to_be_hidden()


# What others wrote


def test_hostile_names_are_text(open_page: Open, shop: Shop) -> None:
    page = open_page()
    expect(card(page, "redis+app:")).to_contain_text("onerror")
    command = rows(page, "requests").filter(has_text="waits for the reply").locator("td[data-label=Command]")
    expect(command.filter(has_text="&LT;")).to_have_text("<B>&LT;\\u202e")
    state = shop.ask("state")
    state["kernel"].update(name=HOSTILE, missing=[HOSTILE], version=None)
    state["main"].update(markers=[HOSTILE, "</script>"], state="__proto__", busy_ms=0)
    for of in state["endpoints"]:
        of.update(url=HOSTILE, kind=HOSTILE, state=HOSTILE, description=HOSTILE, last_error=HOSTILE, attempts="many")
        for peer in of["peers"]:
            peer.update(name="__proto__", latency_us="x", requests=None)
            peer.update(dict.fromkeys(["role", "state", "last_error"], HOSTILE))
    state["endpoints"].append({"peers": [{}, None, {"name": HOSTILE * 200}]})
    state["endpoints"].append({})
    request = {"request": 1, **dict.fromkeys(["url", "peer", "command", "phase", "fate", "marker", "age_ms"], HOSTILE)}
    quoted = HOSTILE.replace('"', '\\"')
    metrics = f'# HELP evil {HOSTILE}\n# TYPE evil counter\nevil{{name="a\\"}} {quoted}"}} 7\nrubbish {{{{\n'
    stack = {"main": {"python": [{"function": HOSTILE, "file": HOSTILE}, {}], "native": [HOSTILE]}, "error": HOSTILE}
    lists = {"requests": {"requests": [request, {}]}, "slow": {"slow": [request, {}]}}
    page = open_page({**lists, "state": state, "metrics": metrics, "stack": stack})
    for place in ["#name", "#missing", "#markers", "#endpoints", '[data-part="requests"]', '[data-part="slow"]']:
        expect(page.locator(place)).to_contain_text(HOSTILE)
    expect(rows(page, "metrics").filter(has_text="name=a")).to_contain_text(f'name=a"}} {HOSTILE}')
    expect(rows(page, "metrics").filter(has_text="name=a").locator("td[data-label=Value]")).to_have_text("7")
    page.get_by_role("button", name="Take stack").click()
    expect(page.locator("#stack .fault")).to_have_text(HOSTILE)
    assert page.locator("img, main script, b.evil").count() == 0
    assert page.title() == HOSTILE


# What the kernel counts, and what was slow

METRICS = """# HELP orders_total Orders taken.
# TYPE orders_total counter
orders_total{shop="berlin"} %(orders)d
orders_total{shop="paris"} 3
# TYPE iokernel_sent_bytes_total counter
iokernel_sent_bytes_total 3072
# TYPE invoice_seconds histogram
invoice_seconds_bucket{le="0.01"} 50
invoice_seconds_bucket{le="0.1"} 100
invoice_seconds_bucket{le="+Inf"} 100
invoice_seconds_sum 2
invoice_seconds_count 100
# TYPE carts gauge
carts 4.5
"""


def test_counters_and_slow_requests(open_page: Open) -> None:
    slow = [
        {"command": "GET", "total_ms": 120.5, "queued_ms": 20.5, "wire_ms": 100.0, "ended": 1_700_000_000.5},
        {"command": "SET", "total_ms": 300.0, "queued_ms": 0.0, "wire_ms": 300.0, "ended": 1_600_000_000.5},
    ]
    page = open_page({"metrics": METRICS % {"orders": 100}, "slow": {"count": 7, "slow": slow}})
    orders = rows(page, "metrics").filter(has_text="shop=berlin")
    expect(orders.locator("td[data-label=Value]")).to_have_text("100")
    page.route("**/metrics", fulfilled(METRICS % {"orders": 200}))
    expect(orders.locator("td[data-label=Rate]")).to_have_text(re.compile(r"^\d[\d,.]*/s$"))
    invoices = rows(page, "metrics").filter(has_text="invoice_seconds")
    expect(invoices).to_contain_text("mean 20 ms, median 10 ms, p99 98 ms")
    expect(rows(page, "metrics").filter(has_text="iokernel_sent_bytes_total")).to_contain_text("3.00 KiB")
    names = page.locator('[data-part="metrics"] .family .mono').all_inner_texts()
    assert names == ["carts", "invoice_seconds", "orders_total", "iokernel_sent_bytes_total"]
    page.get_by_placeholder("Filter by name or label").fill("PARIS")
    expect(rows(page, "metrics")).to_have_count(2)
    expect(page.locator("#counters-n")).to_have_text("1 of 5")

    expect(page.locator("#slow-n")).to_have_text("the last 2 of 7")
    assert column(page, "slow", "Command") == ["GET", "SET"]
    assert [text.strip() for text in column(page, "slow", "Total")] == ["121 ms", "300 ms"]
    page.locator('[data-part="slow"] th').filter(has_text="Total").get_by_role("button").click()
    assert column(page, "slow", "Command") == ["SET", "GET"]


# What fails


def test_what_fails_is_said_and_stops_nothing_else(open_page: Open) -> None:
    page = open_page()
    slow = page.locator(".fault").filter(has_text="/slow: no answer within 4.00 s")
    page.route("**/*", lambda route: None)
    expect(page.locator("#link")).to_have_text(re.compile(r"no answer for \d+ s"))
    expect(page.locator("#said")).to_have_text("It does not answer")
    page.unroute("**/*")
    page.route("**/slow*", lambda route: None)
    page.route("**/requests*", fulfilled("no JSON"))
    expect(page.locator("#link")).to_contain_text("live")
    expect(page.locator(".fault").filter(has_text="/requests")).to_be_visible()
    changes(page.locator("#about"))
    changes(page.locator("#about"))
    expect(slow).to_be_visible()
    page.unroute("**/requests*")
    expect(page.locator(".fault").filter(has_text="/requests")).to_be_hidden()


# Themes and sizes


def test_themes(open_page: Open) -> None:
    page = open_page(color_scheme="dark")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(background)
    toggle = page.get_by_role("button", name="Theme: auto")
    toggle.click()
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert page.evaluate(background) == light
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(background) == dark
    assert page.get_by_label("Refresh every").input_value() == "500"


def test_it_is_readable(open_page: Open) -> None:
    """No text has less contrast than WCAG 2.1, 1.4.3 (AA) wants, and nothing is wider than the window."""
    page = open_page()
    expect(rows(page, "requests").first).to_be_visible()
    schemes: list[Literal["light", "dark"]] = ["light", "dark"]
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        for text, ratio in page.evaluate(CONTRAST):
            assert ratio >= 4.5, f"{scheme}: {text!r} has {ratio:.2f}"
    for width in (1280, 768, 360):
        page.set_viewport_size({"width": width, "height": 780})
        changes(page.locator("#about"))
        assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]


def test_a_hidden_page_asks_nothing(open_page: Open) -> None:
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    tell = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide % "true" + tell)
    page.wait_for_timeout(300)
    asked.clear()
    page.wait_for_timeout(1000)
    assert asked == []
    page.evaluate(hide % "false" + tell)
    changes(page.locator("#about"))


# Each visible text that is not faded or disabled, and its contrast with the colours under it.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const linear = each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.map(each => linear(each / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = new Map();
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].filter(each => each.nodeType === 3).map(each => each.data.trim()).join("");
    if (!text || !node.checkVisibility() || node.disabled || node.closest("script, .stale")) continue;
    const behind = [];
    for (let at = node; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
    const [front, back] = [over([...behind, getComputedStyle(node).color]), over(behind)].map(light);
    found.set(text, (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05));
  }
  return [...found];
}"""
