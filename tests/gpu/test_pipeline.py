"""Whole pieces on a CUDA card: text, melody, continuation, windows, MultiBand Diffusion; beside the CPU."""

import gc
from dataclasses import replace

import pytest
import torch
from comfyui_musicgen.musicgen import render
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.loading import load
from comfyui_musicgen.musicgen.multiband import load_diffusion
from comfyui_musicgen.musicgen.store.published import SHIPPED
from comfyui_musicgen.tests.toy.diffusion import TOY_UNET, write_toy_diffusion

SHORT = GenerationParams(duration_s=2, seed=3)
CPU = torch.device("cpu")


def tone(seconds=2.0, rate_hz=32000):
    time_s = torch.arange(int(seconds * rate_hz)) / rate_hz
    return Audio(0.3 * torch.sin(2 * torch.pi * 440 * time_s)[None, None], rate_hz)


def make(loaded, device, params=SHORT, diffusion=None, **piece):
    return render.render(
        loaded, render.RenderRequest("a slow drum", **piece), params, device, lambda *step: None, diffusion=diffusion
    )


def off_db(one, other):
    """How far below the signal the difference of two sounds is, in dB."""
    return (20 * torch.log10((one - other).pow(2).mean().sqrt() / other.pow(2).mean().sqrt())).item()


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "int8"])
def test_the_shipped_models_make_music(device, precision, name):
    loaded = load(SHIPPED[name], precision, device)
    audio, codes = make(loaded, device)
    assert audio.duration_s == pytest.approx(2, abs=0.05) and audio.samples.device == CPU
    assert audio.samples.isfinite().all() and audio.samples.abs().max() > 0.01
    again, codes_again = make(loaded, device)
    assert torch.equal(codes.codes, codes_again.codes), "the same seed, other codes"
    assert off_db(again.samples, audio.samples) < -60


def test_float32_writes_the_codes_of_the_cpu(device, toys):
    loaded = load(toys(), "float32", device)
    here, there = make(loaded, device)[1].codes, make(load(toys(), "float32"), CPU)[1].codes
    share = (here == there).float().mean().item()
    assert share > 0.9, f"{100 * share:.1f} % of the codes are the CPU's"


def test_a_clip_is_continued(device, toys):
    loaded = load(toys(), "float32", device)
    _, codes = make(loaded, device, prompt=tone(1.0))
    encoded = loaded.codec.encode(tone(1.0)).codes
    share = (codes.codes[..., : encoded.shape[-1]] == encoded).float().mean().item()
    assert share > 0.95, f"{100 * share:.1f} % of the clip's codes are the CPU's"


def test_windows_of_a_long_piece(device, toys):
    loaded = load(toys(segment_s=4.0), "float32", device)
    audio, _ = make(loaded, device, replace(SHORT, duration_s=7, extend_stride_s=3))
    assert audio.duration_s == pytest.approx(7, abs=0.05) and audio.samples.isfinite().all()


def test_a_melody_is_heard_as_on_the_cpu(device, toys):
    loaded = load(toys(melody=True), "float32", device)

    def melody(where):
        conditioner = loaded.conditioner.to(where)
        return conditioner.encode_melody(conditioner.encode_text(["x"]), tone(), "off").prefix(0).float().cpu()

    expected = melody(CPU)
    torch.testing.assert_close(melody(device), expected, atol=1e-3 * expected.abs().max().item(), rtol=0)
    loaded.conditioner.to(CPU)
    audio, _ = make(loaded, device, melody=tone(), stems="off")
    assert audio.samples.isfinite().all()


@pytest.mark.parametrize("stereo", [False, True])
def test_the_codec_sounds_as_on_the_cpu(device, toys, stereo):
    codec = load(toys(stereo=stereo), "float32").codec
    codes = codec.encode(tone())
    expected = codec.decode(codes).samples
    assert off_db(codec.to(device).decode(codes).samples.cpu(), expected) < -60


@pytest.mark.parametrize(("precision", "below_db"), [("float32", -60), ("float16", -25)])
def test_multiband_diffusion_sounds_as_on_the_cpu(device, toys, tmp_path, precision, below_db):
    file = write_toy_diffusion(tmp_path / "mbd.th", TOY_UNET)
    loaded, params = load(toys(), "float32", device), replace(SHORT, duration_s=1)
    codes = make(load(toys(), "float32"), CPU, params)[1]
    expected = load_diffusion(file).decode(loaded.codec, codes, 3).samples
    diffusion = load_diffusion(file, device)
    for band in diffusion.decoder.bands:
        band.unet.to(getattr(torch, precision))  # as a file in this precision is loaded
    diffusion.to(device)
    heard = diffusion.decode(loaded.codec.to(device), codes, 3).samples.cpu()
    assert heard.isfinite().all()
    assert off_db(heard, expected) < below_db


def test_the_whole_pipeline_gives_its_memory_back(cuda, toys):
    loaded = load(toys(), "auto", cuda)
    make(loaded, cuda)
    gc.collect()
    before = torch.cuda.memory_allocated()
    make(loaded, cuda, replace(SHORT, batch_size=4))
    gc.collect()
    assert torch.cuda.memory_allocated() <= before + 2**20
