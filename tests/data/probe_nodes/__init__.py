"""Nodes and routes that the tests put into ComfyUI beside the pack: odd sounds, and a look inside."""

import gc
import json

import numpy
import torch
from aiohttp import web
from server import PromptServer


class ProbeAudio:
    """Makes AUDIO of any shape and kind."""

    RETURN_TYPES = ("AUDIO",)
    FUNCTION = "make"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "rate_hz": ("INT", {"default": 44100, "min": 1, "max": 1000000}),
                "channels": ("INT", {"default": 2, "min": 0, "max": 16}),
                "batch": ("INT", {"default": 1, "min": 1, "max": 64}),
                "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 100.0}),
                "dtype": (["float32", "float16", "float64"],),
                "kind": (["sine", "nan", "none"],),
            }
        }

    def make(self, rate_hz, channels, batch, seconds, dtype, kind):
        if kind == "none":
            return (None,)
        time = torch.arange(int(rate_hz * seconds), dtype=torch.float64) / rate_hz
        pitches = 220.0 * (1 + torch.arange(batch * channels)).reshape(batch, channels, 1)
        waveform = 0.5 * torch.sin(2 * torch.pi * pitches * time)
        if kind == "nan":
            waveform[..., -1] = float("nan")
        return ({"waveform": waveform.to(getattr(torch, dtype)), "sample_rate": rate_hz},)


class ProbeShape:
    """Shows what AUDIO came in."""

    RETURN_TYPES = ()
    FUNCTION = "show"
    CATEGORY = "probe"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"audio": ("AUDIO",)}}

    def show(self, audio):
        waveform = audio["waveform"]
        peak = waveform.abs().max().item()
        return {"ui": {"shape": [*waveform.shape, audio["sample_rate"], str(waveform.dtype), peak]}}


class Anything(str):
    """Output type that fits every input, as packs make it."""

    def __ne__(self, other):
        return False


class ProbeValue:
    """Gives a value of any kind to a widget."""

    RETURN_TYPES = (Anything("*"),)
    FUNCTION = "give"
    CATEGORY = "probe"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"kind": ("STRING", {"default": "json"}), "text": ("STRING", {"default": "null"})}}

    def give(self, kind, text):
        if kind == "bytes":
            return (text.encode(),)
        value = json.loads(text)
        return (value if kind == "json" else getattr(numpy, kind)(value),)


@PromptServer.instance.routes.get("/probe/engine")
async def engine(request):
    """How many of the engine's models and attention caches are alive, and how many bytes the weights take."""
    gc.collect()
    objects = gc.get_objects()
    names = ("LanguageModel", "Conditioner", "Codec")
    alive = [o for o in objects if type(o).__name__ in names and issubclass(type(o), torch.nn.Module)]
    n_caches = sum(type(o).__name__ in ("LayerCache", "TableCache") for o in objects)
    weights = {p.data_ptr(): p.numel() * p.element_size() for module in alive for p in module.parameters()}
    return web.json_response({"modules": len(alive), "bytes": sum(weights.values()), "caches": n_caches})


NODE_CLASS_MAPPINGS = {"ProbeAudio": ProbeAudio, "ProbeShape": ProbeShape, "ProbeValue": ProbeValue}
