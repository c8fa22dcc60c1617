"""Widgets as wires, odd names and links in a real ComfyUI: cases of public reports, and every widget of every node."""

import json
import threading
import time
from pathlib import Path

import pytest
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.audio import read, write
from comfyui_musicgen.tests.finetuning.test_dataset import tone

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "tests" / "data" / "reports"
CONTRACT = json.loads((ROOT / "tests" / "data" / "nodes.json").read_text(encoding="utf-8"))
MUSIC = "wires-set"  # a folder of two seconds
WIDGETS = [
    (id, name)
    for id, node in CONTRACT.items()
    for name, kind in {**node["required"], **node["optional"]}.items()
    if kind["type"] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
]


def report(name):
    """A workflow of a public report, with the toy model and this server's node for values of any type."""
    text = (REPORTS / name).read_text(encoding="utf-8").replace("pansori-mini", "toy")
    prompt = json.loads(text)
    for node in prompt.values():
        if node["class_type"] == "BugValue":
            node |= {"class_type": "ProbeValue", "inputs": {"kind": "json", "text": '"toy"'}}
    return prompt


def probe(kind, value):
    return {
        "class_type": "ProbeValue",
        "inputs": {"kind": kind, "text": json.dumps(value) if kind != "bytes" else value},
    }


def everything():
    """A workflow with every node of the pack, and small sizes."""
    node = lambda id, **inputs: {"class_type": id, "inputs": inputs}  # noqa: E731
    return {
        "clip": node(
            "ProbeAudio", rate_hz=32000, channels=1, batch=1, seconds=0.5, dtype="float32", kind="sine"
        ),
        "MusicGenLoader": node("MusicGenLoader", model="toy-melody", precision="float32", engine="native"),
        "MusicGenFineTune": node(
            "MusicGenFineTune", model=["MusicGenLoader", 0], conditioner=["MusicGenLoader", 1], weights="toy-melody-tuned", strength=1.0
        ),
        "MusicGenDiffusionLoader": node("MusicGenDiffusionLoader", diffusion="facebook/multiband-diffusion/mbd_musicgen_32khz.th"),
        "MusicGenText": node("MusicGenText", conditioner=["MusicGenFineTune", 1], text="calm", bpm=0.0, meter=""),
        "MusicGenTimeline": node(
            "MusicGenTimeline", conditioner=["MusicGenFineTune", 1], lines="0: loud | 0.25: quiet @ 0.5", ending="cadence"
        ),
        "MusicGenBlend": node(
            "MusicGenBlend", first=["MusicGenText", 0], second=["MusicGenTimeline", 0], ratio=0.5
        ),
        "MusicGenTrimAudio": node("MusicGenTrimAudio", audio=["clip", 0], start_s=0.1, end_s=0.4),
        "MusicGenMelody": node(
            "MusicGenMelody", conditioner=["MusicGenFineTune", 1], conditioning=["MusicGenBlend", 0],
            audio=["MusicGenTrimAudio", 0], stems="off",
        ),
        "MusicGenChords": node(
            "MusicGenChords", conditioner=["MusicGenFineTune", 1], conditioning=["MusicGenText", 0], chords="C,G | F/C", bpm=240.0,
            meter="2/4", strength=1.5, chord_list="",
        ),
        "MusicGenEncode": node("MusicGenEncode", codec=["MusicGenLoader", 2], audio=["MusicGenTrimAudio", 0]),
        "MusicGenTrimCodes": node("MusicGenTrimCodes", codes=["MusicGenEncode", 0], start_s=0.1, end_s=0.2),
        "MusicGenSampler": node(
            "MusicGenSampler", model=["MusicGenFineTune", 0], positive=["MusicGenMelody", 0], negative=["MusicGenChords", 0], duration_s=0.3, seed=1, top_k=5,
            top_p=0.0, temperature=1.0, cfg=3.0, batch_size=1, prompt=["MusicGenTrimCodes", 0], extend_stride_s=18.0, anchor_s=0.5,
            listen="off", on_cancel="discard", length="",
        ),
        "MusicGenDecode": node("MusicGenDecode", codec=["MusicGenLoader", 2], codes=["MusicGenSampler", 0], fade_ms=5.0, fade_out_s=0.1),
        "MusicGenDecodeDiffusion": node(
            "MusicGenDecodeDiffusion", codec=["MusicGenLoader", 2], diffusion=["MusicGenDiffusionLoader", 0],
            codes=["MusicGenTrimCodes", 0], seed=1, fade_ms=0.0, fade_out_s=0.0,
        ),
        "MusicGenNormalize": node(
            "MusicGenNormalize", audio=["MusicGenDecode", 0], strategy="loudness", loudness_lufs=-14.0, peak_headroom_db=1.0,
            rms_headroom_db=18.0, compressor=False,
        ),
        "MusicGenSaveAudio": node(
            "MusicGenSaveAudio", audio=["MusicGenNormalize", 0], filename_prefix="wires/x", format="flac", bit_depth="16"
        ),
        "other": node("ProbeShape", audio=["MusicGenDecodeDiffusion", 0]),
        "MusicGenExample": node("MusicGenExample", clip="buk drum"),
        "MusicGenLength": node("MusicGenLength", fps=25.0, extra_s=-0.2, audio=["clip", 0], length=""),
        "cut": node("MusicGenTrimAudio", audio=["clip", 0], start_s=0.0, end_s=["MusicGenLength", 0]),
        "cut shape": node("ProbeShape", audio=["cut", 0]),
        "MusicGenLoop": node("MusicGenLoop", audio=["MusicGenExample", 0], bars=1, bpm=0.0, meter=2, crossfade_ms=30.0),
        "MusicGenAnalyze": node(
            "MusicGenAnalyze", audio=["MusicGenExample", 0], bpm=0.0, meter=0, vocabulary="triads", midi_prefix="", beat_model=""
        ),
        "MusicGenTempo": node("MusicGenTempo", audio=["MusicGenExample", 0], bpm=120.0, meter="4/4", way="stretch"),
        "fit": node("ProbeShape", audio=["MusicGenTempo", 0]),
        "MusicGenStems": node("MusicGenStems", audio=["MusicGenExample", 0], weights=""),  # runs in test_comfyui_remix.py alone
        "MusicGenAlign": node(
            "MusicGenAlign", audio=["MusicGenExample", 0], beats="0, 1, 2, 3, 4", target_beats="0.1, 1.2, 2.2, 3.2, 4.2",
            threshold_beats=0.5, max_stretch=1.25, threshold_s=0.4,
        ),
        "MusicGenMix": node(
            "MusicGenMix", audio_1=["MusicGenAlign", 0], audio_2=["MusicGenExample", 0], gain_1_db=0.0, gain_2_db=-3.0, gain_3_db=0.0,
            gain_4_db=0.0, matched=True, peak_headroom_db=1.0,
        ),
        "mixed": node("ProbeShape", audio=["MusicGenMix", 0]),
        "MusicGenScore": node(
            "MusicGenScore", file="example/Arirang.abc", notes="C4 D4", part="melody", tune=0, transpose=2, bpm=90.0, chords="of the notes"
        ),
        "MusicGenScoreMelody": node(
            "MusicGenScoreMelody", conditioner=["MusicGenFineTune", 1], conditioning=["MusicGenText", 0], score=["MusicGenScore", 0]
        ),
        "told": node("PreviewImage", images=["MusicGenScoreMelody", 1]),
        "MusicGenSaveScore": node("MusicGenSaveScore", score=["MusicGenScore", 0], filename_prefix="wires/score"),
        "heard": node("PreviewAny", source=["MusicGenAnalyze", 5]),
        "MusicGenDataset": node(
            "MusicGenDataset", folder=MUSIC, caption="", one_same_description="house", auto_labeling=False, drop_vocals=False
        ),
        "MusicGenTrain": node(
            "MusicGenTrain", model=["MusicGenLoader", 0], conditioner=["MusicGenLoader", 1], codec=["MusicGenLoader", 2],
            dataset=["MusicGenDataset", 0], name="wires", epochs=1, updates_per_epoch=1, batch_size=1, optimizer="adamw", lr=0.001,
            lr_scheduler="cosine", warmup=0, cfg_p=0.3, rank=2, seed=1, method="lora", sample_every=0, targets="attention",
            precision="float32", segment_s=1.0, alpha=2.0, dropout=0.0, weight_decay=0.0, keep_base=0.0, max_forgetting=1.0,
            proof_clips=0, variants=0,
        ),
        "MusicGenTakes": node("MusicGenTakes", audio=["MusicGenLoop", 0], choose="all"),
    }  # fmt: skip


