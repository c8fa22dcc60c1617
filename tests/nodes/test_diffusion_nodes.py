"""MultiBand Diffusion in the pipeline and as nodes: stereo, batches, seeds, errors, pictures."""

import json
from dataclasses import replace

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.audio.spectrogram import spectrogram_picture
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.loading import load
from comfyui_musicgen.musicgen.multiband import load_diffusion
from comfyui_musicgen.nodes import host
from comfyui_musicgen.tests.comfyui import comfy_server
from comfyui_musicgen.tests.toy.diffusion import TOY_UNET, write_toy_diffusion


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    file = tmp_path_factory.mktemp("mbd") / "mbd.th"
    return load_diffusion(write_toy_diffusion(file, replace(TOY_UNET, hidden=4), n_bands=2))


@pytest.fixture(scope="module")
def mono(toys):
    return load(toys()).codec


@pytest.fixture(scope="module")
def stereo(toys):
    return load(toys(stereo=True)).codec


def some_codes(codec, n_clips=1, n_frames=8):
    shape = (n_clips, codec.config.n_codebooks, n_frames)
    values = torch.randint(codec.config.codebook_size, shape, generator=torch.Generator().manual_seed(1))
    return Codes(values, codec.config.frame_rate_hz, codec.config.identity)


def rows(codes, *which):
    return replace(codes, codes=codes.codes[list(which)])


def test_left_and_right_are_decoded_each(diffusion, mono, stereo):
    """Even codebooks are the left channel's, odd ones the right's; the toys share no codebooks, so this is by shape."""
    codes = some_codes(stereo)
    made = diffusion.decode(stereo, codes, 3)
    assert made.samples.shape == (1, 2, 8 * 640)
    sides = [stereo.decode_latent(codes)[side : side + 1] for side in (0, 1)]
    plain = stereo.decode(codes)
    for side, latents in enumerate(sides):
        one = diffusion.refine(Audio(plain.samples[:, side : side + 1], plain.rate_hz), latents, 3)
        torch.testing.assert_close(one.samples[:, 0], made.samples[:, side], atol=1e-5, rtol=0)
    twin = replace(codes, codes=codes.codes[:, ::2].repeat_interleave(2, dim=1))
    middle = diffusion.decode(stereo, twin, 3).samples
    torch.testing.assert_close(middle[:, 0], middle[:, 1], atol=1e-5, rtol=0)


def test_a_clip_is_the_same_in_every_batch(diffusion, mono):
    codes = some_codes(mono, 3)
    together = diffusion.decode(mono, codes, 3).samples
    torch.testing.assert_close(diffusion.decode(mono, rows(codes, 0), 3).samples, together[:1], atol=1e-5, rtol=0)
    swapped = diffusion.decode(mono, rows(codes, 0, 2, 1), 3).samples
    assert not torch.allclose(swapped[1:], together[[2, 1]], atol=1e-3), "each clip has a noise of its own"


def test_it_is_not_the_codecs_own_sound_but_has_its_spectrum(diffusion, mono):
    codes = some_codes(mono, n_frames=50)
    plain, made = mono.decode(codes).samples, diffusion.decode(mono, codes).samples
    assert not torch.allclose(plain, made, atol=0.01)
    assert 0.9 < (made.std() / plain.std()).item() < 1.1


def test_codes_of_another_codec_are_refused_naming_both(mono, tmp_path, toys):
    low = load_diffusion(write_toy_diffusion(tmp_path / "mbd_24.pt", TOY_UNET, n_bands=1, sample_rate_hz=24000))
    with pytest.raises(InputError, match=r"32 kHz.*mbd_24 \(24000 Hz, latents of width 128\)"):
        low.decode(mono, some_codes(mono))
    narrow = load_diffusion(write_toy_diffusion(tmp_path / "n.pt", replace(TOY_UNET, codec_dim=64), n_bands=1))
    with pytest.raises(InputError, match=r"width 128.*width 64"):
        narrow.decode(mono, some_codes(mono))
    slow = replace(TOY_UNET, depth=6)  # 4096 samples a frame
    with pytest.raises(InputError, match="another codec"):
        load_diffusion(write_toy_diffusion(tmp_path / "s.pt", slow, n_bands=1)).decode(mono, some_codes(mono))


def test_codes_of_another_checkpoint_are_refused(diffusion, mono, stereo):
    with pytest.raises(InputError, match="These codes were made for"):
        diffusion.decode(mono, some_codes(stereo))


# --- nodes


