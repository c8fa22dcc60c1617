"""What a request of a Replicate contract means as a workflow of ComfyUI."""

from collections.abc import Sequence
from pathlib import Path

from .comfyui import Prompt

if __package__ == "clients":  # started from the pack's own folder
    from musicgen.analysis.choices import MAX_STRETCH, THRESHOLD_BEATS
    from musicgen.conditioning.chords import BPM, METER
    from musicgen.remix import VOCALS_DB
    from musicgen.replicate.contracts import RemixRequest
    from musicgen.replicate.fields import Request
    from musicgen.replicate.predict import chosen_model
    from musicgen.store.published import DIFFUSION_MODEL
else:
    from ..musicgen.analysis.choices import MAX_STRETCH, THRESHOLD_BEATS
    from ..musicgen.conditioning.chords import BPM, METER
    from ..musicgen.remix import VOCALS_DB
    from ..musicgen.replicate.contracts import RemixRequest
    from ..musicgen.replicate.fields import Request
    from ..musicgen.replicate.predict import chosen_model
    from ..musicgen.store.published import DIFFUSION_MODEL

Link = list  # [node, index of its output]
_PREFIX = "audio/musicgen"  # of saved files


def graph(request: Request, model: str | None = None, diffusion: str = DIFFUSION_MODEL) -> Prompt:
    """The workflow in API format that a request means. `LoadAudio.audio` is to be the uploaded file's name.

    model: used in place of the one that the fields ask for. InputError where there is none.
    """
    workflow = _Workflow(request, str(chosen_model(request, model)), diffusion)
    if isinstance(request, RemixRequest):
        _remix(workflow, request)
    else:
        _music(workflow)
    return workflow.nodes


def output_of(file: Path) -> str:
    """Which of `Request.outputs` a saved file is."""
    return "background_synced" if "background_synced" in file.name else "out"


class _Workflow:
    """Nodes by name, and the stages that all contracts have."""

    def __init__(self, request: Request, model: str, diffusion: str) -> None:
        self.nodes: Prompt = {}
        self.request, self._diffusion = request, diffusion
        loader = self.add("loader", "MusicGenLoader", model=model, precision="auto", engine="native")
        self._model, self.conditioner, self.codec = ([loader[0], index] for index in range(3))
        if request.replicate_weights:
            tuned = self.add(
                "fine-tune", "MusicGenFineTune", model=self._model, conditioner=self.conditioner,
                weights=request.replicate_weights, strength=1.0,
            )  # fmt: skip
            self._model, self.conditioner = tuned, [tuned[0], 1]

    def add(self, name: str, class_type: str, **inputs: object) -> Link:
        """A link to the first output of a new node."""
        self.nodes[name] = {"class_type": class_type, "inputs": inputs, "_meta": {"title": name}}
        return [name, 0]

    def text(self, text: str, **inputs: object) -> Link:
        return self.add("text", "MusicGenText", conditioner=self.conditioner, text=text, **inputs)

    def chords(self, conditioning: Link, **inputs: object) -> Link:
        """Chords; what is not given does not count."""
        inputs = {"chords": "N", "bpm": BPM, "meter": METER, "strength": self.request.strength, **inputs}
        return self.add(
            "chords", "MusicGenChords", conditioner=self.conditioner, conditioning=conditioning, **inputs
        )  # fmt: skip

    def music(self, positive: Link, duration_s: float | Link, prompt: Link | None = None, **decoding: object) -> Link:
        """Sampled and decoded."""
        params = self.request.params
        continued = {} if prompt is None else {"prompt": prompt}
        codes = self.add(
            "sampler", "MusicGenSampler", model=self._model, positive=positive, duration_s=duration_s, seed=params.seed,
            top_k=params.top_k, top_p=params.top_p, temperature=params.temperature, cfg=float(params.cfg), batch_size=1,
            **continued,
        )  # fmt: skip
        if not self.request.multi_band_diffusion:
            return self.add("decode", "MusicGenDecode", codec=self.codec, codes=codes, **decoding)
        loaded = self.add("diffusion", "MusicGenDiffusionLoader", diffusion=self._diffusion)
        return self.add(
            "decode", "MusicGenDecodeDiffusion", codec=self.codec, diffusion=loaded, codes=codes, seed=params.seed, **decoding
        )  # fmt: skip

    def save(self, audio: Link, output: str, level: Sequence[tuple[str, object]] = ()) -> None:
        """Levels set, and written under the name of one of `Request.outputs`."""
        level_name, save_name, suffix = "level", "save", ""
        if output != self.request.outputs[0]:
            level_name, save_name, suffix = f"level of {output}", f"save {output}", f"-{output}"
        strategy = self.request.normalization_strategy
        levelled = self.add(level_name, "MusicGenNormalize", audio=audio, strategy=strategy, **dict(level))
        self.add(
            save_name, "MusicGenSaveAudio", audio=levelled, filename_prefix=f"{_PREFIX}{suffix}",
            format=self.request.output_format,
        )  # fmt: skip


