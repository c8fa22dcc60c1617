"""The sampler's live side without ComfyUI: what a page is sent, what a Cancel keeps, and how its mark travels."""

import base64
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import live as engine_live
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.codes import Codes, CutShort
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.nodes import host, sampler, sockets

MARK = CutShort(7.3, 30.0)
WIDGETS = {"duration_s": 2.0, "seed": 1, "top_k": 250, "top_p": 0.0, "temperature": 1.0, "cfg": 3.0, "batch_size": 2}


class Cancelled(BaseException):
    pass


@pytest.fixture(scope="module")
def wires(toys):
    loaded = loading.load(toys(stereo=True), "float32")
    managed = [host.Managed(part, role) for part, role in ((loaded.model, "model"), (loaded.codec, "codec"))]
    return SimpleNamespace(model=managed[0], codec=managed[1], positive=loaded.conditioner.encode_text(["calm"]))


@pytest.fixture
def sent(monkeypatch):
    """Events that a page gets; node 7 runs, without waits between lines of progress and with all the time to decode."""
    events = []
    server = SimpleNamespace(sockets={"me": 1}, send_sync=lambda event, data, sid: events.append((event, data, sid)))
    monkeypatch.setattr(host, "page", lambda: host.Page(server, "me", "prompt", "7"))
    monkeypatch.setattr(host, "executing_node", lambda: "7")
    monkeypatch.setattr(host, "is_cancel", lambda error: isinstance(error, Cancelled))
    monkeypatch.setattr("comfyui_musicgen.nodes.live.UPDATE_INTERVAL_S", 0.0)
    monkeypatch.setattr(engine_live.Listener.__init__, "__defaults__", (1e9, engine_live.time.perf_counter))
    return SimpleNamespace(events=events, server=server)


def sample(wires, **inputs):
    return NODES["MusicGenSampler"]().sample(model=wires.model, positive=wires.positive, **{**WIDGETS, **inputs})[0]


class ForkContext:
    """hiddenswitch/ComfyUI's context: prompt_id has another name, and the order is ComfyUI's."""

    task_id, node_id, list_index = "prompt", "7", None

    def __iter__(self):
        return iter((self.task_id, self.node_id, self.list_index))


def serve(monkeypatch, **attributes):
    instance = SimpleNamespace(client_id="me", **attributes)
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=instance)))
    monkeypatch.setattr(host, "_context", ForkContext)


def test_a_page_of_another_context_is_found(monkeypatch):
    serve(monkeypatch, sockets={"me": 1})
    page = host.page()
    assert (page.prompt_id, page.node_id, page.is_open) == ("prompt", "7", True)


def test_a_worker_without_pages_has_none(monkeypatch):
    """The sampler failed on hiddenswitch/ComfyUI's workers."""
    serve(monkeypatch)
    assert host.page() is None


def press_cancel(monkeypatch, at_step):
    def progress():
        steps = iter(range(10**6))

        def on_step(done, total):
            if next(steps) == at_step:
                raise Cancelled

        return on_step

    monkeypatch.setattr(host, "progress", progress)


def kinds(sent, kind):
    return [data for _, data, _ in sent.events if data["kind"] == kind]


def test_the_page_hears_the_first_take_and_the_codes_are_the_same(wires, sent):
    heard = sample(wires, codec=wires.codec)
    assert {(event, sid) for event, _, sid in sent.events} == {("musicgen.live", "me")}
    assert all(data["node"] == "7" and data["prompt_id"] == "prompt" for _, data, _ in sent.events)
    sounds = kinds(sent, "sound")
    pcm = np.concatenate([np.frombuffer(base64.b64decode(sound["pcm"]), "<i2") for sound in sounds])
    stream = torch.from_numpy(pcm.astype(np.float32)).view(-1, 2).t() / 32767
    first = Codes(heard.codes[:1], heard.frame_rate_hz, heard.codec)
    whole = wires.codec.module.decode(first).samples[0].clamp(-1, 1)
    assert stream.shape == whole.shape and (stream - whole).abs().max() < 1 / 32767
    assert kinds(sent, "progress")[-1]["left_s"] < kinds(sent, "progress")[0]["left_s"]
    assert json.dumps(sent.events), "every message is JSON"
    sent.events.clear()
    assert torch.equal(sample(wires).codes, heard.codes)
    assert kinds(sent, "sound") == [] and kinds(sent, "progress"), "progress needs no codec"


@pytest.mark.parametrize("listen", ["picture and sound", "picture"])
def test_what_there_was_no_time_to_hear_comes_when_the_piece_is_decoded(wires, sent, monkeypatch, listen):
    """Eight seconds written in two had half a second of sound, and a picture of no more."""
    allowed = iter([True] * 2 + [False] * 100)
    monkeypatch.setattr(engine_live.Listener, "_allowed", lambda *_: next(allowed))
    codes = sample(wires, codec=wires.codec, listen=listen)
    (end,), before = kinds(sent, "end"), kinds(sent, "sound")
    assert end["more"] and end["position"] == sum(sound["length"] for sound in before) > 0
    sent.events.clear()
    decode = NODES["MusicGenDecode"]()
    decode.decode(wires.codec, codes.rows([0]))
    assert not sent.events, "other codes"
    audio, _ = decode.decode(wires.codec, codes, fade_ms=0.0)
    sounds = kinds(sent, "sound")
    assert [sound["last"] for sound in sounds] == [False] * (len(sounds) - 1) + [True]
    assert {data["node"] for data in sounds} == {"7"} and json.dumps(sounds)
    assert sum(sound["length"] for sound in sounds) == audio["waveform"].shape[-1] - end["position"]
    if listen == "picture":
        assert not any("pcm" in sound for sound in sounds)
    else:
        pcm = np.frombuffer(base64.b64decode(sounds[0]["pcm"]), "<i2").reshape(-1, 2).T / 32767
        expected = audio["waveform"][0, :, end["position"] :][:, : pcm.shape[1]].clamp(-1, 1)
        assert np.abs(pcm - expected.numpy()).max() < 1 / 32767
    sent.events.clear()
    decode.decode(wires.codec, codes)
    assert not sent.events, "it is sent once"


