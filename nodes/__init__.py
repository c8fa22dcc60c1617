"""The nodes. Ids are what saved workflows store: never renamed, never removed."""

from . import host
from .audio import MusicGenEncode, MusicGenTrimAudio, MusicGenTrimCodes
from .conditioning import MusicGenChords, MusicGenMelody, MusicGenText
from .decode import MusicGenDecode, MusicGenDecodeDiffusion
from .examples import MusicGenExample, MusicGenLength
from .hearing import MusicGenAnalyze
from .loader import MusicGenDiffusionLoader, MusicGenFineTune, MusicGenLoader
from .loop import MusicGenLoop
from .normalize import MusicGenNormalize
from .remix import MusicGenAlign, MusicGenMix, MusicGenStems
from .sampler import MusicGenSampler
from .save import MusicGenSaveAudio
from .score import MusicGenSaveScore, MusicGenScore, MusicGenScoreMelody
from .takes import MusicGenTakes
from .tempo import MusicGenTempo
from .timeline import MusicGenBlend, MusicGenTimeline
from .train import MusicGenDataset, MusicGenTrain

# ComfyUI-Manager reads these keys from the source, so they are spelled out.
NODE_CLASS_MAPPINGS = {
    "MusicGenLoader": MusicGenLoader,
    "MusicGenFineTune": MusicGenFineTune,
    "MusicGenDiffusionLoader": MusicGenDiffusionLoader,
    "MusicGenText": MusicGenText,
    "MusicGenMelody": MusicGenMelody,
    "MusicGenTrimAudio": MusicGenTrimAudio,
    "MusicGenTrimCodes": MusicGenTrimCodes,
    "MusicGenEncode": MusicGenEncode,
    "MusicGenSampler": MusicGenSampler,
    "MusicGenDecode": MusicGenDecode,
    "MusicGenDecodeDiffusion": MusicGenDecodeDiffusion,
    "MusicGenNormalize": MusicGenNormalize,
    "MusicGenSaveAudio": MusicGenSaveAudio,
    "MusicGenTimeline": MusicGenTimeline,
    "MusicGenBlend": MusicGenBlend,
    "MusicGenTakes": MusicGenTakes,
    "MusicGenLoop": MusicGenLoop,
    "MusicGenExample": MusicGenExample,
    "MusicGenLength": MusicGenLength,
    "MusicGenChords": MusicGenChords,
    "MusicGenAnalyze": MusicGenAnalyze,
    "MusicGenTempo": MusicGenTempo,
    "MusicGenStems": MusicGenStems,
    "MusicGenAlign": MusicGenAlign,
    "MusicGenMix": MusicGenMix,
    "MusicGenScore": MusicGenScore,
    "MusicGenScoreMelody": MusicGenScoreMelody,
    "MusicGenSaveScore": MusicGenSaveScore,
    "MusicGenDataset": MusicGenDataset,
    "MusicGenTrain": MusicGenTrain,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "MusicGenLoader": "Load MusicGen",
    "MusicGenFineTune": "Apply MusicGen Fine-Tune",
    "MusicGenDiffusionLoader": "Load MultiBand Diffusion",
    "MusicGenText": "MusicGen Text",
    "MusicGenMelody": "MusicGen Melody",
    "MusicGenTrimAudio": "Trim Audio",
    "MusicGenTrimCodes": "Trim Codes",
    "MusicGenEncode": "MusicGen Encode Audio",
    "MusicGenSampler": "MusicGen Sampler",
    "MusicGenDecode": "MusicGen Decode",
    "MusicGenDecodeDiffusion": "MusicGen Decode, MultiBand Diffusion",
    "MusicGenNormalize": "Normalize Audio",
    "MusicGenSaveAudio": "Save Audio File",
    "MusicGenTimeline": "Prompt Timeline",
    "MusicGenBlend": "Blend Prompts",
    "MusicGenTakes": "MusicGen Takes",
    "MusicGenLoop": "Seamless Loop",
    "MusicGenExample": "Example Clip",
    "MusicGenLength": "Length in Seconds",
    "MusicGenChords": "MusicGen Chords",
    "MusicGenAnalyze": "Hear Music",
    "MusicGenTempo": "Fit Tempo",
    "MusicGenStems": "Separate Stems",
    "MusicGenAlign": "Align to Beats",
    "MusicGenMix": "Mix",
    "MusicGenScore": "Read Score",
    "MusicGenScoreMelody": "Follow a Score",
    "MusicGenSaveScore": "Save Score",
    "MusicGenDataset": "Training Clips",
    "MusicGenTrain": "Train Fine-Tune",
}

# The front end asks for the folder's name when it opens a workflow, before any node runs.
host.register_model_folder()
