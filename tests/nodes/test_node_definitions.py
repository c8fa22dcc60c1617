"""What users and saved workflows rely on: ids, inputs, outputs; and the texts around them."""

import inspect
import json
import re
from pathlib import Path

import comfyui_musicgen as pack
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = json.loads((ROOT / "tests" / "data" / "nodes.json").read_text(encoding="utf-8"))
NODES = pack.NODE_CLASS_MAPPINGS
# Letters that only a text in the language has; Japanese is told from Chinese by its kana.
SCRIPTS = {
    "ja": re.compile("[ぁ-ヶ]"),
    "ko": re.compile("[가-힣]"),
    "zh": re.compile("^(?!.*[ぁ-ヶ]).*[一-鿿]", re.DOTALL),
}
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


def missing_translations(language: str) -> list[str]:
    """Every text of the definitions that a language lacks, has left in English, or has without there being such a thing."""
    folder, faults = ROOT / "locales" / language, []
    texts = json.loads((folder / "nodeDefs.json").read_text(encoding="utf-8"))
    categories = json.loads((folder / "main.json").read_text(encoding="utf-8"))["nodeCategories"]
    faults += [] if "MusicGen" in categories else ["main.json: nodeCategories.MusicGen"]
    for node_id, node in NODES.items():
        wanted = {("display_name",), ("description",)}
        for name, (_, options) in inputs_of(node_id).items():
            wanted |= {("inputs", name, "name"), ("inputs", name, "tooltip")}
            if options.get("control_after_generate"):
                wanted.add(("inputs", "control_after_generate", "name"))  # a widget that the page adds
        for slot in range(len(node.RETURN_TYPES)):
            wanted |= {("outputs", str(slot), "name"), ("outputs", str(slot), "tooltip")}
        found = dict(leaves(texts.get(node_id, {})))
        faults += [".".join((node_id, *path)) for path in sorted(wanted - set(found))]
        faults += [".".join((node_id, *path)) + " (no such text)" for path in sorted(set(found) - wanted)]
        faults += [
            ".".join((node_id, *path)) + f" (not in the language: {text})"
            for path, text in sorted(found.items())
            if path[-1] in ("description", "tooltip") and not SCRIPTS[language].search(text)
        ]
    return faults + [f"{node_id} (no such node)" for node_id in sorted(set(texts) - set(NODES))]


def leaves(table, path=()):
    for key, value in table.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]


@pytest.mark.parametrize("language", sorted(SCRIPTS))
def test_translations_follow_the_definitions(language):
    missing = missing_translations(language)
    assert not missing, f"locales/{language}/nodeDefs.json, {len(missing)} texts:\n" + "\n".join(missing)


@pytest.mark.parametrize("language", sorted(SCRIPTS))
def test_translations_hold_no_syntax_of_the_page(language):
    """The page's vue-i18n reads `|` as a choice of plurals, `@` as a link and braces as a variable."""
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert not [".".join(path) for path, text in leaves(texts) if set(text) & set("|@{}")]


def test_what_is_missing_in_a_language_is_named(monkeypatch):
    class Newer(NODES["MusicGenTrimAudio"]):
        @classmethod
        def INPUT_TYPES(cls):
            types = super().INPUT_TYPES()
            return {**types, "optional": {"swing": ("FLOAT", {"default": 0.0, "tooltip": "How much it swings."})}}

    monkeypatch.setitem(NODES, "MusicGenTrimAudio", Newer)
    monkeypatch.setitem(NODES, "MusicGenNewNode", Newer)
    missing = missing_translations("ja")
    assert {"MusicGenTrimAudio.inputs.swing.name", "MusicGenNewNode.display_name"} <= set(missing)
    assert len([name for name in missing if name.startswith("MusicGenTrimAudio")]) == 2


def test_every_language_has_the_same_files():
    folders = {folder.name: sorted(path.name for path in folder.iterdir()) for folder in (ROOT / "locales").iterdir()}
    assert folders.pop("en") == ["nodeDefs.json"], "labels alone; the rest is English in the definitions"
    assert folders == {language: ["main.json", "nodeDefs.json"] for language in SCRIPTS}


def test_english_labels_have_words_and_units_in_place_of_names():
    texts = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    labels = texts["MusicGenMix"]["inputs"]
    assert labels["gain_1_db"]["name"] == "gain 1 (dB)" and labels["audio_1"]["name"] == "audio 1"
    assert texts["MusicGenTrain"]["outputs"]["1"]["name"] == "loss map"
    for node_id in NODES:
        for name in inputs_of(node_id):
            label = texts.get(node_id, {}).get("inputs", {}).get(name, {"name": name})["name"]
            assert not set(label) & set("_|@{}"), (node_id, label)


@node_ids
def test_help_page_names_every_input_and_output(node_id):
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {CONTRACT[node_id]['name']}\n")
    for name in [*inputs_of(node_id), *CONTRACT[node_id]["outputs"]]:
        assert f"| {name} |" in page or f"| {name} (optional) |" in page, name


@node_ids
def test_help_pages_are_there_in_english_and_korean_with_a_picture(node_id):
    folder = ROOT / "web" / "docs"
    for page in (folder / f"{node_id}.md", folder / node_id / "ko.md"):
        assert f"](pictures/{node_id}.jpg)" in page.read_text(encoding="utf-8"), page
    assert (folder / "pictures" / f"{node_id}.jpg").read_bytes()[:3] == b"\xff\xd8\xff"


def test_only_extension_scripts_lie_where_the_page_loads_all_scripts():
    folder = ROOT / pack.WEB_DIRECTORY
    scripts = {path.name: path.read_text(encoding="utf-8") for path in folder.rglob("*.js")}  # as ComfyUI lists them
    assert set(scripts) == {"finetunes.js", "live.js", "musicgen.js", "reports.js", "search.js", "takes.js"}
    assert all("app.registerExtension(" in script for script in scripts.values())
    modules = {path.name: path.read_text(encoding="utf-8") for path in folder.rglob("*.mjs")}
    assert set(modules) == {"live_picture.mjs", "live_player.mjs", "live_settings.mjs"}
    assert not any("registerExtension" in module for module in modules.values())
