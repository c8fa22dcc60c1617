"""The codec: audiocraft's numbers, whole or in chunks, on its own or in a batch, mono and stereo."""

import math
from types import SimpleNamespace

import pytest
import torch
from comfyui_musicgen.musicgen.audio import Audio, convert
from comfyui_musicgen.musicgen.codec import Codec, encodec, fingerprint, fingerprint_of, stereo
from comfyui_musicgen.musicgen.codec.streaming import Section
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.config import CodecConfig
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError

RATE_HZ, HOP = 32000, 640
RENAMED = (
    ("coder.model.", "coder.layers."),
    (".conv.conv.", ".conv."),
    (".convtr.convtr.", ".conv."),
    ("quantizer.vq.", "quantizer."),
    ("._codebook.", ".codebook."),
)


def toy_config(**options):
    sizes = {"sample_rate_hz": RATE_HZ, "ratios": (8, 5, 4, 4), "n_codebooks": 4, "codebook_size": 64}
    return CodecConfig(**{**sizes, "n_filters": 4, "latent_dim": 16, **options})


def toy_codec(seed=0, **options):
    """Random weights, loud enough for a sound well above rounding errors."""
    codec = Codec(toy_config(**options))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in codec.state_dict().items():
        if name.endswith("embed"):
            weight.normal_(generator=generator)
        else:
            scale = 1 / math.sqrt(weight[0].numel()) if weight.ndim > 1 else 0.1
            weight.uniform_(-1.7 * scale, 1.7 * scale, generator=generator)
    return codec


def toy_codes(codec, n_frames, batch=1, seed=1):
    shape = (batch, codec.config.n_codebooks, n_frames)
    codes = torch.randint(codec.config.codebook_size, shape, generator=torch.Generator().manual_seed(seed))
    return Codes(codes, codec.config.frame_rate_hz, codec.config.identity)


def noise(n_samples, channels=1, batch=1, rate_hz=RATE_HZ, seed=2):
    samples = torch.randn(batch, channels, n_samples, generator=torch.Generator().manual_seed(seed))
    return Audio(samples * 0.3, rate_hz)


def at_once(monkeypatch, rows, frames):
    monkeypatch.setattr(encodec, "_AT_ONCE_ON_CPU", (rows, frames))


# --- against audiocraft -----------------------------------------------------------------------------------------


def reference_pair(config, seed=0):
    """(audiocraft's codec, ours) with the same random weights, renamed as in published checkpoints."""
    from audiocraft.models import builders
    from audiocraft.models.encodec import InterleaveStereoCompressionModel
    from omegaconf import OmegaConf

    options = {
        "compression_model": "encodec",
        "device": "cpu",
        "encodec": {
            "autoencoder": "seanet", "quantizer": "rvq", "sample_rate": RATE_HZ, "channels": 1,
            "causal": False, "renormalize": False,
        },
        "seanet": {
            "dimension": config.latent_dim, "channels": 1, "causal": False, "n_filters": config.n_filters,
            "n_residual_layers": config.n_residual_layers, "ratios": list(config.ratios), "activation": "ELU",
            "activation_params": {"alpha": 1.0}, "norm": "weight_norm", "norm_params": {},
            "kernel_size": config.kernel_size, "residual_kernel_size": config.residual_kernel_size,
            "last_kernel_size": config.last_kernel_size, "dilation_base": config.dilation_base,
            "pad_mode": config.pad_mode, "true_skip": not config.conv_shortcut, "compress": config.compress,
            "lstm": config.lstm_layers, "disable_norm_outer_blocks": 0, "encoder": {},
            "decoder": {"trim_right_ratio": 1.0, "final_activation": None, "final_activation_params": None},
        },
        "rvq": {
            "n_q": config.n_codebooks // config.channels, "q_dropout": False, "bins": config.codebook_size,
            "decay": 0.99, "kmeans_init": True, "kmeans_iters": 50, "threshold_ema_dead_code": 2,
            "orthogonal_reg_weight": 0.0, "orthogonal_reg_active_codes_only": False,
        },
    }  # fmt: skip
    torch.manual_seed(seed)
    theirs = builders.get_compression_model(OmegaConf.create(options)).eval()
    for layer in theirs.quantizer.vq.layers:
        layer._codebook.embed.normal_(std=0.3)
        layer._codebook.inited.fill_(1)
    codec = Codec(config)
    target = codec.state_dict()
    for name, weight in fused(theirs.state_dict()).items():
        target.pop(name).copy_(weight)
    assert not target  # every weight was given
    return (InterleaveStereoCompressionModel(theirs) if config.channels == 2 else theirs), codec


