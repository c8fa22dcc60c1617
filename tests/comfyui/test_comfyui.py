"""The pack inside a real ComfyUI, over HTTP: what issue and contract promise, node by node and as a whole."""

import json
import threading
import time
from pathlib import Path
from urllib.parse import quote

import av
import pytest
import torch
from comfyui_musicgen.clients import comfyui as client
from comfyui_musicgen.musicgen.audio import Audio, read, write
from comfyui_musicgen.tests.comfyui import comfy_server

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = json.loads((ROOT / "tests" / "data" / "nodes.json").read_text(encoding="utf-8"))
API = ROOT / "workflows" / "api"


def workflow(name, **changes):
    """A shipped API workflow with the toy model and 0.6 s of music; changes are node__input=value."""
    prompt = comfy_server.with_own_clip(client.load_workflow(API / f"{name}.json"))
    settings = {"MusicGenLoader__model": "toy", "MusicGenSampler__duration_s": 0.6, **changes}
    for target, value in settings.items():
        prompt = client.with_input(prompt, target.replace("__", "."), value)
    return prompt


def probe_audio(**changes):
    options = {"rate_hz": 44100, "channels": 2, "batch": 1, "seconds": 0.5, "dtype": "float32", "kind": "sine"}
    return {"class_type": "ProbeAudio", "inputs": {**options, **changes}}


def saving(audio, **inputs):
    """`audio`'s node -> Save Audio File."""
    options = {"audio": ["1", 0], "filename_prefix": "tests/x", "format": "wav", **inputs}
    return {"1": audio, "2": {"class_type": "MusicGenSaveAudio", "inputs": options}}


def classes(prompt, ids):
    return {prompt[id]["class_type"] for id in ids}


def container_metadata(path):
    with av.open(str(path)) as container:
        tags = {**container.metadata, **container.streams.audio[0].metadata}
    return {key: json.loads(value) for key, value in tags.items() if key in ("prompt", "workflow")}


# As ComfyUI sees the pack


@pytest.mark.parametrize("node_id", sorted(CONTRACT))
def test_object_info_is_as_published(comfy, node_id):
    info, expected = comfy.get(f"/object_info/{node_id}")[node_id], CONTRACT[node_id]
    assert (info["display_name"], info["category"]) == (expected["name"], "audio/MusicGen")
    assert dict(zip(info["output_name"], info["output"], strict=True)) == expected["outputs"]
    assert info["output_node"] is expected.get("output_node", False)
    assert info["description"] and all(info["output_tooltips"])
    for group in ("required", "optional"):
        assert info["input_order"].get(group, []) == list(expected[group])
        for name, want in expected[group].items():
            kind, options = info["input"][group][name]
            assert kind == want.get("options", kind) if want["type"] == "COMBO" else kind == want["type"]
            assert {key: options[key] for key in want if key not in ("type", "options")} == {
                key: value for key, value in want.items() if key not in ("type", "options")
            }


def test_models_are_listed(comfy):
    models = comfy.get("/object_info/MusicGenLoader")["MusicGenLoader"]["input"]["required"]["model"][0]
    assert models[:3] == ["general-mini", "pansori-mini", "toy"] and {"toy-stereo", "toy-melody"} <= set(models[:6])
    assert "facebook/musicgen-small" in models
    assert "musicgen" in comfy.get("/models")


def test_page_content_is_served(comfy):
    assert "/extensions/musicgen-pansori/musicgen.js" in comfy.get("/extensions")
    for node_id in CONTRACT:
        assert comfy.read(f"/extensions/musicgen-pansori/docs/{node_id}.md").startswith(b"# ")
    assert comfy.get("/i18n")["ko"]["nodeDefs"]["MusicGenSampler"]["display_name"] == "MusicGen 샘플러"
    assert set(comfy.get("/workflow_templates")["musicgen-pansori"]) == {
        path.stem for path in (ROOT / "workflows").glob("*.json")
    }


@pytest.mark.parametrize("kind", ["json", "jpg"])
def test_templates_are_served_with_their_pictures(comfy, kind):
    # Of folders named example, examples, workflow and workflows ComfyUI serves the first alone, and lists them all.
    for path in sorted((ROOT / "workflows").glob(f"*.{kind}")):
        address = f"/api/workflow_templates/musicgen-pansori/{quote(path.name)}"
        assert comfy.read(address) == path.read_bytes(), path.name


