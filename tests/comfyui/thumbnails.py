"""Draws the thumbnails of the templates: each opened and run in a real ComfyUI, then photographed.

    python tests/comfyui/thumbnails.py [--only NAME] [--out FOLDER] [--app] [--nodes2]

Needs what tests/comfyui/test_browser.py needs. --app: in App mode, where the page has it. --nodes2: in Nodes 2.0.
"""

import argparse
import importlib.util
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUALITY = 80
FIT = """(margin) => {
    const { canvas, graph } = window.app, nodes = graph._nodes;
    const box = nodes.map((node) => [node.pos[0], node.pos[1] - 30, node.pos[0] + node.size[0], node.pos[1] + node.size[1]]);
    const low = [0, 1].map((i) => Math.min(...box.map((b) => b[i]))), high = [2, 3].map((i) => Math.max(...box.map((b) => b[i])));
    const { width, height } = canvas.canvas.getBoundingClientRect();
    const ds = canvas.ds;
    ds.scale = Math.min((width - 2 * margin[0]) / (high[0] - low[0]), (height - margin[1] - margin[2]) / (high[1] - low[1]), 1);
    ds.offset[0] = margin[0] / ds.scale - low[0];
    ds.offset[1] = margin[1] / ds.scale - low[1];
    canvas.setDirty(true, true);
    return [margin[0], margin[1], (high[0] - low[0]) * ds.scale, (high[1] - low[1]) * ds.scale];
}"""


def register() -> None:
    """The pack under the name that the tests import it by, as tests/conftest.py does."""
    spec = importlib.util.spec_from_file_location(
        "comfyui_musicgen", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])


def draw(options: argparse.Namespace) -> None:
    from comfyui_musicgen.tests.comfyui import comfy_server, test_browser
    from PIL import Image
    from playwright.sync_api import sync_playwright

    server = comfy_server.ComfyUI(Path(tempfile.mkdtemp(prefix="thumbnails-")))
    try:
        server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": options.nodes2})
        executable = next(filter(None, map(shutil.which, test_browser.BROWSERS)))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1900, "height": 1000})
            test_browser.open_page(page, server)
            for path in sorted((ROOT / "workflows").glob("*.json")):
                if options.only in path.stem:
                    graph = json.loads(path.read_text(encoding="utf-8"))
                    graph["extra"]["linearMode"] = options.app
                    page.evaluate(test_browser.LOAD, graph)
                    print(path.stem, page.evaluate(test_browser.RUN), flush=True)
                    page.wait_for_timeout(1500)
                    clip = None
                    if not options.app:
                        x, y, width, height = page.evaluate(FIT, [70, 110, 60])
                        page.wait_for_timeout(700)
                        edges = {"x": max(0, x - 12), "y": max(0, y - 12)}
                        clip = {**edges, "width": width + 24, "height": height + 24}
                    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
                    picture.save(options.out / f"{path.stem}.{options.format}", quality=QUALITY, optimize=True)
    finally:
        server.stop()
        shutil.rmtree(server.base, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of the names of templates")
    parser.add_argument("--out", type=Path, default=ROOT / "workflows")
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg")
    parser.add_argument("--app", action="store_true")
    parser.add_argument("--nodes2", action="store_true")
    register()
    draw(parser.parse_args())
