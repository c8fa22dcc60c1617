"""Subgraph blueprints: the commonest chains as one node each, in the page's list of nodes (ComfyUI from 0.3.67 on)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..musicgen.store.published import DEFAULT
from .basics import CONTINUED_TEXT, MELODY_TEXT, TEXT, VIDEO_TEXT
from .graph import GAP, Graph, Node, Output, height_of, is_widget, links_of, page_node, slot_names, stable_id

CATEGORY = "MusicGen"
_INPUTS, _OUTPUTS = -10, -20  # the page's ids for the two ends of a subgraph
_WIDTH, _ROW = 340, 20


@dataclass(frozen=True)
class Blueprint:
    """A chain with what it shows of itself: inputs by name, as (node, its input), and outputs."""

    graph: Graph
    description: str
    inputs: dict[str, tuple[Node, str]]
    outputs: dict[str, Output]


def _chain(graph: Graph, text: str, audio_node: str | None = None, melody: bool = False, **sampler: Any) -> tuple:
    """Loader, text, perhaps an encoder or a melody, sampler, decoder and level, wired."""
    graph.column()
    loader = graph.add("MusicGenLoader", model=DEFAULT)
    first = graph.add(audio_node, codec=loader["codec"]) if audio_node else None
    graph.column()
    words = graph.add("MusicGenText", conditioner=loader["conditioner"], text=text)
    positive = words["conditioning"]
    if melody:
        first = graph.add("MusicGenMelody", conditioner=loader["conditioner"], conditioning=positive)
        positive = first["conditioning"]
    if audio_node and first:
        sampler["prompt"] = first["codes"]
    graph.column()
    writer = graph.add("MusicGenSampler", model=loader["model"], codec=loader["codec"], positive=positive, **sampler)
    graph.column()
    decode = graph.add("MusicGenDecode", codec=loader["codec"], codes=writer["codes"])
    level = graph.add("MusicGenNormalize", audio=decode["audio"])
    return loader, words, first, writer, level


def _common(loader: Node, words: Node, writer: Node) -> dict[str, tuple[Node, str]]:
    return {
        "text": (words, "text"),
        "duration_s": (writer, "duration_s"),
        "seed": (writer, "seed"),
        "model": (loader, "model"),
    }


def text_to_music() -> Blueprint:
    graph = Graph("Text to Music (MusicGen)")
    loader, words, _, writer, level = _chain(graph, TEXT)
    return Blueprint(
        graph, "Makes music from words. Wire its audio to Save Audio File.", _common(loader, words, writer), {"audio": level["audio"]}
    )  # fmt: skip


def continue_audio() -> Blueprint:
    graph = Graph("Continue Audio (MusicGen)")
    loader, words, encode, writer, level = _chain(graph, CONTINUED_TEXT, "MusicGenEncode", duration_s=12.0)
    inputs = {"audio": (encode, "audio"), **_common(loader, words, writer)}
    description = "Goes on with a clip. The length is that of the whole result, the clip included."
    return Blueprint(graph, description, inputs, {"audio": level["audio"]})


def follow_a_melody() -> Blueprint:
    graph = Graph("Follow a Melody (MusicGen)")
    loader, words, melody, writer, level = _chain(graph, MELODY_TEXT, melody=True)
    inputs = {"audio": (melody, "audio"), **_common(loader, words, writer)}
    description = "Plays the tune of a recording in the sound that the text asks for; also gives a picture of the tune."
    return Blueprint(graph, description, inputs, {"audio": level["audio"], "chroma": melody["chroma"]})


def music_for_pictures() -> Blueprint:
    graph = Graph("Music for Pictures (MusicGen)")
    graph.column()
    length = graph.add("MusicGenLength")
    loader, words, _, writer, level = _chain(graph, VIDEO_TEXT, duration_s=length["seconds"])
    inputs = {"images": (length, "images"), "fps": (length, "fps"), **_common(loader, words, writer)}
    del inputs["duration_s"]
    return Blueprint(
        graph, "Makes music as long as a video or a batch of pictures.", inputs, {"audio": level["audio"]}
    )  # fmt: skip


BLUEPRINTS: tuple[Callable[[], Blueprint], ...] = (text_to_music, continue_audio, follow_a_melody, music_for_pictures)


def blueprint_form(blueprint: Blueprint) -> dict[str, Any]:
    """The blueprint as the page stores it: one node, and the subgraph that it stands for."""
    definition = _definition(blueprint)
    inputs, name = blueprint.inputs, blueprint.graph.name
    types = {label: node.inputs[of] for label, (node, of) in inputs.items()}
    node = {
        "id": 1,
        "type": definition["id"],
        "pos": [0, 0],
        "size": [_WIDTH, height_of("MusicGenText", types, len(blueprint.outputs))],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [_outer_input(label, kind) for label, (kind, _) in types.items()],
        "outputs": [
            {"localized_name": label, "name": label, "type": output.type, "links": []}
            for label, output in blueprint.outputs.items()
        ],
        "title": name,
        "properties": {},
        "widgets_values": [],
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [definition]},
        "extra": {},
    }


def _outer_input(label: str, kind: Any) -> dict[str, Any]:
    stored: dict[str, Any] = {"label": label, "name": label, "type": _type(kind)}
    if is_widget(kind):
        stored["widget"] = {"name": label}
    stored["link"] = None
    return stored


def _type(kind: Any) -> str:
    return "COMBO" if isinstance(kind, list) else kind


def _definition(blueprint: Blueprint) -> dict[str, Any]:
    graph, name = blueprint.graph, blueprint.graph.name
    links = links_of(graph)
    right = max(node.pos[0] + node.size[0] for node in graph.nodes)
    inputs, outputs = [], []
    for slot, (label, (node, of)) in enumerate(blueprint.inputs.items()):
        kind = _type(node.inputs[of][0])
        links.append([len(links) + 1, _INPUTS, slot, node.id, slot_names(node).index(of), kind])
        inputs.append(_end(name, "input", label, kind, links[-1][0], -GAP - 30, slot))
    for slot, (label, output) in enumerate(blueprint.outputs.items()):
        links.append([len(links) + 1, output.node.id, output.slot, _OUTPUTS, slot, output.type])
        outputs.append(_end(name, "output", label, output.type, links[-1][0], right + GAP + 30, slot))
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {
        "id": stable_id("subgraph", name),
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": len(graph.nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": _INPUTS, "bounding": [-GAP - 150, 0, 120, _ROW * (len(inputs) + 2)]},
        "outputNode": {"id": _OUTPUTS, "bounding": [right + GAP, 0, 120, _ROW * (len(outputs) + 2)]},
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": [page_node(node, order, links) for order, node in enumerate(graph.nodes)],
        "groups": [],
        "links": [dict(zip(keys, link, strict=True)) for link in links],
        "extra": {},
        "category": CATEGORY,
        "description": blueprint.description,
    }


def _end(name: str, side: str, label: str, kind: str, link: int, x: int, slot: int) -> dict[str, Any]:
    return {
        "id": stable_id(side, name, label),
        "name": label,
        "type": kind,
        "linkIds": [link],
        "label": label,
        "pos": [x, _ROW * (slot + 1)],
    }
