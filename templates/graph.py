"""A workflow as code: nodes in columns, wired by name, and its forms for the page and for the API."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..nodes import NODE_CLASS_MAPPINGS as NODES
from ..nodes import NODE_DISPLAY_NAME_MAPPINGS as TITLES
from ..nodes.inputs import declared
from .core_nodes import CORE
from .core_nodes import VERSION as CORE_VERSION

ROOT = Path(__file__).resolve().parent.parent
PACK = "musicgen-pansori"
NOTE = "MarkdownNote"
BYPASSED = 2  # mode of a node that does not run: "never" in the page
GAP, TITLE_HEIGHT = 60, 30
_SLOT, _WIDGET, _MARGIN = 20, 28, 50  # heights, of the taller of the two canvases (Nodes 2.0)
_EXTRA_HEIGHT = {
    "MusicGenText": 60,
    "MusicGenSaveAudio": 130,
    "MusicGenLength": 60,
    "MusicGenTimeline": 110,
    "MusicGenTempo": 150,
    "MusicGenChords": 210,  # what is told, and what the model makes of it
    "MusicGenAnalyze": 150,
    "MusicGenAlign": 150,
    "MusicGenMix": 110,
    "MusicGenScore": 170,
    "MusicGenSaveScore": 130,
    "MusicGenLoop": 90,  # the report of what was found
    "MusicGenFineTune": 30,  # the page's button
    "MusicGenTakes": 290,  # four takes
    "MusicGenDataset": 110,  # the first lines of the report
    "MusicGenTrain": 130,
    "PreviewAudio": 60,
    "PreviewImage": 230,
    "SaveVideo": 250,
}
# What a node grows by while it runs, besides the size that is stored: the sampler's player, and of a training the losses too.
_ROOM_BELOW = {"MusicGenSampler": 150, "MusicGenTrain": 410}
_WIDTHS = {
    "MusicGenText": 380,
    "MusicGenTimeline": 420,
    "MusicGenChords": 380,
    "MusicGenTakes": 480,
    "MusicGenTrain": 420,  # the losses are drawn across it, and must be legible
    "MusicGenScore": 380,
    "MusicGenSaveAudio": 340,
    "PreviewImage": 340,
    "SaveVideo": 340,
    NOTE: 460,
}
_WIDTH = 310
_PAGE_ONLY = "AUDIO_UI"
_WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "AUDIO_UI")
_NAMESPACE = uuid.UUID("6f0a3a3e-3f5e-5f0e-9a70-6d757369636e")


def pack_version() -> str:
    """The version of pyproject.toml, which every stored node names."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert found is not None
    return found[1]


def stable_id(*names: str) -> str:
    """A UUID that follows from names: files that are written again stay the same."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(names)))


@dataclass(frozen=True)
class Output:
    """An output socket of a node."""

    node: "Node"
    slot: int

    @property
    def type(self) -> str:
        return self.node.output_types[self.slot]


@dataclass
class Node:
    """A node of a workflow: its wires, its widgets' values, its place."""

    id: int
    type: str
    title: str | None
    wires: dict[str, Output]
    values: dict[str, Any]
    pos: tuple[int, int]
    size: tuple[int, int]
    mode: int = 0

    def __getitem__(self, name: str) -> Output:
        names = NODES[self.type].RETURN_NAMES if self.type in NODES else CORE[self.type].RETURN_NAMES
        return Output(self, names.index(name))

    @property
    def inputs(self) -> dict[str, tuple[Any, dict]]:
        if self.type == NOTE:
            return {}
        return declared(NODES[self.type]) if self.type in NODES else CORE[self.type].inputs

    @property
    def output_names(self) -> tuple[str, ...]:
        if self.type == NOTE:
            return ()
        return (NODES if self.type in NODES else CORE)[self.type].RETURN_NAMES

    @property
    def output_types(self) -> tuple[str, ...]:
        if self.type == NOTE:
            return ()
        return (NODES if self.type in NODES else CORE)[self.type].RETURN_TYPES

    @property
    def display_name(self) -> str:
        return self.title or (TITLES[self.type] if self.type in NODES else CORE[self.type].title)

    def is_optional(self, name: str) -> bool:
        return self.type in NODES and name in NODES[self.type].INPUT_TYPES().get("optional", {})

    def widget_values(self) -> list[Any]:
        """Values in the order in which the page stores them, the control of a seed included."""
        stored: list[Any] = []
        for name, (kind, options) in self.inputs.items():
            if is_widget(kind):
                stored.append(self.values.get(name, options.get("default")))
                if options.get("control_after_generate"):
                    stored.append(self.values.get("control_after_generate", "randomize"))
        return stored


