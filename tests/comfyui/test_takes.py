"""MusicGen Takes and Seamless Loop in a real ComfyUI: over HTTP, and on the page."""

import time

import pytest
from comfyui_musicgen.musicgen.audio import read
from comfyui_musicgen.tests.comfyui.page import RUN, draws_elements, problems


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def takes_prompt(choose="best", batch=3, seed=5):
    """Three takes, of which the chosen one is continued and saved."""
    return {
        "1": node("MusicGenLoader", model="toy", precision="float32"),
        "2": node("MusicGenText", conditioner=["1", 1], text="calm flute, 90 bpm"),
        "3": node(
            "MusicGenSampler", model=["1", 0], positive=["2", 0], duration_s=0.4, seed=seed, top_k=250, top_p=0.0,
            temperature=1.0, cfg=3.0, batch_size=batch,
        ),
        "4": node("MusicGenDecode", codec=["1", 2], codes=["3", 0]),
        "5": node(
            "MusicGenTakes", audio=["4", 0], choose=choose, codes=["3", 0], model=["1", 0], positive=["2", 0]
        ),
        "6": node(
            "MusicGenSampler", model=["1", 0], positive=["2", 0], duration_s=0.6, seed=1, top_k=250, top_p=0.0,
            temperature=1.0, cfg=3.0, batch_size=1, prompt=["5", 1],
        ),
        "7": node("MusicGenDecode", codec=["1", 2], codes=["6", 0]),
        "8": node("MusicGenSaveAudio", audio=["7", 0], filename_prefix="audio/continued", format="wav"),
    }  # fmt: skip


def test_takes_are_shown_chosen_and_continued(comfy):
    result = comfy.run(takes_prompt())
    (saved,) = result.outputs["8"]["audio"]
    assert read(comfy.path_of(saved)).n_samples == 19200, "0.4 s of the take and 0.2 s more"
    takes = result.outputs["5"]["takes"]
    assert [take["number"] for take in takes] == [1, 2, 3] and takes[0]["seed"] == "5"
    assert all(take["likelihood"] < 0 and take["text"] == "calm flute, 90 bpm" for take in takes)
    for take in takes:
        file = comfy.read(f"/view?filename={take['filename']}&subfolder={take['subfolder']}&type=temp")
        assert file[:4] == b"fLaC"

    again = comfy.run(takes_prompt("2"))
    assert set(again.executed) == {"5", "6", "7", "8"}, "the takes are not written again"
    comfy.run(takes_prompt(batch=2, seed=6))
    temp = [path for path in (comfy.base / "temp" / "musicgen_takes").iterdir() if path.name.startswith("5_")]
    assert len(temp) == 2, "temp holds what is shown"


def test_a_choice_that_is_none_is_refused_before_anything_runs(comfy):
    with pytest.raises(Exception, match="'choose' cannot be read"):
        comfy.run(takes_prompt("loudest"))
    with pytest.raises(Exception, match="there are takes 1 to 3"):
        comfy.run(takes_prompt("4"))


def test_without_codes_only_what_needs_them_stops(comfy):
    prompt = takes_prompt()
    for name in ("codes", "model", "positive"):
        del prompt["5"]["inputs"][name]
    with pytest.raises(Exception, match="no codes to hand on"):
        comfy.run(prompt)


def test_a_loop_is_cut_and_its_tempo_given(comfy):
    prompt = {
        "1": node("ProbeAudio", rate_hz=16000, channels=1, batch=1, seconds=6.0, dtype="float32", kind="sine"),
        "2": node("MusicGenLoop", audio=["1", 0], bars=1, bpm=120.0, meter=4),
        "3": node("MusicGenSaveAudio", audio=["2", 0], filename_prefix="audio/loop", format="wav"),
    }
    (saved,) = comfy.run(prompt).saved
    assert read(comfy.path_of(saved)).duration_s == pytest.approx(2.0, rel=0.02)
    prompt["2"]["inputs"]["bars"] = 8
    with pytest.raises(Exception, match="8 bars of 4 beats"):
        comfy.run(prompt)


# The page

LOAD = """async (prompt) => {
    await window.app.loadApiJson(prompt, "takes");
    await new Promise((done) => setTimeout(done, 800));
    for (const node of window.app.graph._nodes) {
        const control = node.widgets?.find((widget) => widget.name === "control_after_generate");
        if (control) control.value = "fixed";
    }
    window.app.canvas.centerOnNode(window.app.graph._nodes.find((node) => node.type === "MusicGenTakes"));
    return window.app.graph._nodes.map((node) => node.type).sort();
}"""
NODE = "window.app.graph._nodes.find((node) => node.type === 'MusicGenTakes')"
PAUSED = f"() => {NODE}.musicgenTakes.rows.map(({{ player }}) => player.paused)"


def test_takes_are_played_one_by_one_and_one_is_chosen(comfy, page, tmp_path):
    prompt = takes_prompt(seed=time.time_ns() % 2**32)  # what was made before is not measured again
    prompt["3"]["inputs"]["duration_s"], prompt["6"]["inputs"]["duration_s"] = 3.0, 3.2
    assert page.evaluate(LOAD, prompt).count("MusicGenTakes") == 1
    if not draws_elements(page):
        pytest.skip("this page draws no elements in Nodes 2.0")
    assert page.evaluate(RUN) == ["execution_success", ""]
    page.evaluate(f"() => window.app.canvas.centerOnNode({NODE})")  # Nodes 2.0 draws only what is in view
    rows = page.locator(".musicgen-take")
    rows.nth(2).wait_for()
    assert rows.count() == 3
    assert rows.nth(0).get_attribute("class").split()[-1] == "chosen", "the best is what `choose` says"
    assert "seed " in rows.nth(0).inner_text() and "#1" in rows.nth(0).inner_text()

    page.evaluate(f"() => {NODE}.musicgenTakes.root.querySelectorAll('button.play')[0].click()")
    page.wait_for_function(f"() => {NODE}.musicgenTakes.rows[0].player.currentTime > 0.05")
    assert page.evaluate(PAUSED) == [False, True, True]
    page.evaluate(f"() => {NODE}.musicgenTakes.root.querySelectorAll('button.play')[1].click()")
    page.wait_for_function(f"() => {NODE}.musicgenTakes.rows[1].player.currentTime > 0.05")
    assert page.evaluate(PAUSED) == [True, False, True], "one at a time"

    page.evaluate(f"() => {NODE}.musicgenTakes.root.querySelectorAll('button.choose')[2].click()")
    number = page.evaluate(f"() => {NODE}.musicgenTakes.rows[2].take.number")
    widgets = f"() => {NODE}.widgets.filter((widget) => widget.serialize !== false).map((widget) => widget.value)"
    assert page.evaluate(widgets) == [str(number)]
    assert page.evaluate("() => window.app.graph.serialize().nodes.find((node) => node.type === 'MusicGenTakes').widgets_values") == [
        str(number)
    ]  # fmt: skip
    assert "chosen" in rows.nth(2).get_attribute("class") and "chosen" not in rows.nth(0).get_attribute("class")
    page.wait_for_timeout(500)
    page.screenshot(path=str(tmp_path / "takes.png"))
    assert page.evaluate(RUN) == ["execution_success", ""]
    assert problems(page) == []
