"""Draws the thumbnails of the templates: each opened and run in a real ComfyUI, then photographed.

    python tests/comfyui/thumbnails.py [--only NAME ...] [--out FOLDER] [--app] [--nodes2] [--nodes]

Needs what tests/comfyui/browser_page.py needs. --app: in App mode, where the page has it. --nodes2: in Nodes 2.0.
"""

import argparse
import importlib.util
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "web" / "docs" / "pictures"
QUALITY = 80
CENTRE = """(id) => {
    const { canvas, graph } = window.app, node = graph._nodes.find((node) => node.id == id), ds = canvas.ds;
    const { width, height, left, top } = canvas.canvas.getBoundingClientRect();
    ds.scale = Math.min(1, (height - 180) / (node.size[1] + 30));  // a tall node is drawn smaller, below the page's bars
    ds.offset[0] = (width / ds.scale - node.size[0]) / 2 - node.pos[0];
    ds.offset[1] = (height / ds.scale - node.size[1] + 60) / 2 - node.pos[1];
    canvas.setDirty(true, true);
    const [x, y] = [0, 1].map((i) => (node.pos[i] + ds.offset[i]) * ds.scale);
    return [x + left, y - 30 * ds.scale + top, node.size[0] * ds.scale, (node.size[1] + 30) * ds.scale];
}"""
FIT = """(margin) => {
    const { canvas, graph } = window.app, nodes = graph._nodes;
    const box = nodes.map((node) => [node.pos[0], node.pos[1] - 30, node.pos[0] + node.size[0], node.pos[1] + node.size[1]]);
    const low = [0, 1].map((i) => Math.min(...box.map((b) => b[i]))), high = [2, 3].map((i) => Math.max(...box.map((b) => b[i])));
    const { width, height, left, top } = canvas.canvas.getBoundingClientRect();
    const ds = canvas.ds;
    ds.scale = Math.min((width - 2 * margin[0]) / (high[0] - low[0]), (height - margin[1] - margin[2]) / (high[1] - low[1]), 1);
    ds.offset[0] = margin[0] / ds.scale - low[0];
    ds.offset[1] = margin[1] / ds.scale - low[1];
    canvas.setDirty(true, true);
    return [margin[0] + left, margin[1] + top, (high[0] - low[0]) * ds.scale, (high[1] - low[1]) * ds.scale];
}"""

ALONE = """(type) => {
    const { graph } = window.app, node = window.LiteGraph.createNode(type);
    graph.clear();
    graph.add(node);
    return node.id;
}"""


def register() -> None:
    """The pack under the name that the tests import it by, as tests/conftest.py does."""
    spec = importlib.util.spec_from_file_location(
        "comfyui_musicgen", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])


def draw(options: argparse.Namespace) -> None:
    from comfyui_musicgen.tests.comfyui import comfy_server
    from comfyui_musicgen.tests.comfyui import page as browser_page

    server = None if options.server else comfy_server.ComfyUI(Path(tempfile.mkdtemp(prefix="thumbnails-")))
    address = options.server or server.address
    try:
        settings = {
            "TutorialCompleted": True,
            "VueNodes.Enabled": options.nodes2,
            "Minimap.Visible": False,
            "Graph.CanvasInfo": False,
        }
        comfy_server.ComfyUI.post(
            SimpleNamespace(address=address), "/settings", {f"Comfy.{name}": value for name, value in settings.items()}
        )
        with browser_page.browser() as browser:
            page = browser_page.open_page(browser, address, width=1900, height=1000)
            for path in sorted((ROOT / "workflows").glob("*.json")):
                if any(name in path.stem for name in options.only):
                    print(path.stem, photograph(page, path, options), flush=True)
            if options.nodes:
                photograph_alone(page)
    finally:
        if server:
            server.stop()
            shutil.rmtree(server.base, ignore_errors=True)


def photograph(page, path: Path, options: argparse.Namespace) -> list[str]:
    """Open and run one template; its picture, and those of the nodes that have none yet."""
    from comfyui_musicgen.tests.comfyui import page as browser_page

    graph = json.loads(path.read_text(encoding="utf-8"))
    graph["extra"]["linearMode"] = options.app
    page.evaluate(browser_page.LOAD, graph)
    if "minutes" in path.stem:  # which would be minutes of work, and look the same
        page.evaluate(browser_page.SET, ["MusicGenSampler", {"duration_s": 12}])
    ended = page.evaluate(browser_page.RUN)
    if "minutes" in path.stem:
        page.evaluate(browser_page.SET, ["MusicGenSampler", {"duration_s": 120}])
    page.wait_for_timeout(4000)  # players and videos come later
    if options.app:
        save(page, None, options.out / f"{path.stem}.{options.format}")
        return ended
    x, y, width, height = page.evaluate(FIT, [30, 110, 75])
    page.wait_for_timeout(2000)
    box = {"x": max(0, x - 12), "y": max(0, y - 28), "width": width + 24, "height": height + 40}
    save(page, box, options.out / f"{path.stem}.{options.format}")
    for node in graph["nodes"]:
        target = PICTURES / f"{node['type']}.jpg"
        if options.nodes and node["type"].startswith("MusicGen") and not target.exists():
            x, y, width, height = page.evaluate(CENTRE, node["id"])
            page.wait_for_timeout(500)
            box = {"x": x - 110, "y": y - 40, "width": width + 220, "height": height + 60}
            save(page, box, target)
    return ended


def photograph_alone(page) -> None:
    """Pictures of the nodes that no template has."""
    from comfyui_musicgen import NODE_CLASS_MAPPINGS

    for node_type in NODE_CLASS_MAPPINGS:
        target = PICTURES / f"{node_type}.jpg"
        if not target.exists():
            x, y, width, height = page.evaluate(f"(type) => ({CENTRE})(({ALONE})(type))", node_type)
            page.wait_for_timeout(500)
            save(page, {"x": x - 60, "y": y - 40, "width": width + 120, "height": height + 60}, target)


def save(page, box: dict | None, target: Path) -> None:
    from PIL import Image

    target.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
    picture.save(target, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="part of the names of templates")
    parser.add_argument("--out", type=Path, default=ROOT / "workflows")
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg")
    parser.add_argument("--app", action="store_true")
    parser.add_argument("--nodes2", action="store_true")
    parser.add_argument("--nodes", action="store_true", help="also the missing pictures of the help pages")
    parser.add_argument("--server", help="address of a ComfyUI that is on, with this pack and no other models")
    register()
    draw(parser.parse_args())
