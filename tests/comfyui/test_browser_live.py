"""The page while music is written: the sampler's player advances, looks right, and leaves the workflow as it was."""

import json
import time
from pathlib import Path

import pytest
from comfyui_musicgen.tests.comfyui.page import LOAD, RUN, draws_elements, problems

GRAPH = Path(__file__).resolve().parents[2] / "workflows" / "Text to music.json"
SAMPLER = 'window.app.graph._nodes.find((node) => node.type === "MusicGenSampler")'
# The other nodes' sizes are the page's: in Nodes 2.0 that of Save Audio File grows with its player.
SAVED = """() => {
    const { nodes, links } = window.app.graph.serialize();
    return JSON.stringify([nodes.map((node) => (node.type === "MusicGenSampler" ? node : { ...node, size: 0 })), links]);
}"""
PREPARE = """async ([seed, options]) => {
    const find = (type) => window.app.graph._nodes.find((node) => node.type === type);
    const [loader, sampler] = [find("MusicGenLoader"), find("MusicGenSampler")];
    loader.connect(2, sampler, sampler.inputs.findIndex((input) => input.name === "codec"));
    const set = (node, name, value) => (node.widgets.find((widget) => widget.name === name).value = value);
    set(loader, "model", "toy");
    set(sampler, "control_after_generate", "fixed");
    set(sampler, "seed", seed);
    for (const [name, value] of Object.entries(options)) set(sampler, name, value);
    await new Promise((done) => setTimeout(done, 500));
    window.moments = [];
    const look = () => {
        const view = sampler.musicgenLive;
        if (!view?.run) return;
        const { player, picture, canvas } = view;
        window.moments.push({
            kind: player && !canvas.hidden ? "sound" : "line", written: view.writtenS, heard: picture.heard?.[1] ?? 0,
            line: view.line.textContent, state: player?.state ?? null, shown: view.element.isConnected,
            height: view.element.getBoundingClientRect().height,
        });
    };
    clearInterval(window.looking);
    window.looking = setInterval(look, 200);
    return (SAVED)();
}""".replace("SAVED", SAVED)
SHADES = f"""() => {{
    const canvas = {SAMPLER}.musicgenLive.canvas;
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const shades = new Set();
    for (let i = 0; i < data.length; i += 4) shades.add(data.slice(i, i + 4).join());
    return shades.size;
}}"""

# A clip of 1234.5 s, of which the last message is `status`, on a sampler of a width.
SEND = f"""([width, status]) => {{
    const sampler = {SAMPLER}, about = {{ node: String(sampler.id), written_s: 1234.5, took_s: 45.6, left_s: 0, position: 64000 }};
    sampler.setSize([width, sampler.size[1]]);
    const send = (kind, more) => window.app.api.dispatchCustomEvent("musicgen.live", {{ kind, ...about, ...more }});
    send("begin", {{ total_s: 1234.5, known_s: 0, sound: true, rate_hz: 32000, channels: 1, bin: 320 }});
    send("sound", {{ length: 640, peaks: btoa("abcd") }});
    send("end", {{ status }});
}}"""
LINE = f"""() => {{
    const {{ line }} = {SAMPLER}.musicgenLive;
    return [line.textContent, [line.scrollWidth, line.clientWidth], [line.scrollHeight, line.clientHeight]];
}}"""


def prepared(page, seed, **options):
    page.evaluate(LOAD, json.loads(GRAPH.read_text(encoding="utf-8")))
    return page.evaluate(PREPARE, [seed, options])


def moments(page):
    return page.evaluate("() => window.moments")


