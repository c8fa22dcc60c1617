"""ComfyUI's page in a browser, for the tests that press its buttons. Not a test; conftest.py has the fixtures."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no network
)
DRAWING_SINCE = (1, 28)  # front end; before it, Nodes 2.0 is a preview that draws no elements in nodes, texts included
# Asked for by the page itself, whatever packs there are; ComfyUI answers 404 until the user has made them.
NOT_OURS = (
    "/userdata",
    "user.css",
    "favicon",
    "missingModelMetadata",  # of the graph that the page begins with
    "ERR_NAME_NOT_RESOLVED",  # the page's own addresses in the network, which is off
)

LOAD = """async (graph) => {
    await window.app.loadGraphData(graph);
    await new Promise((done) => setTimeout(done, 300));
    return window.app.graph._nodes.map((node) => [node.type, node.has_errors ?? false]);
}"""
SET = """([type, values]) => {
    for (const node of window.app.graph._nodes.filter((node) => node.type === type)) {
        for (const [name, value] of Object.entries(values)) {
            node.widgets.find((widget) => widget.name === name).value = value;
        }
    }
}"""
RUN = """async () => {
    const types = ["execution_success", "execution_error", "execution_interrupted"];
    const ended = new Promise((done) => {
        const end = (event) => done([event.type, event.detail.exception_message ?? ""]);
        for (const type of types) window.app.api.addEventListener(type, end, { once: true });
    });
    await window.app.queuePrompt(0);
    const errors = window.app.lastNodeErrors;
    return errors && Object.keys(errors).length ? ["refused", JSON.stringify(errors)] : await ended;
}"""


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright; the test is skipped where either is lacking."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser found: none of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser, address: str, **viewport: int) -> Any:
    """ComfyUI's page, ready, with what goes wrong in it from then on in `errors`."""
    page = browser.new_page(viewport=viewport)
    page.set_default_timeout(120_000)  # ms; a busy machine takes a minute to open the page
    page.goto(f"http://{address}/")
    page.wait_for_function("() => window.app?.graph && window.LiteGraph?.registered_node_types?.MusicGenSampler")
    page.wait_for_timeout(1000)  # the page's own start ends without an event
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on(
        "console", lambda message: message.type == "error" and page.errors.append(message.text + str(message.location))
    )
    return page


def problems(page) -> list[str]:
    return [error for error in page.errors if not any(part in error for part in NOT_OURS)]


def draws_elements(page) -> bool:
    """Whether the page draws a node's own elements, and gives nodes their stored sizes."""
    version = page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__")
    return not page.nodes2 or tuple(map(int, version.split(".")[:2])) >= DRAWING_SINCE