def _music(workflow: _Workflow) -> None:
    """Text, a clip that is continued or whose melody or chords are followed, and written chords."""
    request, part, role = workflow.request, None, None
    positive = workflow.text(request.text or "")
    if request.clip is not None:
        clip, role = workflow.add("clip", "LoadAudio", audio=request.clip.file), request.clip.role
        part = workflow.add(
            "part",
            "MusicGenTrimAudio",
            audio=clip,
            start_s=float(request.clip.start_s),
            end_s=float(request.clip.end_s),
        )
    if role == "melody":
        positive = workflow.add(
            "melody",
            "MusicGenMelody",
            conditioner=workflow.conditioner,
            conditioning=positive,
            audio=part,
            stems="auto",
        )
    if role == "chords":
        positive = workflow.chords(positive, audio=part)
    elif (written := request.progression) is not None:
        positive = workflow.chords(
            positive, chords=request.chord_text, bpm=written.bpm, meter=str(written.meter)
        )  # fmt: skip
    prompt = None
    if role == "prompt":
        prompt = workflow.add("codes", "MusicGenEncode", codec=workflow.codec, audio=part)
    music = workflow.music(positive, float(request.params.duration_s), prompt)
    workflow.save(music, request.outputs[0])


def _remix(workflow: _Workflow, request: RemixRequest) -> None:
    """The stages of `musicgen.remix`, a node each. Unlike there, the tempo is told as it is heard, not to a whole number."""
    song = workflow.add("clip", "LoadAudio", audio=request.file)
    vocabulary = "sevenths" if request.large_chord_voca else "triads"
    heard = {"midi_prefix": "", "beat_model": ""}
    workflow.add("song heard", "MusicGenAnalyze", audio=song, bpm=0.0, meter=0, vocabulary=vocabulary, **heard)
    bpm, report = ["song heard", 0], ["song heard", 5]
    text = workflow.text(request.prompt or "", bpm=bpm, meter="")
    positive = workflow.chords(text, chord_list=report)
    length = workflow.add("length", "MusicGenLength", fps=25.0, extra_s=0.0, audio=song)
    music = workflow.music(positive, length, fade_ms=0.0)
    workflow.add("music heard", "MusicGenAnalyze", audio=music, bpm=bpm, meter=0, vocabulary="triads", **heard)
    synced = workflow.add(
        "align", "MusicGenAlign", audio=music, beats=["music heard", 5], target_beats=report,
        threshold_beats=THRESHOLD_BEATS, max_stretch=MAX_STRETCH, like=song, threshold_s=max(request.beat_sync_threshold or 0.0, 0.0),
    )  # fmt: skip
    vocals = workflow.add("stems", "MusicGenStems", audio=song, weights="")
    mix = workflow.add(
        "mix",
        "MusicGenMix",
        audio_1=synced,
        gain_1_db=0.0,
        matched=True,
        peak_headroom_db=1.0,
        audio_2=vocals,
        gain_2_db=VOCALS_DB,
    )
    for name, sound in zip(("out", "background_synced"), (mix, synced), strict=True):
        if name in request.outputs:
            workflow.save(sound, name, [("compressor", True)])
