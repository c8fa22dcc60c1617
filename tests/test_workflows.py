"""The shipped workflows: graph and API form say the same, and fit the nodes."""

import json
import re
from pathlib import Path

import pytest
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen.card import read_card, vocabulary_of
from comfyui_musicgen.musicgen.store.published import SHIPPED
from comfyui_musicgen.templates import build

ROOT = Path(__file__).resolve().parent.parent
GRAPHS = sorted((ROOT / "workflows").glob("*.json"))
NOTES = {"MarkdownNote", "Note"}
# Widgets of ComfyUI's own nodes in our workflows, in order; those that only the page has are left out of the API form.
CORE_WIDGETS = {
    "PreviewImage": [],
    "EmptyImage": ["width", "height", "batch_size", "color"],
    "CreateVideo": ["fps"],
    "SaveVideo": ["filename_prefix", "format", "codec"],
}
PAGE_ONLY = {"audioUI", "upload", "control_after_generate"}

graphs = pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def api_path(path):
    return path.parent / "api" / f"{path.stem.lower().replace(' ', '_')}.json"


def inputs_of(node_type):
    types = NODES[node_type].INPUT_TYPES()
    return {**types["required"], **types.get("optional", {})}


def widgets_of(node_type):
    """Names of the page's widgets of a node, in the order in which workflows store their values."""
    if node_type in CORE_WIDGETS:
        return CORE_WIDGETS[node_type]
    names = []
    for name, (kind, options) in inputs_of(node_type).items():
        if isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN"):
            names.append(name)
            if options.get("control_after_generate"):
                names.append("control_after_generate")
    return names


def to_api(graph):
    """Graph format -> {id: (class_type, inputs)}, as the page does it."""
    sources = {link_id: [str(node), slot] for link_id, node, slot, *_ in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] in NOTES or node["mode"]:
            continue
        values = (
            dict(zip(widgets_of(node["type"]), node["widgets_values"], strict=True)) if "widgets_values" in node else {}
        )
        inputs = {name: value for name, value in values.items() if name not in PAGE_ONLY}
        inputs.update({i["name"]: sources[i["link"]] for i in node["inputs"] if i.get("link") is not None})
        prompt[str(node["id"])] = (node["type"], inputs)
    return prompt


