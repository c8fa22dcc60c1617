"""The first templates: words to music, a clip continued, a melody followed, a fine-tune, takes, length."""

from ..musicgen.store.published import DEFAULT
from .graph import Graph, Node, Output
from .notes import MODELS, note

TEXT = "happy pop song, piano with drums, 110 bpm"
CONTINUED_TEXT = "bossa nova, acoustic guitar with drums, 120 bpm"
CONTINUED_CLIP, CONTINUED_S, CONTINUED_CLIP_TEXT = "pop piano", 4.8, "pop, solo piano, 100 bpm"  # two bars
MELODY_TEXT = "solo flute, folk song"
VIDEO_TEXT = "cinematic, strings, mysterious"
PANSORI = "pansori-mini"  # of templates whose clips or figures are pansori-mini's


def loaded(graph: Graph, title: str, text: str, model: str = DEFAULT) -> Node:
    """The first column: the loader and the note, which ends with what the model plays."""
    graph.column()
    loader = graph.add("MusicGenLoader", model=model)
    note(graph, title, f"{text}\n\n{MODELS[model]}")
    return loader


def finished(
    graph: Graph, loader: Node, codes: Output, prefix: str = "audio/musicgen", title: str | None = None
) -> Node:
    """Decode, level and save in a column of its own; the node that saves."""
    graph.column()
    decode = graph.add("MusicGenDecode", codec=loader["codec"], codes=codes)
    level = graph.add("MusicGenNormalize", audio=decode["audio"])
    return graph.add("MusicGenSaveAudio", title, audio=level["audio"], filename_prefix=prefix, format="flac")


def text_to_music() -> Graph:
    graph = Graph("Text to music")
    loader = loaded(
        graph,
        "Text to music",
        "1. Describe the music in **MusicGen Text**, in English or Korean: a genre, who plays, a mood, how fast. *Solo flute, "
        "sad, slow*, or *rock, electric guitar with drums, 130 bpm*.\n"
        "2. While the piece is written, its beginning is heard in **MusicGen Sampler**; the whole is in **Save Audio File**.\n"
        "3. Each run takes a new seed. To keep a piece and try other levels or file formats, set *control after generate* "
        "to **fixed**: only what you changed runs again.",
    )
    graph.column()
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text=TEXT)
    graph.column()
    sampler = graph.add(
        "MusicGenSampler", model=loader["model"], positive=text["conditioning"], codec=loader["codec"], duration_s=8.0
    )  # fmt: skip
    finished(graph, loader, sampler["codes"])
    graph.app((text, "text"), (sampler, "duration_s"), (sampler, "seed"), (loader, "model"))
    return graph


def continue_a_clip() -> Graph:
    graph = Graph("Continue a clip")
    loader = loaded(
        graph,
        "Continue a clip",
        "1. **Example Clip** brings a clip that is here already. For your own, put **Load Audio** in its place.\n"
        "2. **Trim Audio** keeps the seconds that the model hears: 2 to 10 are plenty. Cut on the beat.\n"
        "3. *duration_s* of the sampler is the length of the whole result, the clip included.\n"
        "4. The text should describe the clip, or what it is to become.\n"
        "5. For pansori: **pansori-mini** in **Load MusicGen**, the clip *voice and buk*, and the text *a high voice and the buk, "
        "jungjungmori*.",
    )
    graph.column()
    clip = graph.add("MusicGenExample", clip=CONTINUED_CLIP)
    part = graph.add("MusicGenTrimAudio", audio=clip["audio"], start_s=0.0, end_s=CONTINUED_S)
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text=CONTINUED_CLIP_TEXT)
    graph.column()
    codes = graph.add("MusicGenEncode", codec=loader["codec"], audio=part["audio"])
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        positive=text["conditioning"],
        codec=loader["codec"],
        prompt=codes["codes"],
        duration_s=12.0,
    )
    finished(graph, loader, sampler["codes"])
    graph.app((clip, "clip"), (part, "end_s"), (text, "text"), (sampler, "duration_s"), (sampler, "seed"))
    return graph


def follow_a_melody() -> Graph:
    graph = Graph("Follow a melody")
    loader = loaded(
        graph,
        "Follow a melody",
        "1. **Example Clip** brings a tune that is here already. For your own, put **Load Audio** in its place: hum, whistle "
        "or play one voice alone, without drums.\n"
        "2. The picture shows the notes that the model hears, C at the bottom, time to the right.\n"
        "3. The text says who plays the tune. Set *duration_s* to the tune's length; in longer music it is followed around.\n"
        "\nThe model must be a melody model: general-mini and pansori-mini are, and of Meta's those with *melody* in their name.",
    )
    graph.column()
    clip = graph.add("MusicGenExample", clip="gayageum melody")
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text=MELODY_TEXT)
    graph.column()
    melody = graph.add(
        "MusicGenMelody", conditioner=loader["conditioner"], conditioning=text["conditioning"], audio=clip["audio"]
    )
    graph.add("PreviewImage", "The notes that are heard", images=melody["chroma"])
    graph.column()
    sampler = graph.add(
        "MusicGenSampler", model=loader["model"], positive=melody["conditioning"], codec=loader["codec"], duration_s=8.0
    )  # fmt: skip
    finished(graph, loader, sampler["codes"])
    graph.app((clip, "clip"), (text, "text"), (sampler, "duration_s"), (sampler, "seed"))
    return graph


