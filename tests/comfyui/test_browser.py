"""The page: templates open without complaint, play by the Run button without a network, and nothing overlaps.

Every template is opened in the classic canvas, and one of each kind played; one in Nodes 2.0 and in App mode. --slow:
every template is played in all three, and the subgraph blueprints.
"""

import json
import shutil
from pathlib import Path

import pytest
from comfyui_musicgen.tests.comfyui import comfy_server
from comfyui_musicgen.tests.comfyui.page import LOAD, RUN, SET, draws_elements, problems
from comfyui_musicgen.tests.toy.adapters import pairs, write_adapter

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = sorted((ROOT / "workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
LABELS = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
FIRST = "Text to music"
PLAYED = (FIRST, "Follow a melody")  # without --slow
LISTEN = """() => {
    const types = ["execution_success", "execution_error", "execution_interrupted"];
    window.musicgenEnded = new Promise((done) => {
        const end = (event) => done([event.type, event.detail.exception_message ?? ""]);
        for (const type of types) window.app.api.addEventListener(type, end, { once: true });
        window.app.api.addEventListener("promptQueueing", () => setTimeout(() => {
            const errors = window.app.lastNodeErrors;
            if (errors && Object.keys(errors).length) done(["refused", JSON.stringify(errors)]);
        }, 3000), { once: true });
    });
}"""
ENDED = "() => window.musicgenEnded"
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
# Of each node: [name, left, top, right, bottom, height it needs, height it has], of what is drawn.
BOXES = """() => window.app.graph._nodes.map((node) => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`), name = `${node.type} ${node.id}`;
    if (element) {
        const { left, top, right, bottom } = element.getBoundingClientRect();
        return [name, left, top, right, bottom, 0, 0];  // such a node grows with what it holds
    }
    const [x, y] = node.pos, [width, height] = node.size;
    const needed = node.type === "MarkdownNote" ? 0 : node.computeSize()[1];
    return [name, x, y - 30, x + width, y + height, needed, height];
})"""
# A graph whose Mix reports a line a clip; at a gain that no page before had, so that it runs.
MIX = """(gain) => {
    const { graph } = window.app, add = (type) => graph.add(window.LiteGraph.createNode(type)) ?? graph._nodes.at(-1);
    graph.clear();
    const [clip, mix, save] = ["MusicGenExample", "MusicGenMix", "MusicGenSaveAudio"].map(add);
    clip.connect(0, mix, 0);
    clip.connect(0, mix, 1);
    mix.connect(0, save, 0);
    mix.widgets.find((widget) => widget.name === "gain_2_db").value = gain;
}"""
ANEW = "async () => await window.app.loadGraphData(window.app.graph.serialize())"
REPORT = """() => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode() && !texts.currentNode.textContent.includes("LUFS"));
    const element = texts.currentNode.parentElement;
    return [element.querySelectorAll("br").length, getComputedStyle(element).wordBreak];
}"""
# Ids in the order in which the page's search offers them.
FOUND = """(words) => document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia._s
    .get("nodeDef").nodeSearchService.searchNode(words).map((node) => node.name)"""
CHOOSE = """() => window.app.graph._nodes.find((node) => node.type === "MusicGenFineTune")
    .widgets.find((widget) => widget.type === "button").callback()"""
STORED = """(type) => window.app.graph.serialize().nodes.find((node) => node.type === type).widgets_values"""
FORM = "async () => (await window.app.graphToPrompt()).output"


def overlaps(boxes):
    """Pairs of nodes that lie over one another, and nodes that are too small for what they hold."""
    found = [f"{name} needs {needed} px, has {has}" for name, *_, needed, has in boxes if needed > has + 1]
    for i, (one, left, top, right, bottom, *_) in enumerate(boxes):
        for other, x0, y0, x1, y1, *_ in boxes[:i]:
            if min(right, x1) - max(left, x0) > 1 and min(bottom, y1) - max(top, y0) > 1:
                found.append(f"{one} lies over {other}")
    return found


def settled_overlaps(page):
    """`overlaps` once the page has laid out its nodes: in Nodes 2.0 they are drawn after the run's messages."""
    for _ in range(20):
        found = overlaps(page.evaluate(BOXES))
        if not found:
            break
        page.wait_for_timeout(500)
    return found


def in_short(names):
    """Every template, those of other names as slow tests."""
    return [path if path.stem in names else pytest.param(path, marks=pytest.mark.slow) for path in GRAPHS]


def opened(page, path, app=False):
    """The template of a file in the page, a piece of minutes shortened to two windows."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    graph["extra"]["linearMode"] = app
    nodes = page.evaluate(LOAD, graph)
    assert sorted(nodes) == sorted([node["type"], False] for node in graph["nodes"])
    if not app:  # which explains itself in a dialog when it is first seen
        assert page.locator("[role=dialog]:visible").count() == 0, "a dialog complains about the workflow"
    if "minutes" in path.stem:
        page.evaluate(SET, ["MusicGenSampler", {"duration_s": 12}])
    return graph


def run(page, button):
    page.evaluate(LISTEN)
    button.click()
    return page.evaluate(ENDED)


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_template_opens_and_its_stored_form_is_the_pages(request, page, path):
    if page.nodes2 and not request.config.getoption("--slow") and path.stem != FIRST:
        pytest.skip("in Nodes 2.0 with --slow")
    opened(page, path)
    stored = json.loads((path.parent / "api" / f"{path.stem.lower().replace(' ', '_')}.json").read_text("utf-8"))
    if "minutes" not in path.stem:
        form = page.evaluate(FORM)
        assert {i: node["class_type"] for i, node in form.items()} == {i: n["class_type"] for i, n in stored.items()}
        for i, node in stored.items():
            # The page adds what it shows of its own, and ComfyUI's own nodes grow inputs from core to core.
            given = {name: form[i]["inputs"].get(name) for name in node["inputs"]}
            assert given == node["inputs"], (path.stem, node["class_type"])
    assert problems(page) == []


@pytest.mark.parametrize("path", in_short(PLAYED), ids=lambda path: path.stem)
def test_template_plays_and_comes_back(request, page, path):
    if page.nodes2 and not request.config.getoption("--slow") and path.stem != FIRST:
        pytest.skip("in Nodes 2.0 with --slow")
    graph = opened(page, path)
    page.evaluate(SET, ["MusicGenSaveAudio", {"filename_prefix": "audio/%date:yyyy% take"}])
    button = page.locator('[data-testid="queue-button"]').first
    assert run(page, button) == ["execution_success", ""]
    page.wait_for_function(f"() => ({PLAYER})().includes('/view')")
    if draws_elements(page):
        assert settled_overlaps(page) == []
    source = page.evaluate(PLAYER)
    assert "20" in source and "take_0" in source and "%25date" not in source, "the date is put in by the page"
    assert page.request.get(source).body()[:4] == b"fLaC"
    back = page.evaluate(DROP, source)
    assert back == sorted(node["type"] for node in graph["nodes"]), "a saved file opens its workflow"
    assert problems(page) == []


def test_reports_keep_their_lines_and_words_and_come_back(comfy, page):
    if not draws_elements(page):
        pytest.skip("this page shows no texts in Nodes 2.0")
    page.evaluate(MIX, -3.5 if page.nodes2 else -2.5)
    assert page.evaluate(RUN) == ["execution_success", ""]
    page.get_by_text("LUFS").first.wait_for()
    n_breaks, word_break = page.evaluate(REPORT)
    assert n_breaks >= 1 and word_break != "break-all"
    if "HAS_INTERMEDIATE_OUTPUT" not in (comfy.root / "execution.py").read_text(encoding="utf-8"):
        return  # a core that never sends again what such a node has shown
    page.evaluate(ANEW)
    page.get_by_text("LUFS").first.wait_for(state="detached")
    assert page.evaluate(RUN) == ["execution_success", ""]
    page.get_by_text("LUFS").first.wait_for()  # of a node that did not run again: a page opened anew showed nothing
    assert page.evaluate(REPORT)[0] == n_breaks


def test_the_search_offers_the_first_nodes_of_a_graph_first(page):
    """For "music" the first was Mix, whose id is the shortest."""
    first = ["MusicGenLoader", "MusicGenText", "MusicGenSampler", "MusicGenDecode", "MusicGenSaveAudio"]
    for words in ("music", "musicgen", "MusicGen"):
        assert page.evaluate(FOUND, words)[: len(first)] == first, words
    assert page.evaluate(FOUND, "mix")[0] == "MusicGenMix"
    assert page.evaluate(FOUND, "load image")[0] == "LoadImage", "nodes of others stay where they were"


def test_a_fine_tune_is_chosen_from_what_is_there_now(comfy, page):
    """Its name had to be known and typed; the button lists what was put there after the page was opened."""
    page.evaluate(LOAD, json.loads((ROOT / "workflows" / "Pansori fine-tune.json").read_text(encoding="utf-8")))
    before = page.evaluate(STORED, "MusicGenFineTune")
    loras = comfy.base / "models" / "musicgen" / "loras"
    write_adapter(loras / "late", pairs({"decoder.lm_heads.0": (2048, 64)}))
    try:
        page.evaluate(CHOOSE)
        entry = page.locator(".litecontextmenu .litemenu-entry", has_text="loras/late")
        entry.wait_for()
        entry.click()
        assert page.evaluate(STORED, "MusicGenFineTune") == ["loras/late", *before[1:]]
        page.evaluate(CHOOSE)
        page.locator(".litecontextmenu .litemenu-entry", has_text="no fine-tune").click()
        assert page.evaluate(STORED, "MusicGenFineTune") == before, "the button is no part of the workflow"
        assert problems(page) == []
    finally:
        shutil.rmtree(loras)


@pytest.mark.parametrize("path", in_short((FIRST,)), ids=lambda path: path.stem)
def test_template_plays_in_app_mode(page, path):
    if page.nodes2:
        pytest.skip("App mode looks the same with Nodes 2.0")
    graph = opened(page, path, app=True)
    page.wait_for_timeout(1500)
    widgets = page.locator('[data-testid="linear-widgets"]')
    if not widgets.count():
        pytest.skip("the page of this ComfyUI has no App mode")
    skip = page.get_by_role("button", name="Skip", exact=True)  # of the tour that App mode offers when it is first seen
    try:
        if skip.count():
            skip.click()
        types = {node["id"]: node["type"] for node in graph["nodes"]}
        for node, name, *said in graph["extra"]["linearData"]["inputs"]:
            label = LABELS.get(types[node], {}).get("inputs", {}).get(name, {"name": name})["name"]
            assert widgets.get_by_text(label, exact=True).count(), f"App mode does not show {label}"
            assert "_" not in label
            for description in (about["description"] for about in said):
                assert widgets.get_by_text(description, exact=True).count(), f"App mode does not say {description}"
        button = page.locator("button", has=page.locator('[data-testid="linear-run-button-icon"]')).first
        assert run(page, button) == ["execution_success", ""]
        page.wait_for_selector('[data-testid="linear-outputs"] audio, audio', state="attached")
        assert problems(page) == []
    finally:
        page.evaluate(LOAD, graph | {"extra": {**graph["extra"], "linearMode": False}})


@pytest.mark.slow
def test_blueprints_are_offered_by_the_server(comfy):
    if not (comfy.root / "app" / "subgraph_manager.py").is_file():
        pytest.skip("this ComfyUI knows no blueprints of packs")
    offered = comfy.get("/global_subgraphs")
    ours = {
        entry["name"]: key for key, entry in offered.items() if comfy_server.PACK_NAME in entry["info"]["node_pack"]
    }
    assert set(ours) == {path.stem for path in BLUEPRINTS}
    for path in BLUEPRINTS:
        data = comfy.get(f"/global_subgraphs/{ours[path.stem]}")["data"]
        assert json.loads(data) == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_blueprint_opens_and_plays(comfy, page, path):
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    graph = with_ends(blueprint)
    page.evaluate(LOAD, graph)
    shown = page.evaluate("() => window.app.graph._nodes.find((n) => n.id == 1).widgets.map((w) => w.name)")
    wanted = [given["name"] for given in blueprint["nodes"][0]["inputs"] if "widget" in given]
    assert [name for name in shown if name in wanted] == wanted
    assert run(page, page.locator('[data-testid="queue-button"]').first) == ["execution_success", ""]
    assert problems(page) == []


def with_ends(blueprint):
    """A blueprint's node with what it needs before and behind it: a clip or pictures, and a node that saves."""
    graph = json.loads(json.dumps(blueprint))
    (node,) = graph["nodes"]
    ends = {
        "audio": ("MusicGenExample", ["gayageum melody"], "AUDIO"),
        "images": ("EmptyImage", [64, 64, 50, 0], "IMAGE"),
    }
    for slot, given in enumerate(node["inputs"]):
        if given["name"] in ends:
            kind, values, output = ends[given["name"]]
            given["link"] = 1
            outputs = [{"name": output, "type": output, "links": [1]}]
            source = {"id": 2, "type": kind, "pos": [-400, 0], "size": [300, 200], "outputs": outputs}
            graph["nodes"].append(
                {**source, "inputs": [], "mode": 0, "widgets_values": values, "flags": {}, "order": 0}
            )
            graph["links"].append([1, 2, 0, 1, slot, output])
    node["outputs"][0]["links"] = [2]
    graph["links"].append([2, 1, 0, 3, 0, "AUDIO"])
    save = {"id": 3, "type": "MusicGenSaveAudio", "pos": [500, 0], "size": [300, 200], "mode": 0, "order": 2}
    inputs = [{"name": "audio", "type": "AUDIO", "link": 2}]
    graph["nodes"].append(
        {**save, "inputs": inputs, "outputs": [], "widgets_values": ["audio/b", "flac", "16"], "flags": {}}
    )
    graph["last_node_id"], graph["last_link_id"] = 3, 2
    return graph
