"""The published models: names on the Hugging Face hub, which of their files are needed, and at which revision.

And the one that comes with the pack, trained by `training/`.
"""

from pathlib import Path

SHIPPED = "pansori-mini"
SHIPPED_FILE = Path(__file__).resolve().parents[2] / "pretrained" / f"{SHIPPED}.safetensors"

KNOWN = (
    "facebook/musicgen-small",
    "facebook/musicgen-medium",
    "facebook/musicgen-large",
    "facebook/musicgen-melody",
    "facebook/musicgen-melody-large",
    "facebook/musicgen-stereo-small",
    "facebook/musicgen-stereo-medium",
    "facebook/musicgen-stereo-large",
    "facebook/musicgen-stereo-melody",
    "facebook/musicgen-stereo-melody-large",
    "facebook/audiogen-medium",
)

CODEC = "facebook/encodec_32khz"  # which all models of music share; some only name it

DIFFUSION = "facebook/multiband-diffusion"  # decodes the codes of all models of music
DIFFUSION_FILES = ("mbd_musicgen_32khz.th",)
DIFFUSION_MODEL = f"{DIFFUSION}/{DIFFUSION_FILES[0]}"

# In the order of their download: the last one is what a folder is known by, so that it is not taken for whole before.
MODEL_FILES = ("compression_state_dict.bin", "state_dict.bin")
CODEC_FILES = ("model.safetensors", "config.json")

# Commit of each repository that its files are taken from. None is known to the authors of this table, who had no
# access to the hub: a name that is not listed is resolved from 'main' once, when its download begins, and the
# commit found then is written beside the weights and kept to. Add entries here to pin what everybody gets.
REVISIONS: dict[str, str] = {}


def files_of(name: str) -> tuple[str, ...]:
    """What to download of a published repository: a model in audiocraft's format, a codec in Hugging Face's, ..."""
    if name == DIFFUSION:
        return DIFFUSION_FILES
    return MODEL_FILES if name in KNOWN else CODEC_FILES