def test_of_a_long_piece_the_picture_is_completed_and_not_all_of_its_sound(wires, sent, monkeypatch):
    """An hour's sound would go out in one message after another, 300 MB at once."""
    monkeypatch.setattr(engine_live.Listener, "_allowed", lambda *_: False)
    monkeypatch.setattr("comfyui_musicgen.nodes.live.COMPLETED_S", 1.0)
    codes = sample(wires, codec=wires.codec, duration_s=4.0)
    audio, _ = NODES["MusicGenDecode"]().decode(wires.codec, codes)
    sounds = kinds(sent, "sound")
    assert sum(sound["length"] for sound in sounds) == audio["waveform"].shape[-1], "all of it is drawn"
    heard = sum(sound["length"] for sound in sounds if "pcm" in sound) / audio["sample_rate"]
    assert 1.0 <= heard < 2.0 and sounds[-1]["last"] and "pcm" not in sounds[-1]


def test_a_page_that_closes_is_sent_no_more_sound(wires, sent):
    sent.server.sockets.clear()
    sample(wires, codec=wires.codec)
    assert kinds(sent, "sound") == []


def test_without_a_page_nothing_is_decoded(wires, monkeypatch):
    monkeypatch.setattr(type(wires.codec.module.quantizer), "decode", lambda *_: pytest.fail("decoded"))
    assert sample(wires, codec=wires.codec).n_frames == 100


def test_a_cancel_keeps_all_takes_and_makes_the_next_run_another(wires, sent, monkeypatch):
    node = NODES["MusicGenSampler"]
    before = node.IS_CHANGED(seed=1)
    whole = sample(wires)
    press_cancel(monkeypatch, 50)
    kept = sample(wires, on_cancel="keep", codec=wires.codec)
    assert 0 < kept.n_frames < 100 and torch.equal(kept.codes, whole.codes[..., : kept.n_frames])
    assert kept.cut_short == CutShort(kept.duration_s, 2.0) and whole.cut_short is None
    assert kinds(sent, "end")[-1]["status"] == "kept"
    assert node.IS_CHANGED(seed=1) != before and node.IS_CHANGED() == node.IS_CHANGED()
    monkeypatch.setattr(host, "executing_node", lambda: "8")
    assert node.IS_CHANGED() == 0, "another node's result stays"
    sampler._kept.clear()


@pytest.mark.parametrize(("on_cancel", "at_step"), [("discard", 50), ("keep", 1)])
def test_a_cancel_without_a_take_is_an_interruption(wires, sent, monkeypatch, on_cancel, at_step):
    press_cancel(monkeypatch, at_step)
    with pytest.raises(Cancelled):
        sample(wires, on_cancel=on_cancel, codec=wires.codec)
    assert kinds(sent, "end")[-1]["status"] == "stopped" and not sampler._kept


def test_the_codec_of_another_checkpoint_is_refused_by_name(wires, toys):
    other = host.Managed(loading.load(toys(), "float32").codec, "codec")
    with pytest.raises(InputError, match="'codec'") as caught:
        sample(wires, codec=other)
    assert wires.codec.module.config.identity in str(caught.value)
    assert sample(wires, codec=other, listen="off").n_frames == 100


def test_the_mark_travels_from_codes_to_the_file(wires, monkeypatch):
    monkeypatch.setattr(host, "progress", lambda: lambda *_: None)
    codes = Codes(torch.zeros(1, 8, 50, dtype=torch.long), 50.0, wires.codec.module.config.identity, cut_short=MARK)
    assert codes.trim(0.1, 0.5).cut_short == MARK
    audio, _ = NODES["MusicGenDecode"]().decode(wires.codec, codes)
    (trimmed,) = NODES["MusicGenTrimAudio"]().trim(audio, 0.1, -1.0)
    (levelled,) = NODES["MusicGenNormalize"]().normalize(trimmed, "peak")
    assert [sockets.cut_short_of(value) for value in (audio, trimmed, levelled)] == [MARK] * 3
    metadata = host.file_metadata({"1": {"inputs": {}, "is_changed": [3]}}, None, sockets.cut_short_of(levelled))
    assert json.loads(metadata["cut_short"]) == {"kept_s": 7.3, "asked_s": 30.0}
    assert json.loads(metadata["prompt"]) == {"1": {"inputs": {}}}
    assert "cut_short" not in sockets.audio_out(wires.codec.module.decode(Codes(codes.codes, 50.0, codes.codec)))
