"""A real ComfyUI while music is written: what its page hears of it, and what Cancel keeps."""

import base64
import json
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.audio import read

LASTING_S = 4.0  # of a run that is watched: the page is told twice a second, and sound may cost a fortieth of the time
API = Path(__file__).resolve().parents[2] / "workflows" / "api"


def workflow(**sampler):
    """Text to music with the toy model, the codec wired to the sampler, and FLAC without a fade or levels."""
    prompt = client.load_workflow(API / "text_to_music.json")
    find = lambda name: client.find_node(prompt, name)  # noqa: E731
    prompt[find("MusicGenLoader")]["inputs"]["model"] = "toy"
    prompt[find("MusicGenDecode")]["inputs"]["fade_ms"] = 0.0
    save = prompt[find("MusicGenSaveAudio")]["inputs"]
    save |= {"format": "flac", "audio": [find("MusicGenDecode"), 0]}
    inputs = prompt[find("MusicGenSampler")]["inputs"]
    inputs |= {"codec": [find("MusicGenLoader"), 2], "duration_s": 6.0, **sampler}
    return prompt


@pytest.fixture(scope="module")
def lasting_s(comfy):
    """Length of a piece that this machine writes for about LASTING_S: a fast one has written 6 s before it tells of any."""
    length_s, took_s = 3.0, 0.0
    while took_s < LASTING_S / 8:
        length_s *= 2
        heard = Press(comfy, lambda *_: False)
        comfy.run(workflow(duration_s=length_s, seed=time.time_ns() % 2**32), on_event=heard)
        (end,) = heard.live("end")
        took_s = end["took_s"]
    return round(max(6.0, length_s * LASTING_S / took_s), 1)


class Press:
    """Cancel, pressed at the first event for which `when` holds, `times` times."""

    def __init__(self, comfy, when, times=1):
        self._comfy, self._when, self._times = comfy, when, times
        self.events = []

    def __call__(self, type, data):
        self.events.append((type, data))
        if self._times and self._when(type, data):
            self._times -= 1
            threading.Thread(target=self._comfy.post, args=("/interrupt",)).start()  # the answer is no event's business

    def live(self, kind):
        return [data for type, data in self.events if type == "musicgen.live" and data["kind"] == kind]


def written(at_least_s):
    return lambda type, data: type == "musicgen.live" and data["kind"] == "progress" and data["written_s"] >= at_least_s


def tags(path):
    with av.open(str(path)) as container:
        metadata = {**container.metadata, **container.streams.audio[0].metadata}
    return {key.lower(): json.loads(value) for key, value in metadata.items() if key.lower() in ("cut_short", "prompt")}


@pytest.mark.parametrize("listen", ["picture and sound", "picture", "off"])
def test_the_page_gets_progress_and_what_it_asked_for(comfy, lasting_s, listen):
    heard = Press(comfy, lambda *_: False)
    result = comfy.run(workflow(listen=listen, duration_s=lasting_s, seed=len(listen)), on_event=heard)
    (begin,), (end,) = heard.live("begin"), heard.live("end")
    assert begin["total_s"] == lasting_s and end["status"] == "finished"
    assert end["written_s"] == pytest.approx(lasting_s, abs=0.02), "a frame takes 20 ms"
    sounds = heard.live("sound")
    if listen == "off":
        assert sounds == [] and "rate_hz" not in begin
        return
    assert sounds, "nothing was heard"
    position, pcm = 0, []
    for sound in sounds:
        assert sound["position"] == position, "positions follow one another"
        position += sound["length"]
        pairs = np.frombuffer(base64.b64decode(sound["peaks"]), np.int8).reshape(-1, 2)
        assert len(pairs) == sound["length"] / begin["bin"] and (pairs[:, 0] <= pairs[:, 1]).all()
        assert ("pcm" in sound) is (listen == "picture and sound")
        if "pcm" in sound:
            pcm.append(np.frombuffer(base64.b64decode(sound["pcm"]), "<i2"))
    assert end["position"] == sum(sound["length"] for sound in sounds if "last" not in sound)
    assert end["more"] == any(sound.get("last") for sound in sounds), "the rest comes when the piece is decoded"
    saved = read(comfy.path_of(result.saved[0])).samples[0, 0]
    assert position == len(saved), "all of it is drawn in the end"
    if pcm:
        stream = torch.from_numpy(np.concatenate(pcm).astype(np.float32)) / 32767
        assert begin["channels"] == 1 and (stream - saved.clamp(-1, 1)).abs().max() < 2 / 32767, "rounding to 16 bits"


def test_a_client_without_a_socket_costs_and_gets_nothing(comfy):
    before = comfy.log.count("musicgen.live")
    comfy.post("/prompt", {"prompt": workflow(duration_s=0.6, seed=5)})
    deadline = time.monotonic() + 60
    while comfy.get("/queue")["queue_running"] or comfy.get("/queue")["queue_pending"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert list(comfy.get("/history").values())[-1]["status"]["status_str"] == "success"
    assert comfy.log.count("musicgen.live") == before


def test_a_kept_cancel_saves_a_shorter_piece_and_the_next_run_is_whole(comfy, lasting_s):
    prompt = workflow(on_cancel="keep", batch_size=2, seed=21, duration_s=lasting_s)
    press = Press(comfy, written(1.0))
    result = comfy.run(prompt, on_event=press)
    assert len(result.saved) == 2, "all takes of the batch"
    (end,) = press.live("end")
    assert end["status"] == "kept" and 1 <= end["written_s"] < lasting_s - 0.1
    for saved in result.saved:
        sound, marks = read(comfy.path_of(saved)), tags(comfy.path_of(saved))
        assert sound.duration_s == pytest.approx(end["written_s"], abs=0.01) and sound.samples.abs().max() > 0
        assert marks["cut_short"] == {"kept_s": pytest.approx(sound.duration_s, abs=0.001), "asked_s": lasting_s}
    comfy.wait_for("/probe/engine", {"caches": 0}, timeout_s=5)
    whole = comfy.run(marks["prompt"])  # as dropped: what it says of its run must not bring the short piece back
    assert "MusicGenSampler" in {prompt[id]["class_type"] for id in whole.executed}, "the short piece was cached"
    for saved in whole.saved:
        assert read(comfy.path_of(saved)).duration_s == pytest.approx(lasting_s, abs=0.02)
        assert "cut_short" not in tags(comfy.path_of(saved))
    assert comfy.run(prompt).executed == [], "a whole piece is cached as ever"


def test_a_second_cancel_interrupts(comfy):
    prompt = workflow(on_cancel="keep", seed=22, duration_s=600.0)
    first = written(2.0)
    decoding = client.find_node(prompt, "MusicGenDecode")
    press = Press(
        comfy,
        lambda type, data: first(type, data) or (type == "executing" and data["node"] == decoding),
        times=2,
    )
    with pytest.raises(client.InterruptedRunError):
        comfy.run(prompt, on_event=press)
    assert press.live("end")[0]["status"] == "kept"


def test_a_discarded_cancel_interrupts_as_ever(comfy):
    press = Press(comfy, written(1.0))
    with pytest.raises(client.InterruptedRunError):
        comfy.run(workflow(seed=23, duration_s=600.0), on_event=press)
    assert press.live("end")[0]["status"] == "stopped"
    comfy.wait_for("/probe/engine", {"caches": 0}, timeout_s=5)
