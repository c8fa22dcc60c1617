"""MultiBand Diffusion, the engine's part: every band and the whole decode equal audiocraft's, whatever the U-Net holds."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_musicgen.musicgen.diffusion.decoder import MultiBandDecoder
from comfyui_musicgen.musicgen.diffusion_config import (
    BandConfig,
    DiffusionConfig,
    ProcessorConfig,
    ScheduleConfig,
    UnetConfig,
)

SCHEDULE = {"beta_t0": 1e-5, "beta_t1": 2.9e-2, "beta_exp": 7.5}
UNETS = [
    {},
    {"res_blocks": 2},
    {"bilstm": True},
    {"transformer": True},
    {"transformer": True, "cross_attention": True},
    {"emb_all_layers": False},
]


@torch.no_grad()
def both(n_frames, **options):
    """audiocraft's MultiBandDiffusion of two bands with random weights, ours with the same, latents and plain audio."""
    from audiocraft.models.multibanddiffusion import DiffusionProcess, MultiBandDiffusion
    from audiocraft.models.unet import DiffusionUnet
    from audiocraft.modules.diffusion_schedule import MultiBandProcessor, NoiseSchedule, SampleProcessor

    size = {"hidden": 8, "depth": 4, "growth": 2.0, "kernel": 8, "stride": 4, "res_blocks": 1, "emb_all_layers": True}
    unet = {**size, "codec_dim": 16, **options}
    theirs, bands = [], []
    for number in range(2):
        model = DiffusionUnet(chin=1, num_steps=1000, **unet).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        processor, config = SampleProcessor(), None
        if number == 1:
            processor = MultiBandProcessor(n_bands=8, sample_rate=32000, power_std=0.4)
            processor.counts += 10
            for name in ("sum_x2", "sum_target_x2"):
                getattr(processor, name).add_(torch.rand(8) + 1)
            config = ProcessorConfig(8, processor.split_bands.lowpass.filters.shape[-1], 0.4)
        schedule = NoiseSchedule(**SCHEDULE, num_steps=1000, clip=5.0, device="cpu", sample_processor=processor)
        theirs.append(DiffusionProcess(model, schedule))
        bands.append(BandConfig(UnetConfig(**unet), ScheduleConfig(**SCHEDULE), config))
    ours = MultiBandDecoder(DiffusionConfig("toy", 32000, tuple(bands))).eval()
    for band, process in zip(ours.bands, theirs, strict=True):
        band.unet.load_state_dict(process.model.state_dict())
        if band.processor:
            state = process.schedule.sample_processor.state_dict()
            band.processor.load_state_dict({n.replace("split_bands.lowpass.", ""): t for n, t in state.items()})
    latents, plain = torch.randn(1, 16, n_frames), 0.1 * torch.randn(1, 1, 640 * n_frames)
    codec = SimpleNamespace(
        sample_rate=32000, frame_rate=50, channels=1, decode=lambda codes: plain, decode_latent=lambda codes: latents,
        parameters=lambda: iter([plain]),
    )  # fmt: skip
    return MultiBandDiffusion(theirs, codec), ours, latents, plain


@torch.no_grad()
@pytest.mark.parametrize("options", UNETS, ids=str)
def test_a_whole_decode_equals_audiocrafts(audiocraft, options):
    torch.manual_seed(3)
    theirs, ours, latents, plain = both(13, **options)
    torch.manual_seed(5)
    expected = theirs.tokens_to_wav(torch.zeros(1, 4, 13))
    made = ours.decode(latents, plain[:, 0], [5])
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(made, expected[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_rows_are_decoded_by_themselves_and_a_run_can_be_stopped(audiocraft):
    torch.manual_seed(4)
    _, ours, latents, plain = both(9)
    rows = ours.decode(latents.expand(2, -1, -1), plain[:, 0].expand(2, -1), [1, 2])
    alone = ours.decode(latents, plain[:, 0], [2])
    torch.testing.assert_close(rows[1:], alone, atol=1e-5, rtol=0)
    assert not torch.equal(rows[0], rows[1])

    class Stop(Exception):
        pass

    def stop(done, total):
        if done:
            raise Stop

    with pytest.raises(Stop):
        ours.decode(latents, plain[:, 0], [1], stop)


@torch.no_grad()
def test_silence_stays_finite(audiocraft):
    _, ours, latents, plain = both(9)
    assert ours.decode(latents, torch.zeros_like(plain[:, 0]), [0]).isfinite().all()
