"""The contract of musicgen-chord and musicgen-stereo-chord: fields, by Python and the command line; the original's faults mended."""

import json
import logging

import pytest
import torch
from comfyui_musicgen.clients.predict import graph
from comfyui_musicgen.musicgen import audio
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.conditioning.chords import Progression, row_of
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.replicate import predict as predicting
from comfyui_musicgen.musicgen.replicate.contracts import CONTRACTS, ChordRequest
from comfyui_musicgen.musicgen.replicate.predict import predict
from comfyui_musicgen.tests.songs.music import compose
from comfyui_musicgen.tests.songs.players import play
from comfyui_musicgen.tests.toy.diffusion import TOY_UNET, write_toy_diffusion

# Section 1.1 of the study of cog-musicgen-chord, copied by hand: name -> (JSON type, default).
CONTRACT = {
    "model_version": ("string", "stereo-chord-large"),
    "prompt": ("string", None),
    "text_chords": ("string", None),
    "bpm": ("number", None),
    "time_sig": ("string", "4/4"),
    "audio_chords": ("string", None),
    "audio_start": ("integer", 0),
    "audio_end": ("integer", None),
    "duration": ("integer", 8),
    "continuation": ("boolean", False),
    "multi_band_diffusion": ("boolean", False),
    "normalization_strategy": ("string", "loudness"),
    "chroma_coefficient": ("number", 1.0),
    "top_k": ("integer", 250),
    "top_p": ("number", 0.0),
    "temperature": ("number", 1.0),
    "classifier_free_guidance": ("integer", 3),
    "output_format": ("string", "wav"),
    "seed": ("integer", None),
}