def several_takes() -> Graph:
    graph = Graph("Several takes")
    loader = loaded(
        graph,
        "Several takes",
        "1. *batch_size* makes four takes of one text at once, which is quicker than one after another. The first is heard "
        "while it is written.\n"
        "2. **MusicGen Takes** plays each with its measures, the best on top: none silent, distorted or stuck comes first, and "
        "what the model finds likely for this text.\n"
        "3. The best goes on and is saved. For another, press its **choose**, and **Run** again: the seed is **fixed**, so "
        "nothing is written anew.\n"
        "4. For new takes, change *seed*. *choose* also takes *all*, *best 2* or *1,3*.",
    )
    graph.column()
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text="jazz, solo trumpet, 120 bpm")
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=text["conditioning"],
        duration_s=6.0,
        batch_size=4,
        control_after_generate="fixed",
    )
    graph.column()
    decode = graph.add("MusicGenDecode", codec=loader["codec"], codes=sampler["codes"])
    takes = graph.add(
        "MusicGenTakes",
        audio=decode["audio"],
        codes=sampler["codes"],
        model=loader["model"],
        positive=text["conditioning"],
    )
    graph.column()
    level = graph.add("MusicGenNormalize", audio=takes["audio"])
    graph.add("MusicGenSaveAudio", audio=level["audio"], filename_prefix="audio/take", format="flac")
    graph.app((text, "text"), (sampler, "batch_size"), (sampler, "duration_s"), (sampler, "seed"), (takes, "choose"))
    return graph


def two_minutes_of_music() -> Graph:
    graph = Graph("Two minutes of music")
    loader = loaded(
        graph,
        "Two minutes of music",
        "1. Set *duration_s* up to 3600 seconds. Music longer than the model's window (30 s; general-mini and pansori-mini 10 s) is written "
        "in windows that overlap.\n"
        "2. *extend_stride_s* says how much each window adds: smaller ones hold the thread better, and take longer.\n"
        "3. The second **MusicGen Text** feeds *negative*: what to steer away from.\n\n"
        "Two minutes take some 10 seconds on two idle processor cores with general-mini.",
    )
    graph.column()
    text = graph.add(
        "MusicGenText",
        conditioner=loader["conditioner"],
        text="lo-fi, electric piano with drums, 80 bpm",
    )
    avoid = graph.add("MusicGenText", "avoid", conditioner=loader["conditioner"], text="distorted guitar, loud")
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=text["conditioning"],
        negative=avoid["conditioning"],
        duration_s=120.0,
    )
    finished(graph, loader, sampler["codes"])
    graph.app((text, "text", "the music"), (avoid, "text"), (sampler, "duration_s"), (sampler, "seed"))
    return graph


def fine_tune() -> Graph:
    graph = Graph("Pansori fine-tune")
    loader = loaded(
        graph,
        "Fine-tune",
        "1. Run: with *weights* left empty, **Apply MusicGen Fine-Tune** hands the model on as it is, so that this plays "
        "at once.\n"
        "2. Put a fine-tune into *models/musicgen*, such as the *trained_model.tar* of Replicate's trainer, and press "
        "**choose a file**; or write an https address into *weights*, which is downloaded once.\n"
        "3. In **Load MusicGen** choose the model that it was trained from; for most, **facebook/musicgen-stereo-melody**.\n"
        "4. *strength* 1 is the fine-tune, less is a blend with the model. Several fine-tunes can follow one another.",
        PANSORI,
    )
    graph.column()
    tuned = graph.add("MusicGenFineTune", model=loader["model"], conditioner=loader["conditioner"])
    text = graph.add(
        "MusicGenText",
        conditioner=tuned["conditioner"],
        text="pansori, a rough deep voice over the buk drum, slow jinyangjo",
    )
    graph.column()
    sampler = graph.add(
        "MusicGenSampler", model=tuned["model"], positive=text["conditioning"], codec=loader["codec"], duration_s=8.0
    )  # fmt: skip
    finished(graph, loader, sampler["codes"], "audio/pansori")
    graph.app(
        (tuned, "weights", "a file in models/musicgen/loras"),
        (tuned, "strength"),
        (text, "text"),
        (sampler, "duration_s"),
        (sampler, "seed"),
    )
    return graph