def test_there_are_at_least_ten_and_all_are_what_their_source_says():
    assert len(GRAPHS) >= 10
    assert {path.stem for path in GRAPHS} >= {"Text to music", "Continue a clip", "Follow a melody"}
    wanted = build.texts()
    stale = [str(path) for path, text in wanted.items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert not stale, f"run: python -m templates ({', '.join(stale)})"
    assert {path.name for path in GRAPHS} == {path.name for path in wanted if path.parent == Path("workflows")}
    assert {path.name for path in (ROOT / "workflows" / "api").glob("*.json")} == {
        api_path(path).name for path in GRAPHS
    }


@graphs
def test_graph_and_api_form_agree(path):
    api = {id: (node["class_type"], node["inputs"]) for id, node in load(api_path(path)).items()}
    assert to_api(load(path)) == api


@graphs
def test_values_fit_the_nodes(path):
    for node in load(api_path(path)).values():
        if node["class_type"] in CORE_WIDGETS:
            continue
        known = inputs_of(node["class_type"])
        required = NODES[node["class_type"]].INPUT_TYPES()["required"]
        assert set(required) <= set(node["inputs"]) <= set(known)
        for name, value in node["inputs"].items():
            kind, options = known[name]
            if isinstance(value, list):
                continue  # a wire
            if isinstance(kind, list):
                assert value in kind, name
            elif kind in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"], name


@graphs
def test_links_join_like_sockets(path):
    graph = load(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link_id, source, source_slot, target, target_slot, kind in graph["links"]:
        output, given = nodes[source]["outputs"][source_slot], nodes[target]["inputs"][target_slot]
        assert output["type"] == given["type"] == kind
        assert link_id in output["links"] and given["link"] == link_id
        if nodes[source]["type"] in NODES:
            node = NODES[nodes[source]["type"]]
            assert (node.RETURN_NAMES[source_slot], node.RETURN_TYPES[source_slot]) == (output["name"], kind)
        if nodes[target]["type"] in NODES:
            assert inputs_of(nodes[target]["type"])[given["name"]][0] == kind
    assert graph["last_link_id"] >= max(link[0] for link in graph["links"])
    assert graph["last_node_id"] >= max(nodes)


@graphs
def test_graphs_explain_themselves_and_name_their_pack(path):
    graph = load(path)
    notes = [node for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    assert notes and "models/musicgen" in notes[0]["widgets_values"][0]
    # Nodes 2.0 writes code spans in blue on the colour of the note: nobody can read them.
    assert not any("`" in node["widgets_values"][0] for node in notes)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)[1]
    for node in graph["nodes"]:
        if node["type"] in NODES:
            assert node["properties"]["cnr_id"] == "musicgen-pansori"
            assert node["properties"]["ver"] == version
        else:
            assert node["type"] in NOTES or node["properties"]["cnr_id"] == "comfy-core"


@graphs
def test_texts_have_no_word_that_the_model_was_not_taught(path):
    nodes = load(api_path(path)).values()
    if any(node["class_type"] == "MusicGenTrain" for node in nodes):
        return  # it is taught the words of its clips
    models = {node["inputs"]["model"] for node in nodes if node["class_type"] == "MusicGenLoader"}
    texts = [node["inputs"]["text"] for node in nodes if node["class_type"] == "MusicGenText"]
    for model in models:
        vocabulary = vocabulary_of(read_card(SHIPPED[model]))
        assert [vocabulary.warning(vocabulary.translate(text), model) for text in texts] == [None] * len(texts)


@graphs
def test_graphs_have_a_thumbnail(path):
    assert path.with_suffix(".jpg").read_bytes()[:3] == b"\xff\xd8\xff"


@graphs
def test_the_first_press_needs_nothing_that_does_not_come_with_the_pack(path):
    for node in load(api_path(path)).values():
        assert node["class_type"] not in ("LoadAudio", "LoadImage", "LoadVideo", "MusicGenDiffusionLoader")
        assert isinstance(node["inputs"].get("model", []), list) or node["inputs"]["model"] in SHIPPED
        weights = node["inputs"].get("weights", "")
        assert weights == "" or isinstance(weights, list)  # a wire: what another node of the workflow has trained


@graphs
def test_nodes_do_not_overlap(path):
    nodes = load(path)["nodes"]
    for i, one in enumerate(nodes):
        for other in nodes[:i]:
            apart = [
                one["pos"][axis] + one["size"][axis] <= other["pos"][axis] - title
                or other["pos"][axis] + other["size"][axis] <= one["pos"][axis] - title
                for axis, title in ((0, 0), (1, 30))
            ]
            assert any(apart), (one["type"], other["type"])


@graphs
def test_app_mode_shows_a_few_widgets_and_what_is_saved(path):
    graph = load(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    shown = graph["extra"]["linearData"]
    assert 3 <= len(shown["inputs"]) <= 5
    seen = [(nodes[node_id]["type"], widget, str(said)) for node_id, widget, *said in shown["inputs"]]
    assert len(set(seen)) == len(seen), "two widgets that look the same: App mode shows no titles of nodes"
    for node_id, widget, *_ in shown["inputs"]:
        sockets = {given["name"]: given for given in nodes[node_id]["inputs"]}
        assert "widget" in sockets[widget] and sockets[widget]["link"] is None
    saving = {"MusicGenSaveAudio", "SaveVideo"}
    assert shown["outputs"] == [i for i, node in nodes.items() if node["type"] in saving and not node["mode"]]
    assert graph["extra"]["linearMode"] is False


def assert_the_only_sampler_is_heard(nodes, source_of):
    """A sampler that is alone in its workflow has the codec of the loader that its model comes from."""
    samplers = [node for node in nodes if node["type"] == "MusicGenSampler"]
    if len(samplers) > 1:
        return  # two would play into one another
    links = {given["name"]: given["link"] for given in samplers[0]["inputs"]}
    loader = next(node for node in nodes if node["type"] == "MusicGenLoader")
    assert links["codec"] is not None, "nothing is heard while the music is written"
    slot = [output["name"] for output in loader["outputs"]].index("codec")
    assert source_of[links["codec"]] == (loader["id"], slot)


@graphs
def test_the_music_is_heard_while_it_is_written(path):
    graph = load(path)
    assert_the_only_sampler_is_heard(graph["nodes"], {link[0]: tuple(link[1:3]) for link in graph["links"]})


BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_blueprints_wire_their_ends_to_sockets_of_one_type(path):
    assert path.read_bytes().isascii(), "servers read blueprints in the platform's encoding"
    blueprint = load(path)
    (outer,), (inner,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert outer["type"] == inner["id"] and outer["title"] == inner["name"] == path.stem
    nodes = {node["id"]: node for node in inner["nodes"]}
    ends = {-10: inner["inputs"], -20: inner["outputs"]}
    for link in inner["links"]:
        source = ends[-10] if link["origin_id"] == -10 else nodes[link["origin_id"]]["outputs"]
        target = ends[-20] if link["target_id"] == -20 else nodes[link["target_id"]]["inputs"]
        output, given = source[link["origin_slot"]], target[link["target_slot"]]
        assert output["type"] == given["type"] == link["type"]
        assert link["id"] in output.get("links", output.get("linkIds", []))
        assert link["id"] in (given["link"],) if "link" in given else given["linkIds"]
    for side in ("inputs", "outputs"):
        assert [(end["name"], end["type"]) for end in outer[side]] == [
            (end["name"], end["type"]) for end in inner[side]
        ]


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_blueprints_are_heard_while_they_write(path):
    (inner,) = load(path)["definitions"]["subgraphs"]
    sources = {link["id"]: (link["origin_id"], link["origin_slot"]) for link in inner["links"]}
    assert_the_only_sampler_is_heard(inner["nodes"], sources)


def test_there_are_blueprints_of_the_commonest_chains():
    assert len(BLUEPRINTS) >= 4
