"""MultiBand Diffusion: audiocraft's numbers, however long, however many, and from whichever file."""

import itertools
import types
from dataclasses import replace
from unittest import mock

import pytest
import torch
from comfyui_musicgen.musicgen.accel.unet import cpu, winograd
from comfyui_musicgen.musicgen.checkpoints import fill
from comfyui_musicgen.musicgen.diffusion import bands, decoder, moments, unet
from comfyui_musicgen.musicgen.diffusion.checkpoint import open_diffusion
from comfyui_musicgen.musicgen.diffusion.config import DiffusionConfig
from comfyui_musicgen.musicgen.diffusion.schedule import plan_steps
from comfyui_musicgen.musicgen.multiband import load_diffusion
from comfyui_musicgen.musicgen.seeds import row_seed
from comfyui_musicgen.tests.toy.diffusion import TOY_UNET, write_toy_diffusion

RATE_HZ, HOP = 32000, 640
SMALL = replace(TOY_UNET, hidden=4, codec_dim=16)
BRANCHES = {
    "plain": {},
    "two-res-blocks": {"res_blocks": 2},
    "one-embedding": {"emb_all_layers": False},
    "bilstm": {"bilstm": True},
    "transformer": {"transformer": True, "hidden": 8},
    "cross-attention": {"transformer": True, "cross_attention": True, "hidden": 8},
    "odd-stride": {"kernel": 5, "stride": 3, "depth": 3},  # beyond what the fast U-Net takes
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Factory of toy files, each written once: written(res_blocks=2) -> path."""
    cache = {}

    def toy(n_bands=2, **changes):
        key = (n_bands, *sorted(changes.items()))
        if key not in cache:
            file = tmp_path_factory.mktemp("mbd") / "mbd.th"
            cache[key] = write_toy_diffusion(file, replace(SMALL, **changes), n_bands=n_bands)
        return cache[key]

    return toy


@pytest.fixture(scope="module")
def load(written):
    cache = {}

    def toy(**changes):
        key = tuple(sorted(changes.items()))
        if key not in cache:
            cache[key] = load_diffusion(written(**changes)).decoder
        return cache[key]

    return toy


def sounds(n_rows, n_frames, seed=0):
    """Latents [R, 16, T], and what a codec could have made of them [R, L]."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(n_rows, 16, n_frames, generator=generator)
    return latents, 0.1 * torch.randn(n_rows, HOP * n_frames, generator=generator)


def level_db(part, whole):
    return (10 * torch.log10(part.square().mean() / whole.square().mean())).item()


class Reference:
    """audiocraft's own objects, filled from the same file by its own code."""

    def __init__(self, file, latents, wave):
        omegaconf = pytest.importorskip("omegaconf")
        from audiocraft.models import builders
        from audiocraft.models.multibanddiffusion import DiffusionProcess, MultiBandDiffusion
        from audiocraft.modules.diffusion_schedule import NoiseSchedule

        contents = torch.load(file, weights_only=True)
        processes = []
        for number in range(contents["n_bands"]):
            cfg = omegaconf.OmegaConf.create(contents[number]["cfg"])
            model = builders.get_diffusion_model(cfg).eval()
            model.load_state_dict(contents[number]["model_state"])
            processor = builders.get_processor(cfg.processor, contents["sample_rate"])
            processor.load_state_dict(contents[number]["processor_state"])
            processes.append(
                DiffusionProcess(model, NoiseSchedule(**cfg.schedule, sample_processor=processor, device="cpu"))
            )
        codec = types.SimpleNamespace(
            sample_rate=RATE_HZ, frame_rate=RATE_HZ / HOP, channels=1, decode=lambda tokens: wave[:, None],
            decode_latent=lambda tokens: latents, parameters=lambda: iter([wave]),
        )  # fmt: skip
        self.models = [process.model for process in processes]
        self.whole = MultiBandDiffusion(processes, codec)


@pytest.mark.parametrize("changes", BRANCHES.values(), ids=BRANCHES)
def test_model_and_decode_are_audiocrafts(audiocraft, written, load, changes):
    latents, wave = sounds(1, 9)
    ours, theirs = load(**changes), Reference(written(**changes), latents, wave)
    x = torch.randn(1, 1, wave.shape[-1], generator=torch.Generator().manual_seed(1))
    for band, model in zip(ours.bands, theirs.models, strict=True):
        n_frames = -(-wave.shape[-1] // band.config.unet.hop)
        condition = decoder._Condition(band.unet, latents, n_frames, True)([(0, n_frames)])
        with torch.no_grad():
            expected = model(x, 499, condition=latents).sample
            assert torch.equal(band.unet(x, 499, condition), expected)
            torch.testing.assert_close(cpu.faster_unet(band.unet)(x, 499, condition), expected, atol=1e-5, rtol=0)
    torch.manual_seed(7)
    expected = theirs.whole.tokens_to_wav(torch.zeros(1, 4, 9, dtype=torch.int64))[0]
    torch.testing.assert_close(ours.decode(latents, wave, [7]), expected, atol=1e-4, rtol=0)


def test_the_fast_unet_is_taken_where_it_fits(load):
    assert isinstance(cpu.faster_unet(load().bands[0].unet), cpu.CpuUnet)
    odd = load(**BRANCHES["odd-stride"]).bands[0].unet
    assert cpu.faster_unet(odd) is odd


@pytest.mark.parametrize("n_rows", [1, 3])
def test_fewer_products_give_the_same_sums(monkeypatch, load, n_rows):
    """Winograd's convolutions in every layer, against torch's; all lengths modulo the tiles."""
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_OUTPUTS", 16)
    monkeypatch.setattr(winograd, "_NUMBERS", 16)
    slow = load().bands[0].unet
    quick = cpu.faster_unet(slow)
    for length in (200, 255, 256, 257, 6 * HOP, 5000):
        x, condition = torch.randn(n_rows, 1, length), torch.randn(n_rows, 32, -(-length // 256))
        with torch.no_grad():
            torch.testing.assert_close(quick(x, 49, condition), slow(x, 49, condition), atol=1e-5, rtol=1e-5)


def test_twenty_steps_end_without_noise(load):
    steps = plan_steps(load().bands[0].config.schedule)
    assert [step.step for step in steps] == list(range(999, 0, -50))
    assert all(step.deviation > 0 for step in steps[:-1]) and steps[-1].deviation == 0


# --- rows


def test_a_row_does_not_depend_on_its_batch(load):
    latents, wave = sounds(3, 8)
    together = load(n_bands=1).decode(latents, wave, [1, 2, 3])
    for row in range(3):
        alone = load(n_bands=1).decode(latents[row : row + 1], wave[row : row + 1], [row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)
    in_groups = load(n_bands=1).decode(latents, wave, [1, 2, 3], window_s=wave.shape[-1] / RATE_HZ * 2)
    torch.testing.assert_close(in_groups, together, atol=1e-5, rtol=0)


def test_the_seed_alone_decides(load):
    latents, wave = sounds(2, 8)
    latents, wave = latents[:1].expand(2, -1, -1), wave[:1].expand(2, -1)
    torch.manual_seed(1)
    first = load(n_bands=1).decode(latents, wave, [5, 5])
    torch.manual_seed(2)
    assert torch.equal(first, load(n_bands=1).decode(latents, wave, [5, 5]))
    torch.testing.assert_close(first[0], first[1], atol=1e-5, rtol=0)  # rows of one seed have one noise
    other = load(n_bands=1).decode(latents, wave, [5, row_seed(5, 1)])
    assert not torch.allclose(other[0], other[1], atol=1e-3)


def test_silence_stays_silence(load):
    latents, wave = sounds(1, 8)
    decoded = load(n_bands=1).decode(latents, torch.zeros_like(wave), [0])
    assert decoded.isfinite().all() and decoded.abs().max() < 1e-6


# --- equalizer


def test_bands_are_split_as_julius_does():
    julius = pytest.importorskip("julius")
    x = torch.randn(2, 50_000)
    for n_bands in (4, 8, 32):
        split = julius.SplitBands(RATE_HZ, n_bands=n_bands)
        theirs, filters = split(x), bands.low_pass_filters(n_bands, RATE_HZ)
        deviations = bands.band_deviations(x, filters)
        torch.testing.assert_close(deviations.t().float(), theirs.std(-1), atol=1e-5, rtol=1e-5)
        gains = torch.rand(2, n_bands)
        ours = bands.apply_filter(x, bands.weighted(filters, gains))
        torch.testing.assert_close(ours, (theirs * gains.t()[..., None]).sum(0), atol=1e-5, rtol=0)


def test_one_number_for_each_band_of_each_row():
    x, wanted = torch.randn(2, 40_000), torch.randn(2, 40_000) * torch.tensor([[0.1], [3.0]])
    decoded = decoder.equalize(x, wanted, RATE_HZ)
    filters = bands.low_pass_filters(32, RATE_HZ)
    have, want = (bands.band_deviations(signal, filters).sum(1) for signal in (decoded, wanted))
    torch.testing.assert_close(have / want, torch.ones_like(have), atol=0.05, rtol=0)


# --- long signals


def windows_of(model, length, window_s, fade_s):
    return decoder._windows(model.bands[0].config, length, RATE_HZ, window_s, fade_s)


def test_windows_with_given_statistics_are_the_whole(load):
    """What the convolutions see is finite: with the norms' statistics held still, windows change nothing."""
    latents, wave = sounds(1, 150)

    def still(norm, x, watch):
        return (side[None, None].expand(len(x), 1, -1) for side in (0.7 * norm.weight, norm.bias))

    with mock.patch.object(cpu, "_measured", still):
        whole = load(n_bands=1).decode(latents, wave, [1])
        parts = load(n_bands=1).decode(latents, wave, [1], window_s=1.0, fade_s=0.1)
    assert len(windows_of(load(n_bands=1), wave.shape[-1], 1.0, 0.1)) >= 3
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("branch", ["plain", pytest.param("bilstm", marks=pytest.mark.slow)])
def test_windows_are_close_to_the_whole_and_no_worse_at_joins(load, monkeypatch, branch):
    """The norms see the whole signal, which excerpts stand for: the difference is far below the signal everywhere."""
    monkeypatch.setattr(moments, "N_EXCERPTS", 2)
    latents, wave = sounds(1, 200)
    latents[..., 100:] *= 0.1  # loud, then quiet
    model = load(hidden=8, n_bands=1, **BRANCHES[branch])
    whole = model.decode(latents, wave, [1])
    parts = model.decode(latents, wave, [1], window_s=2.0, fade_s=0.5)
    plan = windows_of(model, wave.shape[-1], 2.0, 0.5)
    assert len(plan) >= 3
    error = parts - whole
    assert level_db(error, whole) < -40
    for (_, end), (start, _) in itertools.pairwise(plan):
        middle = (start + end) // 2 * 256
        near = slice(middle - 8000, middle + 8000)
        assert level_db(error[:, near], whole[:, near]) < level_db(error, whole) + 3


def test_windows_cover_everything_and_overlap():
    for n_frames in (99, 100, 101, 250, 999):
        plan = decoder.plan_windows(n_frames, 100, 20)
        assert plan[0][0] == 0 and plan[-1][1] == n_frames
        assert all(end - start <= 100 for start, end in plan)
        assert all(before[1] - after[0] >= 20 for before, after in itertools.pairwise(plan))


def test_excerpts_stand_for_the_signal(load):
    """As many as cover it: what the norms then see is what they see in the whole, but for the excerpts' edges."""
    excerpts = moments.Excerpts(1000, 125, 9)
    assert len(excerpts.spans) == 8 and all(0 <= first < last <= 1000 for first, last in excerpts.spans)
    model, x = load(n_bands=1).bands[0].unet, torch.randn(1, 1, 256000)
    condition, seen = torch.randn(1, 32, 1000), []

    def note(mean, variance):
        seen.append((mean, variance))
        return mean, variance

    def run(watch):
        parts = [(x[..., 256 * a : 256 * b], condition[..., a:b]) for a, b in excerpts.spans]
        return model(
            *(torch.cat(t) if i != 1 else 499 for i, t in enumerate(zip(*[(p[0], p[0], p[1]) for p in parts]))), watch
        )

    with torch.no_grad():
        model(x, 499, condition, unet.RunHooks(moments=note))
        estimated = excerpts.measure(run, lambda: None)
    for (mean, variance), (true_mean, true_variance) in zip(estimated, seen, strict=True):
        assert ((mean - true_mean).abs() < 0.1 * true_variance.sqrt()).all()
        assert ((variance / true_variance - 1).abs() < 0.1).all()


# --- progress and Cancel


class Stopped(Exception):
    pass


@pytest.mark.parametrize("seconds", [1, 3])
def test_progress_counts_every_band_step_and_window(load, seconds):
    calls = []
    latents, wave = sounds(1, 50 * seconds)
    load(n_bands=1).decode(latents, wave, [0], lambda *step: calls.append(step), window_s=1.5, fade_s=0.1)
    n_windows = len(windows_of(load(n_bands=1), wave.shape[-1], 1.5, 0.1))
    total = 20 * (n_windows + (n_windows > 1)) + 1
    assert {step[1] for step in calls} == {total}
    assert sorted({step[0] for step in calls}) == list(range(total + 1))
    assert [step[0] for step in calls] == sorted(step[0] for step in calls)


def test_it_can_be_stopped_between_layers(load):
    latents, wave = sounds(1, 20)
    left = iter(range(50))

    def on_step(done, total):
        if next(left, None) is None:
            raise Stopped

    with pytest.raises(Stopped):
        load(n_bands=1).decode(latents, wave, [0], on_step)


# --- precision


@pytest.mark.parametrize(("precision", "below_db"), [("float16", -45), ("bfloat16", -28)])
def test_half_precision_is_close(written, load, precision, below_db):
    latents, wave = sounds(1, 20)
    half = load_diffusion(written(n_bands=1)).decoder
    half.bands[0].unet.to(getattr(torch, precision))
    exact = load(n_bands=1).decode(latents, wave, [3])
    assert level_db(half.decode(latents, wave, [3]) - exact, exact) < below_db


def test_a_model_of_several_rates_of_bands(written):
    """Bands may differ in shape: each has its own settings."""
    checkpoint = open_diffusion(written(n_bands=1))
    config = checkpoint.config
    assert isinstance(config, DiffusionConfig) and len(config.bands) == 1
    model = decoder.MultiBandDecoder(config)
    fill(model, checkpoint.weights, "toy")
    latents, wave = sounds(1, 5)
    assert model.decode(latents, wave, [0]).shape == wave.shape