def outputs(result):
    """Saved sounds but for those that are only shown, as the takes are."""
    return [saved for saved in result.saved if saved["type"] == "output" and not saved["filename"].endswith(".mid")]


@pytest.mark.parametrize(
    ("name", "duration_s"), [("wired/duration.json", 2.0), ("wired/model.json", 1.0), ("wired/start.json", 1.0)]
)
def test_workflows_of_reports_with_wired_widgets_run(comfy, name, duration_s):
    (saved,) = comfy.run(report(name)).saved
    assert read(comfy.path_of(saved)).duration_s == duration_s


def test_every_widget_of_every_node_takes_a_wire_at_once(comfy):
    """And gives the file that constants give."""
    (comfy.base / "input" / MUSIC).mkdir()
    write(tone(2.0), comfy.base / "input" / MUSIC / "tone.wav")
    prompt = everything()
    (constant,) = outputs(comfy.run(prompt))
    for node_id, name in WIDGETS:
        value = prompt[node_id]["inputs"][name]
        wire = f"{node_id}.{name}"
        kind = "float32" if isinstance(value, float) else "int64" if type(value) is int else "json"
        prompt[wire] = probe(kind, value)
        prompt[node_id]["inputs"][name] = [wire, 0]
    (wired,) = outputs(comfy.run(prompt))
    assert read(comfy.path_of(wired)).samples.equal(read(comfy.path_of(constant)).samples)
    again = comfy.run(prompt)
    assert again.executed == [], "a wire does not make the loaders run again"