def is_widget(kind: Any) -> bool:
    """Whether an input of this type has a widget: a list to choose from, or a simple value."""
    return isinstance(kind, list) or kind in _WIDGET_TYPES


def height_of(node_type: str, inputs: Mapping[str, tuple[Any, dict]], n_outputs: int) -> int:
    """Height that is enough in both canvases, the title not counted."""
    n_sockets = sum(not is_widget(kind) for kind, _ in inputs.values())
    n_widgets = sum(is_widget(kind) for kind, _ in inputs.values())
    rows = _SLOT * max(n_sockets, n_outputs) + _WIDGET * n_widgets
    return rows + _MARGIN + _EXTRA_HEIGHT.get(node_type, 0)


@dataclass
class Graph:
    """A workflow under construction: `column` begins a column, `add` puts a node below the last one in it."""

    name: str
    nodes: list[Node] = field(default_factory=list)
    app_inputs: list[tuple[Node, str, str]] = field(default_factory=list)  # node, widget, what is said below its label
    _x: int = 0
    _y: int = 0
    _width: int = 0

    def column(self) -> None:
        """Go to the top of the next column."""
        self._x, self._y, self._width = self._x + self._width + (GAP if self.nodes else 0), 0, 0

    def note(self, text: str, height: int) -> Node:
        """A note in Markdown. It stands for itself: nothing is wired to it."""
        return self._place(NOTE, "How to use", {}, {"text": text}, height)

    def add(self, node_type: str, title: str | None = None, mode: int = 0, **inputs: Any) -> Node:
        """A node, with an Output for each wired input and a value for each widget that differs from its default."""
        wires = {name: value for name, value in inputs.items() if isinstance(value, Output)}
        values = {name: value for name, value in inputs.items() if name not in wires}
        node = self._place(node_type, title, wires, values)
        unknown = set(inputs) - set(node.inputs) - {"control_after_generate"}
        assert not unknown, f"{node_type} has no input {unknown}"
        node.mode = mode
        return node

    def app(self, *inputs: tuple[Node, str] | tuple[Node, str, str]) -> None:
        """The widgets that App mode shows, in their order, each with a description if it has one. Its outputs are the nodes that save.

        App mode shows no titles of nodes: of widgets of the same name the description is the title.
        """
        names = [given[1] for given in inputs]
        for node, name, *said in inputs:
            title = node.display_name if names.count(name) > 1 else ""
            self.app_inputs.append((node, name, said[0] if said else title))

    def _place(
        self, node_type: str, title: str | None, wires: dict[str, Output], values: dict[str, Any], height: int = 0
    ) -> Node:
        width = _WIDTHS.get(node_type, _WIDTH)
        node = Node(len(self.nodes) + 1, node_type, title, wires, values, (self._x, self._y), (width, height))
        node.size = (width, height or height_of(node_type, node.inputs, len(node.output_types)))
        self._y += node.size[1] + _ROOM_BELOW.get(node_type, 0) + TITLE_HEIGHT + GAP // 2
        self._width = max(self._width, width)
        self.nodes.append(node)
        return node

    def outputs(self) -> list[Node]:
        """Nodes that save what App mode shows."""
        return [node for node in self.nodes if node.type in ("MusicGenSaveAudio", "SaveVideo") and not node.mode]