def test_pack_loads_quickly(comfy):
    # Rounded to a tenth; test_imports.py measures the promised 0.3 s.
    assert comfy.import_seconds() < 1.0


# The main job


def test_text_to_music(comfy):
    prompt = workflow("text_to_music", MusicGenSampler__seed=11)
    events = []
    graph = json.loads((ROOT / "workflows" / "Text to music.json").read_text(encoding="utf-8"))
    result = comfy.run(prompt, graph, lambda type, data: events.append((type, data)))
    (saved,) = result.saved
    audio = read(comfy.path_of(saved))
    assert (audio.rate_hz, audio.n_channels, audio.n_samples) == (32000, 1, 19200)
    assert saved["filename"].startswith("musicgen_0") and saved["subfolder"] == "audio"
    metadata = container_metadata(comfy.path_of(saved))
    assert metadata["workflow"] == graph and metadata["prompt"].keys() == prompt.keys()
    sampler = client.find_node(prompt, "MusicGenSampler")
    progress = [data for type, data in events if type == "progress" and data["node"] == sampler]
    assert progress and progress[-1]["value"] == progress[-1]["max"] > 1
    assert [data["value"] for data in progress] == sorted(data["value"] for data in progress)

    again = comfy.run(prompt)
    assert set(again.cached) == set(prompt) and again.executed == []

    louder = client.with_input(prompt, "MusicGenNormalize.loudness_lufs", -20.0)
    assert classes(prompt, comfy.run(louder).executed) == {"MusicGenNormalize", "MusicGenSaveAudio"}


def test_continue_a_clip_in_stereo(comfy, tmp_path):
    clip = write(Audio(0.2 * torch.rand(1, 2, 44100) - 0.1, 44100), tmp_path / "my clip.wav")
    prompt = workflow("continue_a_clip", MusicGenLoader__model="toy-stereo", MusicGenTrimAudio__end_s=0.4)
    result, files = comfy.client_run(prompt, out=tmp_path / "out", uploads=[(None, clip)])
    assert len(result.saved) == len(files) == 1
    audio = read(files[0])
    assert (audio.rate_hz, audio.n_channels, audio.n_samples) == (32000, 2, 19200)


def test_same_seed_same_music_and_the_batch_s_first_row_is_the_single_one(comfy):
    def codes_decoded(**changes):
        prompt = workflow("text_to_music", MusicGenSaveAudio__format="wav", MusicGenSampler__seed=5, **changes)
        return [read(comfy.path_of(saved)).samples for saved in comfy.run(prompt).saved]

    (single,) = codes_decoded()
    batch = codes_decoded(MusicGenSampler__batch_size=2)
    assert len(batch) == 2
    torch.testing.assert_close(batch[0], single, atol=1e-3, rtol=0)
    assert not torch.allclose(batch[1], single, atol=1e-3)


def test_negative_changes_the_music(comfy):
    prompt = workflow("text_to_music", MusicGenSaveAudio__format="wav")
    prompt["n"] = {"class_type": "MusicGenText", "inputs": {"conditioner": ["1", 1], "text": "noise"}}
    with_negative = client.with_input(prompt, "MusicGenSampler.negative", ["n", 0])
    plain, other = (read(comfy.path_of(comfy.run(p).saved[0])).samples for p in (prompt, with_negative))
    assert not torch.allclose(plain, other, atol=1e-3)


# Cancel and memory


def test_interrupt_ends_sampling_at_once_and_leaves_nothing(comfy):
    started = threading.Event()
    ended_s = []

    def on_event(type, data):
        if type == "progress":
            started.set()
        if type == "execution_interrupted":
            ended_s.append(time.monotonic())

    failures = []

    def queue():
        try:
            comfy.run(workflow("text_to_music", MusicGenSampler__duration_s=600.0), on_event=on_event)
        except client.ClientError as error:
            failures.append(error)

    thread = threading.Thread(target=queue)
    thread.start()
    assert started.wait(60)
    time.sleep(0.3)
    pressed_s = time.monotonic()
    comfy.post("/interrupt")
    thread.join(30)
    assert [type(error) for error in failures] == [client.InterruptedRunError]
    assert ended_s[0] - pressed_s < 0.5
    comfy.wait_for("/probe/engine", {"caches": 0}, timeout_s=2)  # the message comes a moment before they are dropped
    assert len(comfy.run(workflow("text_to_music", MusicGenSampler__seed=12)).saved) == 1


