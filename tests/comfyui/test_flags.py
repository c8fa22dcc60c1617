"""ComfyUI's memory and cache flags: the music is the same, takes are continued, /free and a failed prompt leave it working.

The flags for graphics memory (--lowvram, --novram) exclude --cpu; tests/gpu/test_comfyui.py runs them on a card.
"""

import pytest
from comfyui_musicgen.musicgen.audio import read
from comfyui_musicgen.tests.comfyui import comfy_server
from comfyui_musicgen.tests.comfyui.test_takes import takes_prompt

pytestmark = pytest.mark.slow
FLAGS = [
    ("--cache-none",), ("--cache-lru", "1"), ("--cache-classic",), ("--cache-ram", "0.5"), ("--disable-smart-memory",)
]  # fmt: skip


@pytest.fixture(scope="module", params=FLAGS, ids=" ".join)
def flagged(request, tmp_path_factory):
    found = comfy_server.find()
    if isinstance(found, str):
        pytest.skip(found)
    flag = request.param[0]
    if f'"{flag}"' not in (found[0] / "comfy" / "cli_args.py").read_text(encoding="utf-8"):
        pytest.skip(f"this ComfyUI knows no {flag}")
    base = tmp_path_factory.mktemp("flags")
    comfy_server.write_toys(base / "models" / "musicgen", ["toy"])
    server = comfy_server.ComfyUI(base, extra_arguments=request.param)
    server.flag = flag
    yield server
    server.stop()


def samples(server, result):
    (saved,) = [file for file in result.saved if file["type"] == "output"]
    return read(server.path_of(saved)).samples


def test_music_is_the_default_servers_and_survives_free(comfy, flagged):
    prompt = takes_prompt(seed=17)
    expected = samples(comfy, comfy.run(prompt))
    first = flagged.run(prompt)
    assert (samples(flagged, first) == expected).all()
    flagged.post("/free", {"unload_models": True, "free_memory": True})
    prompt["3"]["inputs"]["seed"] = 18
    other = samples(flagged, flagged.run(prompt))
    assert not (other == expected).all()
    prompt["3"]["inputs"]["seed"] = 17
    again = flagged.run(prompt)
    assert (samples(flagged, again) == expected).all()
    if flagged.flag == "--cache-none":
        assert set(again.executed) == set(prompt), "nothing is cached"


def test_a_failed_prompt_leaves_it_working(flagged):
    with pytest.raises(Exception, match="there are takes 1 to 3"):
        flagged.run(takes_prompt("4", seed=17))
    assert len(flagged.run(takes_prompt("2", seed=17)).saved) >= 1
