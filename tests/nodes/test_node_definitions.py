"""What users and saved workflows rely on: ids, inputs, outputs; and the texts around them."""

import inspect
import json
from pathlib import Path

import comfyui_musicgen as pack
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = json.loads((ROOT / "tests" / "data" / "nodes.json").read_text(encoding="utf-8"))
NODES = pack.NODE_CLASS_MAPPINGS
node_ids = pytest.mark.parametrize("node_id", sorted(CONTRACT))


def inputs_of(node_id):
    """Input name -> (type, options), required and optional, in order."""
    types = NODES[node_id].INPUT_TYPES()
    return {**types["required"], **types.get("optional", {})}


def test_the_nodes_are_those_of_the_contract():
    assert set(NODES) == set(pack.NODE_DISPLAY_NAME_MAPPINGS) == set(CONTRACT)


@node_ids
def test_inputs_are_as_published(node_id):
    types, expected = NODES[node_id].INPUT_TYPES(), CONTRACT[node_id]
    for group in ("required", "optional"):
        given = types.get(group, {})
        assert list(given) == list(expected[group]), "saved workflows store widgets by position"
        for name, want in expected[group].items():
            kind, options = given[name]
            if want["type"] == "COMBO":
                assert isinstance(kind, list), "only a plain list is checked by the oldest supported ComfyUI"
                assert kind == want.get("options", kind)
            else:
                assert kind == want["type"]
            for key in ("default", "min", "max", "multiline", "control_after_generate"):
                if key in want:
                    assert options[key] == want[key], (name, key)
    assert types.get("hidden", {}) == expected.get("hidden", {})


@node_ids
def test_outputs_and_names_are_as_published(node_id):
    node, expected = NODES[node_id], CONTRACT[node_id]
    assert dict(zip(node.RETURN_NAMES, node.RETURN_TYPES, strict=True)) == expected["outputs"]
    assert pack.NODE_DISPLAY_NAME_MAPPINGS[node_id] == expected["name"]
    assert getattr(node, "OUTPUT_NODE", False) is expected.get("output_node", False)
    assert node.CATEGORY == "audio/MusicGen"
    assert node_id.startswith("MusicGen")


@node_ids
def test_everything_is_explained(node_id):
    node = NODES[node_id]
    assert len(node.DESCRIPTION) > 20
    assert node.SEARCH_ALIASES
    assert all(node.OUTPUT_TOOLTIPS) and len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES)
    for name, (_, options) in inputs_of(node_id).items():
        assert len(options["tooltip"]) > 10, name


@node_ids
def test_units_are_named(node_id):
    units = {"_s": "second", "_db": "dB", "_lufs": "LUFS"}
    for name, (_, options) in inputs_of(node_id).items():
        for suffix, unit in units.items():
            if name.endswith(suffix):
                assert unit in options["tooltip"], name


@node_ids
def test_numbers_have_sane_limits(node_id):
    for name, (kind, options) in inputs_of(node_id).items():
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"], name
            assert options["step"] > 0, name
        if isinstance(kind, list):
            assert options["default"] in kind, name


@node_ids
def test_function_takes_the_inputs(node_id):
    node = NODES[node_id]
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
    types = node.INPUT_TYPES()
    assert list(parameters) == ["self", *inputs_of(node_id), *types.get("hidden", {})]
    for name in types.get("optional", {}):
        default = types["optional"][name][1].get("default")
        assert parameters[name].default == default, "what a missing optional input means is its widget's default"


@node_ids
def test_translations_follow_the_definitions(node_id):
    texts = json.loads((ROOT / "locales" / "ko" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert set(texts) == set(CONTRACT)
    node, text = NODES[node_id], texts[node_id]
    extra = {"control_after_generate"}  # the page adds this widget
    assert set(text["inputs"]) - extra == set(inputs_of(node_id))
    assert list(text["outputs"]) == [str(i) for i in range(len(node.RETURN_TYPES))]
    tooltips = [text["description"], *(t["tooltip"] for k, t in text["inputs"].items() if k not in extra)]
    for sentence in [*tooltips, *(t["tooltip"] for t in text["outputs"].values())]:
        assert any("가" <= letter <= "힣" for letter in sentence), sentence


@node_ids
def test_help_page_names_every_input_and_output(node_id):
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {CONTRACT[node_id]['name']}\n")
    for name in [*inputs_of(node_id), *CONTRACT[node_id]["outputs"]]:
        assert f"| {name} |" in page or f"| {name} (optional) |" in page, name


def test_only_extension_scripts_lie_where_the_page_loads_all_scripts():
    assert {path.name for path in (ROOT / pack.WEB_DIRECTORY).rglob("*.js")} == {"musicgen.js", "takes.js"}
