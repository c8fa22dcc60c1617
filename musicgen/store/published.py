"""The published models: names on the Hugging Face hub, the files needed of each, and the revision they are taken from.

And the models that come with the pack, trained by `training/`.
"""

from pathlib import Path

# Of each model that comes with the pack its file, in the order of Load MusicGen.
SHIPPED = {
    name: Path(__file__).resolve().parents[2] / "pretrained" / f"{name}.safetensors"
    for name in ("general-mini", "pansori-mini")
}
DEFAULT = next(iter(SHIPPED))

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

# Models that follow chords: one file each, at an address of its own. Source: `sakemin/cog-musicgen-chord`.
ADDRESSES = {
    f"sakemin/musicgen-{kind}": f"https://weights.replicate.delivery/default/musicgen-chord/musicgen-{kind}.th"
    for kind in ("chord", "chord-large", "stereo-chord", "stereo-chord-large")
}

CODEC = "facebook/encodec_32khz"  # shared by all models of music; some only name it

DIFFUSION = "facebook/multiband-diffusion"  # decodes the codes of all models of music
DIFFUSION_FILES = ("mbd_musicgen_32khz.th",)
DIFFUSION_MODEL = f"{DIFFUSION}/{DIFFUSION_FILES[0]}"

# In the order of their download: a folder is recognised by the last one, and so never before it is complete.
MODEL_FILES = ("compression_state_dict.bin", "state_dict.bin")
TRANSFORMERS_FILES = ("model.safetensors", "config.json")  # of a codec, and of a model as transformers caches it

# Commit of each repository that its files are taken from. The authors of this table had no access to the hub and know
# none: the commit of 'main' at the first download is written beside the weights and kept to. An entry here pins it.
REVISIONS: dict[str, str] = {}


def files_of(repository: str) -> tuple[str, ...]:
    """The files to download of a repository: a model in audiocraft's format, a codec in Hugging Face's, ..."""
    if repository == DIFFUSION:
        return DIFFUSION_FILES
    return MODEL_FILES if repository in KNOWN else TRANSFORMERS_FILES


def repository_of(name: str, kind: str) -> str | None:
    """The repository of a published model, None for any other name."""
    if kind == "diffusion":
        return DIFFUSION if name == DIFFUSION_MODEL else None
    return name if name in KNOWN else None
