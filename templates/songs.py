"""Templates that begin with a song."""

from .basics import PANSORI, finished, loaded
from .graph import BYPASSED, Graph


def remix() -> Graph:
    graph = Graph("Remix")
    loader = loaded(
        graph,
        "Remix",
        "A song gets new music under its voice: on its chords, its beats, its length. Every stage is a node, and a change runs again "
        "only what follows it: the dials of **Mix** make nothing anew.\n"
        "1. The song here is two example clips, a voice and a zither, so that it plays at once. For your own, put **Load Audio** in "
        "place of *The song*, enable **Separate Stems** (grey; it needs Demucs with its weights), wire the song to it and its *vocals* to "
        "*audio_2* of the last **Mix**.\n"
        "2. **Hear Music** finds tempo, bars and chords. Its report tells **MusicGen Chords** the chords at their times.\n"
        "3. A second **Hear Music** finds the beats of the new music, and **Align to Beats** lays them on the song's.\n"
        "4. Where no pulse is heard in the new music, nothing is moved; another seed may have one. For richer sound, choose **sakemin/musicgen-stereo-chord** in "
        "**Load MusicGen** (downloaded when it is first used, not for commercial use).",
    )
    graph.column()
    voice = graph.add("MusicGenExample", "The voice", clip="pansori voice")
    zither = graph.add("MusicGenExample", "Its accompaniment", clip="gayageum melody")
    song = graph.add("MusicGenMix", "The song", audio_1=zither["audio"], audio_2=voice["audio"])
    graph.add("MusicGenStems", "For your own song", mode=BYPASSED, audio=song["audio"])
    graph.column()
    heard = graph.add("MusicGenAnalyze", "Hear the song", audio=song["audio"])
    graph.add("PreviewImage", "What is heard", images=heard["picture"])
    length = graph.add("MusicGenLength", audio=song["audio"], extra_s=0.3)
    graph.column()
    text = graph.add(
        "MusicGenText",
        conditioner=loader["conditioner"],
        text="folk song, acoustic guitar with drums",
        bpm=heard["bpm"],
    )
    chords = graph.add(
        "MusicGenChords",
        conditioner=loader["conditioner"],
        conditioning=text["conditioning"],
        chords="",
        chord_list=heard["report"],
    )
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=chords["conditioning"],
        duration_s=length["seconds"],
    )
    decode = graph.add("MusicGenDecode", codec=loader["codec"], codes=sampler["codes"])
    graph.column()
    again = graph.add("MusicGenAnalyze", "Hear the new music", audio=decode["audio"], bpm=heard["bpm"])
    align = graph.add(
        "MusicGenAlign",
        audio=decode["audio"],
        beats=again["report"],
        target_beats=heard["report"],
        like=song["audio"],
    )
    graph.column()
    mixed = graph.add("MusicGenMix", "The remix", audio_1=align["audio"], audio_2=voice["audio"], gain_2_db=-2.0)
    graph.add("MusicGenSaveAudio", audio=mixed["audio"], filename_prefix="audio/remix", format="flac")
    graph.app((text, "text"), (sampler, "seed"), (mixed, "gain_1_db", "the music"), (mixed, "gain_2_db", "the voice"))
    return graph


def train_a_style() -> Graph:
    graph = Graph("Train a style")
    loader = loaded(
        graph,
        "Train a style",
        "1. Run: ten clips of house music, which pansori-mini does not know, are learned in a few minutes. **Train Fine-Tune** shows its "
        "losses, and at the end says whether it is heard.\n"
        "2. **Apply MusicGen Fine-Tune** puts what was learned into the model; *strength* says how much.\n"
        "3. For your own style: put 10 to 60 minutes of music into a folder in ComfyUI's *input* folder, beside each *song.mp3* a "
        "*song.txt* that says what it is, and write the folder's name into **Training Clips**. Raise *epochs* to 3 and "
        "*updates_per_epoch* to 100; for Meta's models lower *lr* to 0.0002.\n"
        "4. What was trained stays in *models/musicgen/loras*. After Cancel the next run goes on where it was.",
        PANSORI,
    )
    dataset = graph.add("MusicGenDataset", folder="house music")
    graph.column()
    train = graph.add(
        "MusicGenTrain",
        model=loader["model"],
        conditioner=loader["conditioner"],
        codec=loader["codec"],
        dataset=dataset["dataset"],
        name="house music",
        epochs=1,
        updates_per_epoch=40,
        batch_size=4,
        lr=0.002,
        warmup=4,
        control_after_generate="fixed",
        proof_clips=4,
    )
    graph.column()
    tuned = graph.add(
        "MusicGenFineTune", model=loader["model"], conditioner=loader["conditioner"], weights=train["weights"]
    )
    text = graph.add("MusicGenText", conditioner=tuned["conditioner"], text="house music, 120 bpm")
    graph.add("PreviewImage", "The losses", images=train["picture"])
    graph.column()
    sampler = graph.add(
        "MusicGenSampler", model=tuned["model"], positive=text["conditioning"], codec=loader["codec"], duration_s=8.0
    )  # fmt: skip
    finished(graph, loader, sampler["codes"], "audio/style")
    graph.app(
        (dataset, "folder", "the music to learn, in ComfyUI's input folder"),
        (train, "name", "what the fine-tune is to be called"),
        (tuned, "strength", "of what was learned"),
        (text, "text", "what is played in the end"),
        (sampler, "seed"),
    )
    return graph