def test_nodes_load_and_decode(diffusion, mono, tmp_path, monkeypatch):
    models = tmp_path / "musicgen"
    write_toy_diffusion(models / "mine.th", replace(TOY_UNET, hidden=4), n_bands=2)
    monkeypatch.setattr(host, "model_dirs", lambda: [models])
    loader, decode = NODES["MusicGenDiffusionLoader"], NODES["MusicGenDecodeDiffusion"]
    combo = loader.INPUT_TYPES()["required"]["diffusion"]
    assert combo[0][0] == combo[1]["default"] == "mine.th"
    assert "facebook/multiband-diffusion/mbd_musicgen_32khz.th" in combo[0]
    assert loader.VALIDATE_INPUTS("mine.th") is True
    assert "Found there: mine.th" in loader.VALIDATE_INPUTS("other.th")
    before = loader.IS_CHANGED("mine.th")
    (loaded,) = loader().load("mine.th")
    codec, codes = host.Managed(mono, "codec"), some_codes(mono, 2)
    audio, picture = decode().decode(codec, loaded, codes, 3, fade_ms=0.0)
    assert torch.equal(audio["waveform"], diffusion.decode(mono, codes, 3).samples) and audio["sample_rate"] == 32000
    assert picture.shape == (2, 256, 1024, 3)
    plain, other = NODES["MusicGenDecode"]().decode(codec, codes)
    assert plain["waveform"].shape == audio["waveform"].shape and other.shape == picture.shape
    write_toy_diffusion(models / "mine.th", replace(TOY_UNET, hidden=8), n_bands=1)
    assert loader.IS_CHANGED("mine.th") != before


def test_memory_is_bounded_and_grows_with_the_signals_only(diffusion, mono):
    half_a_minute, five, ten = (
        diffusion.memory_bytes(some_codes(mono, n_frames=n_frames), mono) for n_frames in (1500, 15_000, 30_000)
    )
    assert half_a_minute < five and ten - five < 0.6 * five


def test_the_spectrogram_shows_pitch_level_and_time():
    t = torch.arange(32000) / 32000
    tone = torch.where(t < 0.5, torch.sin(2 * torch.pi * 1000 * t), torch.zeros(1))
    picture = spectrogram_picture(Audio(torch.stack([tone, tone / 100])[:, None], 32000))
    assert picture.shape == (2, 256, 1024, 3) and picture.dtype == torch.float32
    assert picture.min() >= 0 and picture.max() <= 1
    brightness = picture.sum(-1)
    row = brightness[0, :, 200].argmax().item()
    bin_of_1000_hz = 256 * 1000 / 3564  # 1000 mel of those of 16 kHz
    assert abs((255 - row) - bin_of_1000_hz) < 4
    assert brightness[0, row, 200] > brightness[1, row, 200] > brightness[0, row, 900]
    assert spectrogram_picture(Audio(torch.zeros(1, 2, 5), 48000)).shape == (1, 256, 1024, 3)


# --- ComfyUI


def test_both_decoders_side_by_side_in_comfyui(comfy):
    path = comfy_server.ROOT / "workflows" / "api" / "decode_two_ways.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
    # In the template the slow way is switched off, until a model with such a decoder is chosen.
    diffusion = {"diffusion": "facebook/multiband-diffusion/mbd_musicgen_32khz.th"}
    (codec,), (codes,) = (
        {tuple(node["inputs"][name]) for node in prompt.values() if node["class_type"] == "MusicGenDecode"}
        for name in ("codec", "codes")
    )
    wires = {"codec": list(codec), "codes": list(codes), "diffusion": ["load diffusion", 0], "seed": 0}
    prompt |= {
        "load diffusion": {"class_type": "MusicGenDiffusionLoader", "inputs": diffusion},
        "diffuse": {"class_type": "MusicGenDecodeDiffusion", "inputs": wires},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["diffuse", 1]}},
        "save": {
            "class_type": "MusicGenSaveAudio",
            "inputs": {"audio": ["diffuse", 0], "filename_prefix": "diffused", "format": "flac", "bit_depth": "16"},
        },
    }
    for node in prompt.values():
        node["inputs"].update({"model": "toy-stereo"} if node["class_type"] == "MusicGenLoader" else {})
        node["inputs"].update({"duration_s": 0.5} if node["class_type"] == "MusicGenSampler" else {})
    result = comfy.run(prompt)
    sounds = [saved for saved in result.saved if saved["filename"].endswith(".flac")]
    pictures = [image for output in result.outputs.values() for image in output.get("images", ())]
    assert len(sounds) == len(pictures) == 2
    first, second = (comfy.path_of(saved).read_bytes() for saved in sounds)
    assert first[:4] == second[:4] == b"fLaC" and first != second