def test_free_frees_the_weights(comfy):
    comfy.run(workflow("text_to_music", MusicGenSampler__seed=13))
    before = comfy.get("/probe/engine")
    assert before["modules"] >= 3 and before["bytes"] > 1e6
    comfy.post("/free", {"unload_models": True, "free_memory": True})
    comfy.wait_for("/probe/engine", {"modules": 0, "bytes": 0, "caches": 0})
    assert "memory leak" not in comfy.log
    assert len(comfy.run(workflow("text_to_music", MusicGenSampler__seed=13)).saved) == 1


# Saving


@pytest.mark.parametrize("format", ["flac", "mp3", "opus"])
def test_saved_files_carry_prompt_and_workflow(comfy, format):
    prompt, graph = saving(probe_audio(), format=format), {"nodes": [], "note": "한국어 ♪"}
    (saved,) = comfy.run(prompt, graph).saved
    assert container_metadata(comfy.path_of(saved)) == {"prompt": prompt, "workflow": graph}


def test_wav_has_the_workflow_beside_it(comfy):
    prompt, graph = saving(probe_audio(batch=2)), {"nodes": []}
    files = [comfy.path_of(saved) for saved in comfy.run(prompt, graph).saved]
    assert len(files) == 2
    for path in files:
        assert read(path).rate_hz == 44100
        beside = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
        assert beside == {"prompt": prompt, "workflow": graph}


# AUDIO of every kind


@pytest.mark.parametrize(
    "kind",
    [
        {"channels": 2},
        {"channels": 8, "dtype": "float16"},
        {"channels": 1, "dtype": "float64", "rate_hz": 48000},
        {"channels": 2, "batch": 2, "rate_hz": 22050},
    ],
    ids=str,
)
def test_audio_of_any_kind_passes_at_its_own_rate(comfy, kind):
    prompt = {
        "1": probe_audio(**kind),
        "2": {"class_type": "MusicGenTrimAudio", "inputs": {"audio": ["1", 0], "start_s": 0.1, "end_s": -1.0}},
        "3": {"class_type": "MusicGenNormalize", "inputs": {"audio": ["2", 0], "strategy": "peak"}},
        "4": {"class_type": "ProbeShape", "inputs": {"audio": ["3", 0]}},
        "5": {"class_type": "MusicGenLoader", "inputs": {"model": "toy", "precision": "auto"}},
        "6": {"class_type": "MusicGenEncode", "inputs": {"codec": ["5", 2], "audio": ["1", 0]}},
        "7": {"class_type": "MusicGenDecode", "inputs": {"codec": ["5", 2], "codes": ["6", 0]}},
        "8": {"class_type": "ProbeShape", "inputs": {"audio": ["7", 0]}},
    }
    options = prompt["1"]["inputs"]
    result = comfy.run(prompt)
    *shape, rate_hz, dtype, peak = result.outputs["4"]["shape"]
    assert shape == [options["batch"], options["channels"], round(0.4 * options["rate_hz"])]
    assert (rate_hz, dtype) == (options["rate_hz"], "torch.float32")
    assert peak == pytest.approx(10 ** (-1 / 20), rel=1e-3)
    assert result.outputs["8"]["shape"][:4] == [options["batch"], 1, 16000, 32000]


