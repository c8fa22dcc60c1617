"""Every published model: its true hyper-parameters, on a small checkpoint of the same configuration."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml
from comfyui_musicgen.musicgen.checkpoints import fill, open_checkpoint
from comfyui_musicgen.musicgen.checkpoints.weights.expected import codec_shapes, conditioner_shapes
from comfyui_musicgen.musicgen.codec import Codec
from comfyui_musicgen.musicgen.config import CodecConfig, LMConfig, MelodyConfig, ModelConfig, TextConfig
from comfyui_musicgen.musicgen.lm import LM
from comfyui_musicgen.musicgen.store.published import KNOWN, MODEL_FILES, files_of
from comfyui_musicgen.tests.toy import MUSIC, SOUND

STEREO = (0, 0, 1, 1, 2, 2, 3, 3)
WIDTHS = {"small": (1024, 16, 24), "medium": (1536, 24, 48), "large": (2048, 32, 48)}  # D, heads, layers
TINY = {"dim": 32, "n_heads": 4, "n_layers": 2, "n_filters": 2, "latent_dim": 16}


@dataclass(frozen=True)
class Published:
    """What the reference says of one model. Source: audiocraft's config files and Hugging Face's conversion scripts."""

    size: str
    n_parameters: int  # of the language model and its projections
    melody: bool = False
    stereo: bool = False
    text: tuple[str, int] = ("t5-base", 768)
    codec: tuple[int, tuple[int, ...]] = MUSIC
    segment_s: float = 30.0
    stride_s: float = 18.0

    def config(self) -> ModelConfig:
        dim, heads, layers = WIDTHS[self.size]
        channels = 2 if self.stereo else 1
        delays = STEREO if self.stereo else (0, 1, 2, 3)
        return ModelConfig(
            name="full",
            lm=LMConfig(dim, heads, layers, 4 * dim, 4 * channels, 2048, delays, not self.melody),
            codec=CodecConfig(*self.codec, 4 * channels, 2048, channels=channels),
            text=TextConfig(*self.text),
            melody=MelodyConfig(12, 14, 235) if self.melody else None,
            segment_s=self.segment_s,
            extend_stride_s=self.stride_s,
        )

    def options(self) -> dict:
        return {
            **TINY, "melody": self.melody, "stereo": self.stereo, "text": self.text[0], "codec": self.codec,
            "segment_s": self.segment_s,
        }  # fmt: skip


MODELS = {
    "facebook/musicgen-small": Published("small", 420_371_456),
    "facebook/musicgen-medium": Published("medium", 1_838_737_920),
    "facebook/musicgen-large": Published("large", 3_256_956_928),
    "facebook/musicgen-melody": Published("medium", 1_385_625_600, melody=True),
    "facebook/musicgen-melody-large": Published("large", 2_451_480_576, melody=True),
    "facebook/musicgen-stereo-small": Published("small", 437_152_768, stereo=True),
    "facebook/musicgen-stereo-medium": Published("medium", 1_863_909_888, stereo=True),
    "facebook/musicgen-stereo-large": Published("large", 3_290_519_552, stereo=True),
    "facebook/musicgen-stereo-melody": Published("medium", 1_410_797_568, melody=True, stereo=True),
    "facebook/musicgen-stereo-melody-large": Published("large", 2_485_043_200, melody=True, stereo=True),
    "facebook/audiogen-medium": Published(
        "medium", 1_839_131_136, text=("t5-large", 1024), codec=SOUND, segment_s=10.0, stride_s=2.0
    ),
}
CODEC_PARAMETERS = {MUSIC: 56_884_674, SOUND: 56_819_138}
names = pytest.mark.parametrize("name", MODELS)


def shrunken(config: ModelConfig) -> ModelConfig:
    """The configuration with the width of the toy."""
    lm = replace(config.lm, dim=32, n_heads=4, n_layers=2, ffn_dim=128)
    return replace(config, lm=lm, codec=replace(config.codec, n_filters=2, latent_dim=16))


def test_all_known_names_are_in_the_table():
    assert set(MODELS) == set(KNOWN)
    assert all(files_of(name) == MODEL_FILES for name in KNOWN)


@names
def test_the_full_model_has_as_many_parameters_as_the_published_one(name):
    config = MODELS[name].config()
    with torch.device("meta"):
        lm = LM(config.lm)
    projections = sum(torch.Size(shape).numel() for shape in conditioner_shapes(config).values())
    assert sum(p.numel() for p in lm.parameters()) + projections == MODELS[name].n_parameters
    shapes = codec_shapes(config.codec)
    network = sum(torch.Size(shape).numel() for key, shape in shapes.items() if not key.startswith("quantizer"))
    gains = sum(shape[0] for key, shape in shapes.items() if key.endswith(".conv.weight"))  # weight norm's, fused here
    assert network + gains == CODEC_PARAMETERS[MODELS[name].codec]
    assert config.codec.frame_rate_hz == 50
    assert config.lm.head_dim == 64


# AudioGen was never published in Hugging Face's format.
PUBLISHED_AS = [(name, "audiocraft") for name in MODELS] + [(n, "huggingface") for n in MODELS if "musicgen" in n]


@pytest.mark.parametrize(("name", "format"), PUBLISHED_AS)
def test_a_small_checkpoint_of_the_same_configuration_is_read(toys, name, format):
    model = MODELS[name]
    checkpoint = open_checkpoint(toys(**model.options(), format=format))
    expected = replace(shrunken(model.config()), name=checkpoint.config.name)
    assert checkpoint.config == expected
    with torch.device("meta"):
        lm = LM(expected.lm)
    fill(lm, checkpoint.lm, name)
    fill(Codec(expected.codec), checkpoint.codec, name)


def test_the_table_reaches_the_files(toys):
    """What audiocraft would read of a small AudioGen."""
    folder = Path(toys(**MODELS["facebook/audiogen-medium"].options()))
    settings = yaml.safe_load(torch.load(folder / "state_dict.bin", weights_only=True)["xp.cfg"])
    assert settings["conditioners"]["description"]["t5"]["name"] == "t5-large"
    assert (settings["dataset"]["segment_duration"], settings["sample_rate"]) == (10.0, 16000)
    codec = yaml.safe_load(torch.load(folder / "compression_state_dict.bin", weights_only=True)["xp.cfg"])
    assert codec["seanet"]["ratios"] == [8, 5, 4, 2] and open_checkpoint(folder).config.codec.hop == 320