def fused(state):
    """audiocraft's names and weight_g, weight_v -> ours and their product."""
    weights = {}
    for name, weight in state.items():
        if name.endswith(("weight_v", "inited", "cluster_size", "embed_avg")):
            continue
        if name.endswith("weight_g"):
            v = state[name[:-1] + "v"]
            weight = v * (weight / v.flatten(1).norm(dim=1).view(-1, 1, 1))
            name = name[:-2]
        name = (
            name.replace(".model.", ".layers.", 1).replace(".conv.conv.", ".conv.").replace(".convtr.convtr.", ".conv.")
        )
        weights[name.replace("quantizer.vq.", "quantizer.").replace("._codebook.", ".codebook.")] = weight
    return weights


@pytest.mark.parametrize(
    "options",
    [
        {"pad_mode": "reflect"},
        {"pad_mode": "constant"},
        {"pad_mode": "reflect", "channels": 2, "n_codebooks": 8},
        {"ratios": (5, 2), "n_residual_layers": 2, "conv_shortcut": True, "kernel_size": 5, "lstm_layers": 1},
    ],
    ids=["reflect", "constant", "stereo", "other"],
)
def test_decode_and_encode_equal_audiocraft(audiocraft, options):
    theirs, codec = reference_pair(toy_config(n_filters=8, **options))
    channels, hop = codec.config.channels, codec.config.hop
    with torch.no_grad():
        for n_frames in (1, 2, 25, 26, 120):
            codes = toy_codes(codec, n_frames, batch=2)
            expected = theirs.decode(codes.codes)
            assert expected.abs().max() > 1e-2
            torch.testing.assert_close(codec.decode(codes).samples, expected, atol=1e-5, rtol=0)
        for n_samples in (1, 3, hop - 1, hop, hop + 1, 25 * hop, 25 * hop + 1, 26 * hop - 1, 100 * hop + 77):
            audio = noise(n_samples, channels, batch=2)
            expected, scale = theirs.encode(audio.samples)
            assert scale is None and expected.shape[-1] == math.ceil(n_samples / hop)
            assert torch.equal(codec.encode(audio).codes, expected), n_samples


