"""ComfyUI's own nodes that templates use, as far as 0.3.64, 0.10 and 0.33 agree on them, in the form of INPUT_TYPES."""

from types import SimpleNamespace
from typing import Any

VERSION = "0.3.64"  # of the oldest supported ComfyUI


def _node(title: str, inputs: dict[str, tuple[str, dict]], **outputs: str) -> Any:
    return SimpleNamespace(
        title=title,
        inputs=inputs,
        RETURN_NAMES=tuple(outputs),
        RETURN_TYPES=tuple(outputs.values()),
    )


CORE = {
    "PreviewImage": _node("Preview Image", {"images": ("IMAGE", {})}),
    "PreviewAudio": _node("Preview Audio", {"audio": ("AUDIO", {}), "audioUI": ("AUDIO_UI", {"default": None})}),
    "EmptyImage": _node(
        "EmptyImage",
        {
            "width": ("INT", {"default": 512}),
            "height": ("INT", {"default": 512}),
            "batch_size": ("INT", {"default": 1}),
            "color": ("INT", {"default": 0}),
        },
        IMAGE="IMAGE",
    ),
    "PrimitiveFloat": _node("Float", {"value": ("FLOAT", {"default": 0.0})}, FLOAT="FLOAT"),
    "CreateVideo": _node(
        "Create Video",
        {"images": ("IMAGE", {}), "audio": ("AUDIO", {}), "fps": ("FLOAT", {"default": 30.0})},
        VIDEO="VIDEO",
    ),
    "SaveVideo": _node(
        "Save Video",
        {
            "video": ("VIDEO", {}),
            "filename_prefix": ("STRING", {"default": "video/ComfyUI"}),
            "format": (["auto", "mp4"], {"default": "auto"}),
            "codec": (["auto", "h264"], {"default": "auto"}),
        },
    ),
}