def test_the_player_advances_while_the_music_is_written(page):
    before = prepared(page, time.time_ns() % 2**32, duration_s=20.0)  # what was made before is not written again
    if not draws_elements(page):
        pytest.skip("this page draws no elements in Nodes 2.0")
    assert page.evaluate(RUN) == ["execution_success", ""]
    page.wait_for_function(f"() => {SAMPLER}.musicgenLive.element.getBoundingClientRect().height > 60", timeout=10_000)
    page.wait_for_timeout(500)
    seen = moments(page)
    written = [moment["written"] for moment in seen]
    assert written == sorted(written) and len(set(written)) > 3, "it does not advance"
    assert written[-1] == 20 and seen[-1]["line"].startswith("20 s, written in ")
    assert any(" of 20 s, " in moment["line"] and moment["line"].endswith(" s left") for moment in seen)
    heard = [moment["heard"] for moment in seen]
    assert heard == sorted(heard) and heard[-1] > 0, "no sound arrived"
    assert heard[-1] == 20 * 100, "all of it is drawn in the end: two peaks a frame"
    assert seen[-1]["shown"] and seen[-1]["height"] > 60
    assert page.evaluate(SHADES) > 2, "the picture is empty"
    assert page.evaluate(SAVED) == before, "the workflow changed"
    assert problems(page) == []


def test_sound_and_volume_are_remembered_and_the_picture_alone_has_no_player(page):
    prepared(page, 32, duration_s=1.0, listen="picture")
    assert page.evaluate(RUN) == ["execution_success", ""]
    view = f"{SAMPLER}.musicgenLive"
    assert page.evaluate(f"() => {view}.player === null && {view}.sound.hidden")
    page.evaluate(f"() => {{ {view}.setOn(false); {view}.setVolume(0.25); }}")
    kept = page.evaluate("() => localStorage.getItem('MusicGenPansori.Live')")
    assert json.loads(kept) == {"on": False, "volume": 0.25}
    page.evaluate("() => localStorage.removeItem('MusicGenPansori.Live')")


def test_a_kept_cancel_is_said_on_the_node(page):
    prepared(page, 33, duration_s=60.0, on_cancel="keep")
    page.evaluate(f"""() => {{
        const pressed = setInterval(() => {{
            if (!({SAMPLER}.musicgenLive?.writtenS >= 1)) return;
            clearInterval(pressed);
            window.app.api.interrupt();
        }}, 100);
    }}""")
    assert page.evaluate(RUN) == ["execution_success", ""]
    page.wait_for_timeout(500)
    last = moments(page)[-1]
    assert last["line"] == f"First {last['written']:.1f} of 60 s kept"
    assert problems(page) == []


def test_the_player_stands_above_a_picture_of_its_node(page):
    """The losses of a training lay under the player of its last sample: the page draws a picture down to the node's end."""
    prepared(page, 35)
    page.evaluate(
        f"() => {SAMPLER}.addCustomWidget({{ name: '$$canvas-image-preview', type: 'custom', serialize: false }})"
    )
    page.evaluate(SEND, [310, "whole"])
    names = page.evaluate(f"() => {SAMPLER}.widgets.map((widget) => widget.name)")
    assert names[-2:] == ["musicgen_live", "$$canvas-image-preview"]


@pytest.mark.parametrize("status", ["finished", "kept", "stopped", "whole"])
@pytest.mark.parametrize("width", [250, 310])
def test_the_last_line_fits_the_node_and_a_whole_clip_was_not_written(page, status, width):
    """A kept take's line was cut off at the node's width; a clip that was handed over whole was "written in 0.0 s"."""
    prepared(page, 34)
    if not draws_elements(page):
        pytest.skip("this page draws no elements in Nodes 2.0")
    page.evaluate(SEND, [width, status])
    page.wait_for_function(f"() => {SAMPLER}.musicgenLive.line.getBoundingClientRect().width > 20", timeout=10_000)
    line, wide, tall = page.evaluate(LINE)
    assert wide[0] <= wide[1] and tall[0] <= tall[1], f"{line!r} is cut off: {wide}, {tall}"
    assert "1234" in line and (line == "1234.5 s") is (status == "whole")
    assert problems(page) == []