# --- in chunks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize("n_frames", [1, 2, 5, 17, 61])
def test_decoding_in_chunks_equals_decoding_whole(monkeypatch, pad_mode, n_frames):
    codec = toy_codec(pad_mode=pad_mode)
    codes = toy_codes(codec, n_frames)
    at_once(monkeypatch, 1, 1000)
    unchunked = codec.decode(codes).samples
    assert unchunked.abs().max() > 1e-2
    for frames in (1, 2, 3, 7, 16, 60):
        at_once(monkeypatch, 1, frames)
        torch.testing.assert_close(codec.decode(codes).samples, unchunked, atol=1e-6, rtol=0)


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize("n_samples", [1, 600, 3 * HOP, 3 * HOP + 1, 17 * HOP - 1, 40 * HOP + 321])
def test_encoding_in_chunks_equals_encoding_whole(monkeypatch, pad_mode, n_samples):
    """Compared before the quantizer, where any difference shows; in float64, where that of a processor's kernels does not."""
    codec = toy_codec(pad_mode=pad_mode).double()
    samples = noise(n_samples).samples.double()
    monkeypatch.setattr(encodec, "convert", lambda audio, rate_hz, channels: SimpleNamespace(samples=samples))
    latents = []
    no_codes = torch.zeros(1, 4, 1)
    monkeypatch.setattr(codec.quantizer, "encode", lambda x: latents.append(x) or no_codes)

    def encoded(frames):
        at_once(monkeypatch, 1, frames)
        latents.clear()
        codec.encode(noise(n_samples))
        return torch.cat(latents, dim=-1)

    unchunked = encoded(1000)
    assert unchunked.dtype == torch.float64
    for frames in (1, 2, 3, 7, 16, 39):
        torch.testing.assert_close(encoded(frames), unchunked, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_a_frame_depends_on_nothing_outside_its_section_s_reach(pad_mode):
    codec = toy_codec(pad_mode=pad_mode)
    for layers, n_in, n_out in (
        (codec.encoder.layers[:13], HOP, 1),
        (codec.encoder.layers[14:], 1, 1),
        (codec.decoder.layers[:1], 1, 1),
        (codec.decoder.layers[2:], 1, HOP),
    ):
        section = Section(list(layers), n_in, n_out)
        channels = next(p for p in layers.parameters() if p.ndim > 1).shape[1 if n_out == 1 else 0]
        x = torch.randn(1, channels, 20 * n_in, requires_grad=True)
        section.run(x, 0, 10, 11).sum().backward()
        reached = x.grad.abs().sum(dim=1)[0].nonzero()[:, 0] // n_in
        assert 10 - section.left <= reached.min() < 10 < reached.max() <= 10 + section.right


def test_a_row_of_a_batch_equals_the_run_of_that_row_alone():
    codec = toy_codec(channels=2, n_codebooks=8)
    codes, audio = toy_codes(codec, 40, batch=3), noise(40 * HOP - 5, channels=2, batch=3)
    decoded, encoded = codec.decode(codes).samples, codec.encode(audio).codes
    for row in range(3):
        one = Codes(codes.codes[row : row + 1], codes.frame_rate_hz, codes.codec)
        torch.testing.assert_close(codec.decode(one).samples[0], decoded[row], atol=1e-6, rtol=0)
        assert torch.equal(codec.encode(Audio(audio.samples[row : row + 1], RATE_HZ)).codes[0], encoded[row])


def test_every_chunk_is_reported_and_every_layer_may_interrupt(monkeypatch):
    """One chunk took 0.4 to 1.3 s on busy cores."""
    codec = toy_codec()
    at_once(monkeypatch, 2, 10)
    for work, result in ((codec.decode, toy_codes(codec, 35, batch=3)), (codec.encode, noise(35 * HOP, batch=3))):
        steps = []
        work(result, lambda *step, steps=steps: steps.append(step))
        assert list(dict.fromkeys(steps)) == [(n, 8) for n in range(9)]
        assert min(steps.count((n, 8)) for n in range(8)) > 10  # layers

        def interrupt(done, total):
            if done == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            work(result, interrupt)
        work(result)


def test_fewer_rows_go_on_for_longer():
    """A mono clip's chunks are twice as long as a stereo clip's on a CPU: 100 and 50 frames."""
    for codec, n_chunks in ((toy_codec(), 3), (toy_codec(channels=2, n_codebooks=8), 5)):
        steps = []
        codec.decode(toy_codes(codec, 201), lambda *step, steps=steps: steps.append(step))
        assert steps[-1] == (n_chunks, n_chunks)


# --- stereo and inputs ------------------------------------------------------------------------------------------


def test_stereo_codes_alternate_between_left_and_right():
    codes = torch.arange(2 * 2 * 3 * 5).view(2 * 2, 3, 5)  # clips' left and right in turn
    pairs = stereo.interleave(codes, 2)
    assert torch.equal(pairs[1, 0::2], codes[2]) and torch.equal(pairs[1, 1::2], codes[3])
    assert torch.equal(stereo.separate(pairs, 2), codes)
    assert torch.equal(stereo.separate(stereo.interleave(codes, 1), 1), codes)


def test_a_stereo_codec_is_the_mono_codec_for_each_channel():
    mono, both = toy_codec(), toy_codec(channels=2, n_codebooks=8)
    audio = noise(30 * HOP, channels=2)
    codes = both.encode(audio)
    for channel in range(2):
        one = mono.encode(Audio(audio.samples[:, channel : channel + 1], RATE_HZ))
        assert torch.equal(codes.codes[:, channel::2], one.codes)
        torch.testing.assert_close(
            both.decode(codes).samples[:, channel], mono.decode(one).samples[:, 0], atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("rate_hz", [16000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_audio_is_converted_to_the_codec(rate_hz, channels):
    audio = noise(rate_hz // 2, channels=3 - channels, rate_hz=rate_hz)
    codec = toy_codec(channels=channels, n_codebooks=4 * channels)
    codes = codec.encode(audio)
    assert torch.equal(codes.codes, codec.encode(convert(audio, RATE_HZ, channels)).codes)
    assert codes.codec == codec.config.identity and codes.frame_rate_hz == 50 and codes.codes.dtype == torch.int64
    decoded = codec.decode(codes)
    assert (decoded.rate_hz, decoded.n_channels, decoded.n_samples) == (RATE_HZ, channels, codes.n_frames * HOP)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.codes.index_put((torch.tensor(0), torch.tensor(2), torch.tensor(7)), torch.tensor(64)),
         r"0 and 63, got 64, the special token.*\[0, 2, 7\]"),
        (lambda c: c.codes - 64, "0 and 63, got -"),
        (lambda c: c.codes + 100, "0 and 63, got 1"),
        (lambda c: c.codes[:, :3], "3 codebooks, but the codec has 4"),
        (lambda c: c.codes[..., :0], "empty"),
        (lambda c: c.codes.float(), "whole numbers"),
    ],
)  # fmt: skip
def test_unusable_codes_are_refused(change, message):
    codec = toy_codec()
    codes = toy_codes(codec, 10)
    with pytest.raises(InputError, match=message):
        codec.decode(Codes(change(codes), 50.0, codes.codec))


def test_codes_of_another_codec_are_refused():
    codec = toy_codec()
    with pytest.raises(InputError, match=r"EnCodec 24 kHz.*but the codec given is EnCodec 32 kHz"):
        codec.decode(Codes(torch.zeros(1, 4, 5, dtype=torch.int64), 50.0, "EnCodec 24 kHz"))


# --- construction -----------------------------------------------------------------------------------------------


def test_the_weights_have_exactly_the_names_that_checkpoints_are_mapped_to():
    convs = [f"{side}.layers.{n}.conv" for side in ("encoder", "decoder") for n in (0, 3, 6, 9, 12, 15)]
    blocks = [f"encoder.layers.{n}" for n in (1, 4, 7, 10)] + [f"decoder.layers.{n}" for n in (4, 7, 10, 13)]
    convs += [f"{block}.block.{i}.conv" for block in blocks for i in (1, 3)]
    lstms = [f"{layer}.lstm.{kind}_{part}_l{n}"
             for layer in ("encoder.layers.13", "decoder.layers.1")
             for kind in ("weight", "bias") for part in ("ih", "hh") for n in (0, 1)]  # fmt: skip
    books = [f"quantizer.layers.{q}.codebook.embed" for q in range(4)]
    names = {f"{conv}.{kind}" for conv in convs for kind in ("weight", "bias")} | set(lstms) | set(books)
    codec = toy_codec()
    assert set(codec.state_dict()) == names
    assert all(tensor.device.type == "cpu" and not tensor.requires_grad for tensor in codec.state_dict().values())
    assert set(toy_codec(channels=2, n_codebooks=8).state_dict()) == names


def test_construction_draws_no_random_numbers():
    state = torch.get_rng_state()
    Codec(toy_config())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_fingerprint_tells_codebooks_apart():
    codec = toy_codec()
    assert fingerprint(codec) == fingerprint(toy_codec(channels=2, n_codebooks=8)) != fingerprint(toy_codec(seed=3))
    assert fingerprint(codec) == fingerprint_of(layer.codebook.embed.double() for layer in codec.quantizer.layers)
    assert len(fingerprint(codec)) == 12


@pytest.mark.parametrize("options", [{"causal": True}, {"pad_mode": "mirror"}, {"trim_right_ratio": 0.5}])
def test_codecs_that_no_musicgen_model_uses_are_refused(options):
    with pytest.raises(CheckpointError, match=next(iter(options))):
        Codec(toy_config(**options))