@pytest.mark.parametrize("value", [("json", None), ("bytes", "x"), ("json", {"a": 1}), ("float64", "nan")], ids=str)
def test_a_wrong_value_on_a_wire_is_refused_by_name_when_its_node_runs(comfy, value):
    kind, text = value
    for node_id, name in (
        ("MusicGenTrimAudio", "start_s"), ("MusicGenSaveAudio", "format"), ("MusicGenSaveAudio", "filename_prefix")
    ):  # fmt: skip
        prompt = {key: everything()[key] for key in ("clip", "MusicGenTrimAudio", "MusicGenSaveAudio")}
        prompt["MusicGenSaveAudio"]["inputs"]["audio"] = ["MusicGenTrimAudio", 0]
        prompt["value"] = probe(kind, text) if kind != "float64" else probe("float64", text)
        prompt[node_id]["inputs"][name] = ["value", 0]
        if kind == "float64" and name != "start_s":
            continue
        with pytest.raises(client.NodeError, match=f"'{name}'"):
            comfy.run(prompt)


@pytest.mark.parametrize(
    ("source", "target", "value"),
    [
        ("PrimitiveInt", ("MusicGenNormalize", "peak_headroom_db"), 2),
        ("PrimitiveString", ("MusicGenNormalize", "strategy"), "peak"),
        ("PrimitiveString", ("MusicGenSaveAudio", "filename_prefix"), "wires/y"),
        ("PrimitiveBoolean", ("MusicGenNormalize", "compressor"), True),
    ],
)
def test_primitives_of_the_core_fit(comfy, source, target, value):
    prompt = {key: everything()[key] for key in ("clip", "MusicGenNormalize", "MusicGenSaveAudio")}
    prompt["MusicGenNormalize"]["inputs"]["audio"] = ["clip", 0]
    prompt["value"] = {"class_type": source, "inputs": {"value": value}}
    prompt[target[0]]["inputs"][target[1]] = ["value", 0]
    assert len(comfy.run(prompt).saved) == 1


