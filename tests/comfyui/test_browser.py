"""The page: shipped workflows open without complaint, run, and play what they saved."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen.audio import Audio, write
from comfyui_musicgen.tests.comfyui import comfy_server

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = sorted((ROOT / "workflows").glob("*.json"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Asked for by the page itself, whatever packs there are; ComfyUI answers 404 until the user has made them.
NOT_OURS = (
    "/userdata",
    "user.css",
    "favicon",
    "missingModelMetadata",
)  # the last: of the graph that the page begins with

LOAD = """async (graph) => {
    await window.app.loadGraphData(graph);
    await new Promise((done) => setTimeout(done, 300));
    return window.app.graph._nodes.map((node) => [node.type, node.has_errors ?? false]);
}"""
SET = """([type, values]) => {
    const node = window.app.graph._nodes.find((node) => node.type === type);
    for (const [name, value] of Object.entries(values)) {
        node.widgets.find((widget) => widget.name === name).value = value;
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
PLAYER = """() => {
    const node = window.app.graph._nodes.find((node) => node.type === "MusicGenSaveAudio");
    return node.widgets.find((widget) => widget.name === "audioUI").element.src;
}"""
DROP = """async (url) => {
    const blob = await (await fetch(url)).blob();
    window.app.graph.clear();
    await window.app.handleFile(new File([blob], "dropped.flac", { type: "audio/flac" }));
    await new Promise((done) => setTimeout(done, 500));
    return window.app.graph._nodes.map((node) => node.type).sort();
}"""


@pytest.fixture(scope="module")
def comfy(tmp_path_factory):
    server = comfy_server.shared(tmp_path_factory)
    write(Audio(0.2 * torch.rand(1, 2, 44100) - 0.1, 44100), server.base / "input" / "your clip.wav")
    server.post("/settings", {"Comfy.TutorialCompleted": True})
    return server


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser found: none of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "nodes-2.0"])
def page(request, comfy, browser):
    """One page for all workflows, ready, with `errors` collected from then on; in the classic canvas and in Nodes 2.0."""
    comfy.post("/settings", {"Comfy.VueNodes.Enabled": request.param})
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    open_page(page, comfy)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on(
        "console", lambda message: message.type == "error" and page.errors.append(message.text + str(message.location))
    )
    yield page
    page.close()


def open_page(page, comfy):
    """Go to ComfyUI's page, and wait until it is ready."""
    page.set_default_timeout(120_000)  # ms; a busy machine takes a minute to open the page
    page.goto(f"http://{comfy.address}/")
    page.wait_for_function("() => window.app?.graph && window.LiteGraph?.registered_node_types?.MusicGenSampler")
    page.wait_for_timeout(1000)  # the page's own start ends without an event


def problems(page):
    return [error for error in page.errors if not any(part in error for part in NOT_OURS)]


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_workflow_opens_runs_and_plays(comfy, page, path):
    page.errors.clear()
    graph = json.loads(path.read_text(encoding="utf-8"))
    opened = page.evaluate(LOAD, graph)
    assert sorted(opened) == sorted([node["type"], False] for node in graph["nodes"])
    assert page.locator("[role=dialog]:visible").count() == 0, "a dialog complains about the workflow"
    types = {node["type"] for node in graph["nodes"]}
    loader = next(node for node in graph["nodes"] if node["type"] == "MusicGenLoader")
    if loader["widgets_values"][0] != "pansori-mini":  # which is there for the first press
        page.evaluate(SET, ["MusicGenLoader", {"model": "toy"}])
    if "MusicGenFineTune" in types:
        page.evaluate(SET, ["MusicGenFineTune", {"weights": ""}])
    page.evaluate(SET, ["MusicGenSampler", {"duration_s": 0.6, "control_after_generate": "fixed"}])
    page.evaluate(SET, ["MusicGenSaveAudio", {"filename_prefix": "audio/%date:yyyy% take"}])
    if "Continue" in path.stem:
        page.evaluate(SET, ["MusicGenTrimAudio", {"end_s": 0.4}])
    assert page.evaluate(RUN) == ["execution_success", ""]
    page.wait_for_function(f"() => ({PLAYER})().includes('/view')")
    source = page.evaluate(PLAYER)
    assert "20" in source and "take_0" in source and "%25date" not in source, "the date is put in by the page"
    assert page.request.get(source).body()[:4] == b"fLaC"
    assert page.evaluate(DROP, source) == sorted(node["type"] for node in graph["nodes"]), (
        "a saved file opens its workflow"
    )
    assert problems(page) == []