def page_form(graph: Graph) -> dict[str, Any]:
    """The workflow as the page stores it, format 0.4."""
    links = links_of(graph)
    return {
        "id": stable_id("workflow", graph.name),
        "revision": 0,
        "last_node_id": len(graph.nodes),
        "last_link_id": len(links),
        "nodes": [page_node(node, order, links) for order, node in enumerate(graph.nodes)],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {
            "ds": {"scale": 0.7, "offset": [60, 120]},
            "frontendVersion": "1.27.10",
            "linearData": {
                "inputs": [
                    [node.id, widget, *([{"description": said}] if said else [])]
                    for node, widget, said in graph.app_inputs
                ],
                "outputs": [node.id for node in graph.outputs()],
            },
            "linearMode": False,
        },
        "version": 0.4,
    }


def links_of(graph: Graph) -> list[list]:
    """[id, source, its slot, target, its slot, type] of every wire; slots as the page numbers them."""
    links: list[list] = []
    for node in graph.nodes:
        for slot, name in enumerate(slot_names(node)):
            if name in node.wires:
                source = node.wires[name]
                links.append([len(links) + 1, source.node.id, source.slot, node.id, slot, source.type])
    return links


def slot_names(node: Node) -> list[str]:
    """Input slots in the page's order: sockets first, then the widgets', which can be wired as well."""
    sockets = [name for name, (kind, _) in node.inputs.items() if not is_widget(kind)]
    return [*sockets, *(name for name, (kind, _) in node.inputs.items() if is_widget(kind))]


def page_node(node: Node, order: int, links: list[list]) -> dict[str, Any]:
    """A node as the page stores it."""
    stored: dict[str, Any] = {
        "id": node.id,
        "type": node.type,
        "pos": list(node.pos),
        "size": list(node.size),
        "flags": {},
        "order": order,
        "mode": node.mode,
        "inputs": [_page_input(node, slot, name, links) for slot, name in enumerate(slot_names(node))],
        "outputs": [
            {
                "localized_name": name,
                "name": name,
                "type": kind,
                "links": [link[0] for link in links if link[1:3] == [node.id, slot]],
            }
            for slot, (name, kind) in enumerate(zip(node.output_names, node.output_types, strict=True))
        ],
        "properties": _properties(node.type),
        "widgets_values": [node.values["text"]] if node.type == NOTE else node.widget_values(),
    }
    if node.title:
        stored["title"] = node.title
    if node.type == NOTE:
        stored.update(color="#432", bgcolor="#653")
    return stored


def _page_input(node: Node, slot: int, name: str, links: list[list]) -> dict[str, Any]:
    kind = node.inputs[name][0]
    stored: dict[str, Any] = {"localized_name": name, "name": name}
    if node.is_optional(name):
        stored["shape"] = 7
    stored["type"] = "COMBO" if isinstance(kind, list) else kind
    if is_widget(kind):
        stored["widget"] = {"name": name}
    stored["link"] = next((link[0] for link in links if link[3:5] == [node.id, slot]), None)
    return stored


def _properties(node_type: str) -> dict[str, str]:
    if node_type == NOTE:
        return {}
    pack, version = (PACK, pack_version()) if node_type in NODES else ("comfy-core", CORE_VERSION)
    return {"Node name for S&R": node_type, "cnr_id": pack, "ver": version}


def api_form(graph: Graph) -> dict[str, Any]:
    """The workflow as POST /prompt takes it. Nodes that do not run are left out, as the page does."""
    return {
        str(node.id): {
            "inputs": _api_inputs(node),
            "class_type": node.type,
            "_meta": {"title": node.display_name},
        }
        for node in graph.nodes
        if node.type != NOTE and not node.mode
    }


def _api_inputs(node: Node) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for name, (kind, options) in node.inputs.items():
        if name in node.wires:
            source = node.wires[name]
            inputs[name] = [str(source.node.id), source.slot]
        elif is_widget(kind) and kind != _PAGE_ONLY:
            inputs[name] = node.values.get(name, options.get("default"))
    return inputs