def test_a_wire_of_another_type_is_refused_before_anything_runs(comfy):
    prompt = everything()
    prompt["MusicGenText"]["inputs"]["conditioner"] = ["MusicGenLoader", 0]
    with pytest.raises(client.RejectedError, match="'conditioner' takes MUSICGEN_CONDITIONER"):
        comfy.run(prompt)


@pytest.mark.parametrize(
    "change",
    [
        {"MusicGenSaveAudio.filename_prefix": "a\0b"},
        {"MusicGenSaveAudio.filename_prefix": "\ud800"},
        {"MusicGenSaveAudio.filename_prefix": "x" * 300},
        {"MusicGenText.text": "\udc00"},
        {"MusicGenLoader.model": "x" * 5000},
        {"MusicGenLoader.model": 5},
        {"MusicGenLoader.model": None},
        {"MusicGenLoader.model": {"a": 1}},
        {"MusicGenFineTune.weights": "x" * 5000},
        {"MusicGenDiffusionLoader.diffusion": "\ud800"},
    ],
    ids=lambda change: ascii(change)[:50],
)
def test_names_and_texts_that_cannot_be_are_refused_by_name(comfy, change):
    prompt = everything()
    ((target, value),) = change.items()
    node_id, name = target.split(".")
    prompt[node_id]["inputs"][name] = value
    with pytest.raises((client.NodeError, client.RejectedError)) as caught:
        comfy.run(prompt)
    message = str(caught.value)
    assert f"'{name}'" in message or "not a usable name" in message
    assert not any(word in message for word in ("Traceback", "UnicodeEncodeError", "OSError", "TypeError"))


def test_a_link_in_the_output_folder_is_followed_or_spoken_of(comfy, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = comfy.base / "output" / "linked"
    link.symlink_to(elsewhere, target_is_directory=True)
    try:
        comfy.run(report("symlink.json"))
        assert [path.name for path in elsewhere.iterdir()] == ["x_00001_.flac"]
    except client.NodeError as error:  # later cores refuse what leads out of the folder
        assert "'filename_prefix'" in str(error) and "outside the output folder" in str(error)
    finally:
        link.unlink()


def test_normalizing_is_cancelled_within_half_a_second(comfy):
    """Of three tries one: the cores are shared with other tests."""
    prompt = {
        "clip": {
            "class_type": "ProbeAudio",
            "inputs": {
                "rate_hz": 48000,
                "channels": 2,
                "batch": 4,
                "seconds": 100.0,
                "dtype": "float32",
                "kind": "sine",
            },
        },
        "MusicGenNormalize": {
            "class_type": "MusicGenNormalize",
            "inputs": {"audio": ["clip", 0], "strategy": "loudness"},
        },
        "shape": {"class_type": "ProbeShape", "inputs": {"audio": ["MusicGenNormalize", 0]}},
    }
    assert min(cancelled_after_s(comfy, prompt) for _ in range(3)) < 0.5


def cancelled_after_s(comfy, prompt):
    """Seconds from a press of Cancel, 0.1 s into MusicGenNormalize, to the end of the prompt as interrupted."""
    started, ended_s, failures = threading.Event(), [], []

    def on_event(type, data):
        if type == "executing" and data["node"] == "MusicGenNormalize":
            started.set()
        elif type == "execution_interrupted":
            ended_s.append(time.monotonic())

    def queue():
        try:
            comfy.run(prompt, on_event=on_event)
        except client.ClientError as error:
            failures.append(error)

    thread = threading.Thread(target=queue)
    thread.start()
    assert started.wait(60)
    time.sleep(0.1)
    pressed_s = time.monotonic()
    comfy.post("/interrupt")
    thread.join(60)
    assert [type(error) for error in failures] == [client.InterruptedRunError]
    return ended_s[0] - pressed_s