# What goes wrong is said, and the server goes on


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"MusicGenSampler__duration_s": -1.0}, "0.1 to 3600 seconds"),
        ({"MusicGenSampler__duration_s": 1e9}, "0.1 to 3600 seconds"),
        ({"MusicGenSampler__duration_s": float("nan")}, "0.1 to 3600 seconds"),
        ({"MusicGenSampler__top_k": -1}, "smaller than min"),
        ({"MusicGenSampler__batch_size": 65}, "bigger than max"),
        ({"MusicGenLoader__precision": "int3"}, "int3"),
        ({"MusicGenLoader__model": "gone"}, "no model 'gone'"),
        ({"MusicGenLoader__model": "facebook/musicgen-large"}, "https://huggingface.co/facebook/musicgen-large"),
        ({"MusicGenLoader__model": "../toy"}, "not a usable name"),
        ({"MusicGenSaveAudio__format": "ogg"}, "ogg"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_before_anything_runs(comfy, change, said):
    with pytest.raises(client.RejectedError) as caught:
        comfy.run(workflow("text_to_music", **change))
    assert said in str(caught.value)


def failing(comfy, prompt):
    """The message of the node that fails."""
    with pytest.raises(client.NodeError) as caught:
        comfy.run(prompt)
    return str(caught.value)


@pytest.mark.parametrize(
    ("audio", "options", "said"),
    [
        (probe_audio(kind="none"), {}, "carries no sound"),
        (probe_audio(kind="nan"), {}, "NaN"),
        (probe_audio(seconds=0.0), {}, "empty"),
        (probe_audio(channels=9), {}, "9 channels"),
        (probe_audio(channels=3), {"format": "mp3"}, "mp3 holds at most 2 channels"),
        (probe_audio(), {"filename_prefix": "../../x"}, "filename_prefix"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sound_that_cannot_be_saved_is_explained_and_leaves_nothing(comfy, audio, options, said):
    output = comfy.base / "output"
    before = sorted(output.rglob("*.*"))
    assert said in failing(comfy, saving(audio, **options))
    assert sorted(output.rglob("*.*")) == before


def test_prompt_longer_than_the_result_names_both_lengths(comfy, tmp_path):
    clip = write(Audio(torch.zeros(1, 1, 32000), 32000), tmp_path / "second.wav")
    prompt = workflow("continue_a_clip", MusicGenTrimAudio__end_s=-1.0, MusicGenSampler__duration_s=0.5)
    with pytest.raises(client.NodeError) as caught:
        comfy.client_run(prompt, uploads=[(None, clip)])
    assert "0.5" in str(caught.value) and "1" in str(caught.value)


def test_codes_of_another_codec_name_both(comfy):
    prompt = workflow("text_to_music")
    prompt["other"] = {"class_type": "MusicGenLoader", "inputs": {"model": "toy-stereo", "precision": "auto"}}
    message = failing(comfy, client.with_input(prompt, "MusicGenDecode.codec", ["other", 2]))
    assert "mono" in message and "stereo" in message


def test_damaged_checkpoint_is_named(comfy):
    folder = comfy.base / "models" / "musicgen" / "broken"
    folder.mkdir()
    try:
        for path in (comfy.base / "models" / "musicgen" / "toy").iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes()[:5000])
        message = failing(comfy, workflow("text_to_music", MusicGenLoader__model="broken"))
        assert "broken" in message and "state_dict.bin" in message
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_missing_audiocraft_says_how_to_install_it(comfy):
    if comfy.has_module("audiocraft"):
        pytest.skip("audiocraft is installed in ComfyUI's environment")
    message = failing(comfy, workflow("text_to_music", MusicGenLoader__engine="audiocraft"))
    assert "--no-deps" in message and "audiocraft" in message


def test_server_still_works_after_all_that(comfy):
    assert len(comfy.run(workflow("text_to_music", MusicGenSampler__seed=99)).saved) == 1


@pytest.mark.slow
def test_nodes_load_with_broken_libraries_and_say_so_only_where_one_is_needed(tmp_path):
    """torchaudio, soundfile and audiocraft raise on import, as mismatched installations do."""
    stubs, base, repaired = tmp_path / "stubs", tmp_path / "base", tmp_path / "repaired"
    root, _ = comfy_server.find()
    core_needs_torchaudio = (root / "comfy/ldm/lightricks/vae/audio_vae.py").exists()  # it does not start without
    for name in ("soundfile", "audiocraft", *(() if core_needs_torchaudio else ("torchaudio",))):
        (stubs / name).mkdir(parents=True)
        broken = (
            f"import os\nif not os.path.exists({str(repaired)!r}):\n    raise OSError('{name} is broken on purpose')\n"
        )
        (stubs / name / "__init__.py").write_text(broken)
    comfy_server.write_toys(base / "models" / "musicgen", ["toy"])
    server = comfy_server.ComfyUI(base, {"PYTHONPATH": str(stubs)})
    try:
        assert set(CONTRACT) <= set(server.get("/object_info"))
        assert server.import_seconds() < 1.0
        loudness = saving(probe_audio(seconds=1.0))
        loudness["2"]["inputs"]["audio"] = ["3", 0]
        loudness["3"] = {"class_type": "MusicGenNormalize", "inputs": {"audio": ["1", 0], "strategy": "loudness"}}
        assert len(server.run(loudness).saved) == 1
        music = workflow("text_to_music", MusicGenNormalize__strategy="peak")
        # Some releases of transformers import torchaudio and soundfile wherever they are installed.
        try:
            result = server.run(music)
        except client.NodeError as error:
            assert "is broken on purpose" in str(error)
            repaired.touch()
            result = server.run(music)
        assert len(result.saved) == 1
    finally:
        server.stop()
