"""Templates that go further: endings, variations, moods, comparisons, levels, video."""

from ..musicgen.store.published import DIFFUSION_MODEL
from .basics import TEXT, VIDEO_TEXT, finished, loaded
from .graph import BYPASSED, Graph


def another_ending() -> Graph:
    graph = Graph("Another ending")
    loader = loaded(
        graph,
        "Another ending",
        "1. The first sampler writes a piece. Its seed stays **fixed**, so it is written once.\n"
        "2. **Trim Codes** keeps its beginning, without decoding: nothing is lost.\n"
        "3. The second sampler goes on from there, with a new seed at each run.\n"
        "4. Both are saved, to compare. Move *end_s* to where the piece is still good.",
    )
    graph.column()
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text=TEXT)
    first = graph.add(
        "MusicGenSampler",
        "First version",
        model=loader["model"],
        positive=text["conditioning"],
        duration_s=8.0,
        seed=7,
        control_after_generate="fixed",
    )
    graph.column()
    beginning = graph.add("MusicGenTrimCodes", codes=first["codes"], start_s=0.0, end_s=4.0)
    second = graph.add(
        "MusicGenSampler",
        "Another ending",
        model=loader["model"],
        positive=text["conditioning"],
        prompt=beginning["codes"],
        duration_s=9.0,
        seed=1,
    )
    finished(graph, loader, first["codes"], "audio/first", "First version")
    finished(graph, loader, second["codes"], "audio/ending", "Another ending")
    graph.app((text, "text"), (first, "seed"), (beginning, "end_s"), (second, "seed"))
    return graph


def theme_and_variation() -> Graph:
    graph = Graph("Theme and variation")
    loader = loaded(
        graph,
        "Theme and variation",
        "1. The first text makes a theme. Its seed stays **fixed** until you want another theme.\n"
        "2. **MusicGen Melody** listens to it; the picture shows the notes that it hears.\n"
        "3. The second text plays the same tune on another instrument, anew at each run.",
    )
    graph.column()
    text = graph.add("MusicGenText", "Theme", conditioner=loader["conditioner"], text="solo flute, folk song, 100 bpm")
    theme = graph.add(
        "MusicGenSampler",
        "Theme",
        model=loader["model"],
        positive=text["conditioning"],
        duration_s=8.0,
        seed=3,
        control_after_generate="fixed",
    )
    graph.column()
    other = graph.add(
        "MusicGenText",
        "Variation",
        conditioner=loader["conditioner"],
        text="solo piano, folk song, 100 bpm",
    )
    decode = graph.add("MusicGenDecode", codec=loader["codec"], codes=theme["codes"])
    save = graph.add(
        "MusicGenSaveAudio", "Theme", audio=decode["audio"], filename_prefix="audio/theme", format="flac"
    )  # fmt: skip
    graph.column()
    melody = graph.add(
        "MusicGenMelody", conditioner=loader["conditioner"], conditioning=other["conditioning"], audio=save["audio"]
    )
    graph.add("PreviewImage", "The notes that are heard", images=melody["chroma"])
    graph.column()
    variation = graph.add(
        "MusicGenSampler", "Variation", model=loader["model"], positive=melody["conditioning"], duration_s=8.0
    )
    finished(graph, loader, variation["codes"], "audio/variation", "Variation")
    graph.app((text, "text"), (theme, "seed"), (other, "text"), (variation, "seed"))
    return graph


def change_of_mood() -> Graph:
    graph = Graph("Change of mood")
    loader = loaded(
        graph,
        "Change of mood",
        "1. The first text makes the beginning; its sampler's seed stays **fixed**.\n"
        "2. The second sampler takes those codes as its *prompt* and goes on by the second text: the music turns from one "
        "to the other without a cut.\n"
        "3. *duration_s* of the second sampler is the length of the whole piece. Add a third in the same way.",
    )
    graph.column()
    calm = graph.add(
        "MusicGenText",
        "Beginning",
        conditioner=loader["conditioner"],
        text="solo piano, peaceful, slow",
    )
    first = graph.add(
        "MusicGenSampler",
        "Beginning",
        model=loader["model"],
        positive=calm["conditioning"],
        duration_s=6.0,
        seed=5,
        control_after_generate="fixed",
    )
    graph.column()
    wild = graph.add(
        "MusicGenText",
        "Then",
        conditioner=loader["conditioner"],
        text="rock, electric guitar with drums, energetic, 140 bpm",
    )
    second = graph.add(
        "MusicGenSampler",
        "Then",
        model=loader["model"],
        positive=wild["conditioning"],
        prompt=first["codes"],
        duration_s=14.0,
    )
    finished(graph, loader, second["codes"])
    graph.app((calm, "text"), (wild, "text"), (second, "duration_s"), (second, "seed"))
    return graph


def guidance_compared() -> Graph:
    graph = Graph("Guidance compared")
    loader = loaded(
        graph,
        "Guidance compared",
        "The same text and the same seed, twice:\n\n"
        "* *cfg* 1 lets the model play as it likes, in half the time;\n"
        "* *cfg* 4 holds it to the text, and away from the text of *negative*.\n\n"
        "Listen to both, then try 2 to 6. Both seeds are **fixed**: change them together.",
    )
    graph.column()
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text="solo acoustic guitar, peaceful, slow")
    avoid = graph.add(
        "MusicGenText", "avoid", conditioner=loader["conditioner"], text="rock, distorted guitar with drums"
    )
    graph.column()
    common = {"model": loader["model"], "positive": text["conditioning"], "seed": 11, "control_after_generate": "fixed"}
    free = graph.add("MusicGenSampler", "cfg 1", cfg=1.0, **common)
    strict = graph.add("MusicGenSampler", "cfg 4", cfg=4.0, negative=avoid["conditioning"], **common)
    finished(graph, loader, free["codes"], "audio/cfg-1", "cfg 1")
    finished(graph, loader, strict["codes"], "audio/cfg-4", "cfg 4")
    graph.app((text, "text", "the music"), (avoid, "text"), (strict, "cfg"), (free, "seed"), (strict, "seed"))
    return graph


def decode_two_ways() -> Graph:
    graph = Graph("Decode two ways")
    loader = loaded(
        graph,
        "Decode two ways",
        "1. Run: the codes are decoded by the model's own codec, and shown as a spectrogram.\n"
        "2. The greyed-out nodes decode the same codes by **MultiBand Diffusion**: clearer, far slower, meant for a GPU. "
        "It belongs to Meta's models and is downloaded when it is first used. To hear it, choose **facebook/musicgen-small** in **Load "
        "MusicGen**, select the greyed-out nodes and press **Ctrl M**.\n"
        "3. The music is written once: with the seed **fixed**, only what you change runs again.",
    )
    diffusion = graph.add("MusicGenDiffusionLoader", mode=BYPASSED, diffusion=DIFFUSION_MODEL)
    graph.column()
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text="classical, solo piano, slow")
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=text["conditioning"],
        duration_s=8.0,
        control_after_generate="fixed",
    )
    graph.column()
    plain = graph.add("MusicGenDecode", codec=loader["codec"], codes=sampler["codes"])
    refined = graph.add(
        "MusicGenDecodeDiffusion",
        mode=BYPASSED,
        codec=loader["codec"],
        diffusion=diffusion["diffusion"],
        codes=sampler["codes"],
        control_after_generate="fixed",
    )
    graph.column()
    graph.add("MusicGenSaveAudio", "EnCodec", audio=plain["audio"], filename_prefix="audio/encodec", format="flac")
    graph.add("PreviewImage", "EnCodec", images=plain["spectrogram"])
    graph.column()
    graph.add(
        "MusicGenSaveAudio",
        "MultiBand Diffusion",
        mode=BYPASSED,
        audio=refined["audio"],
        filename_prefix="audio/multiband-diffusion",
        format="flac",
    )
    graph.add("PreviewImage", "MultiBand Diffusion", mode=BYPASSED, images=refined["spectrogram"])
    graph.app((text, "text"), (sampler, "duration_s"), (sampler, "seed"))
    return graph


def levels_and_formats() -> Graph:
    graph = Graph("Levels and formats")
    loader = loaded(
        graph,
        "Levels and formats",
        "One piece, finished for three uses. With the seed **fixed**, only what you change runs again.\n\n"
        "* **For streaming**: loudness of -14 LUFS, as services play it, in MP3.\n"
        "* **Louder**: -9 LUFS with the compressor, in Opus.\n"
        "* **For further work**: the highest peak 1 dB below full scale, in 24-bit FLAC, which also carries this workflow: drop "
        "it on the canvas to open it again.",
    )
    graph.column()
    text = graph.add(
        "MusicGenText", conditioner=loader["conditioner"], text="funk, electric guitar with drums, 105 bpm"
    )
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=text["conditioning"],
        duration_s=8.0,
        control_after_generate="fixed",
    )
    graph.column()
    sound = graph.add("MusicGenDecode", codec=loader["codec"], codes=sampler["codes"])["audio"]
    work = graph.add("MusicGenNormalize", "For further work", audio=sound, strategy="peak")
    graph.column()
    streaming = graph.add("MusicGenNormalize", "For streaming", audio=sound)
    louder = graph.add("MusicGenNormalize", "Louder", audio=sound, loudness_lufs=-9.0, compressor=True)
    graph.column()
    for title, level, name, format, bits in (
        ("For further work", work, "audio/work", "flac", "24"),
        ("For streaming", streaming, "audio/streaming", "mp3", "16"),
        ("Louder", louder, "audio/louder", "opus", "16"),
    ):
        graph.add(
            "MusicGenSaveAudio", title, audio=level["audio"], filename_prefix=name, format=format, bit_depth=bits
        )  # fmt: skip
    graph.app((text, "text"), (sampler, "duration_s"), (sampler, "seed"), (louder, "loudness_lufs"))
    return graph


def music_for_a_video() -> Graph:
    graph = Graph("Music for a video")
    loader = loaded(
        graph,
        "Music for a video",
        "1. **Length in Seconds** measures the pictures; the sampler's *duration_s* is wired to it, so the music is exactly "
        "as long as the video.\n"
        "2. **EmptyImage** stands for a video of 6 seconds, so that this plays at once. For your own, put **Load Video** and "
        "**Get Video Components** in its place, and wire their *images* and *fps* to **Length in Seconds** and **Create "
        "Video**.\n"
        "3. *extra_s* makes the music longer or shorter than the pictures.",
    )
    graph.column()
    images = graph.add("EmptyImage", "Pictures", width=320, height=180, batch_size=150, color=0x7A1F1F)["IMAGE"]
    length = graph.add("MusicGenLength", images=images, fps=25.0)
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text=VIDEO_TEXT)
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        positive=text["conditioning"],
        codec=loader["codec"],
        duration_s=length["seconds"],
    )
    graph.column()
    decode = graph.add("MusicGenDecode", codec=loader["codec"], codes=sampler["codes"])
    level = graph.add("MusicGenNormalize", audio=decode["audio"])
    graph.column()
    save = graph.add("MusicGenSaveAudio", audio=level["audio"], format="flac")
    video = graph.add("CreateVideo", images=images, audio=save["audio"], fps=25.0)
    graph.column()
    graph.add("SaveVideo", video=video["VIDEO"], filename_prefix="video/musicgen")
    graph.app((text, "text"), (length, "extra_s"), (sampler, "seed"))
    return graph
