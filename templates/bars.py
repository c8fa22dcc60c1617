"""Templates in a musician's units: chords, bars, tempo."""

from .basics import finished, loaded
from .graph import Graph


def bars_on_the_grid() -> Graph:
    graph = Graph("Bars on the grid")
    loader = loaded(
        graph,
        "Bars on the grid",
        "1. **Length in Seconds** takes the length as a musician writes it: *4 bars at 120 in 4/4*. Seconds, tempo and meter go to "
        "the nodes that ask for them.\n"
        "2. The text names the tempo too. It is what the model goes by; how well it keeps it is measured afterwards.\n"
        "3. **Fit Tempo** says what is heard, stretches the music to the tempo at its pitch, and moves the first bar to the "
        "beginning: the file lines up with a project in a sequencer.\n"
        "4. To hear the music as it was written, set *way* to **measure**.",
    )
    length = graph.add("MusicGenLength", length="4 bars @ 120 in 4/4")
    graph.column()
    text = graph.add(
        "MusicGenText", conditioner=loader["conditioner"], text="rock, electric guitar with drums, 120 bpm"
    )
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=text["conditioning"],
        duration_s=length["seconds"],
    )
    graph.column()
    decode = graph.add("MusicGenDecode", codec=loader["codec"], codes=sampler["codes"], fade_ms=0.0)
    fit = graph.add("MusicGenTempo", audio=decode["audio"], bpm=length["bpm"], meter=length["meter"])
    graph.column()
    level = graph.add("MusicGenNormalize", audio=fit["audio"])
    graph.add("MusicGenSaveAudio", audio=level["audio"], filename_prefix="audio/bars", format="flac")
    graph.app((text, "text"), (length, "length"), (fit, "way"), (sampler, "seed"))
    return graph


def chord_progression() -> Graph:
    graph = Graph("Chord progression")
    loader = loaded(
        graph,
        "Chord progression",
        "1. **MusicGen Chords** takes a progression, a bar a word: *C G A:min F*; or with bar lines, *Am7 | F/C | G | %*. "
        "The picture shows the notes that the model is told.\n"
        "2. Length, tempo and meter are written once, in **Length in Seconds**.\n"
        "3. **Hear Music** listens to the result and reports the chords that it finds there.\n"
        "4. general-mini plays a told chord in some seven tenths of the time. For richer sound "
        "choose **sakemin/musicgen-chord** in **Load MusicGen** (downloaded when it is first used, not for commercial use) and tell *bpm* and *meter* of "
        "**MusicGen Text** as well.",
    )
    length = graph.add("MusicGenLength", length="4 bars @ 100 in 4/4")
    graph.column()
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text="pop song, solo piano, 100 bpm")
    chords = graph.add(
        "MusicGenChords",
        conditioner=loader["conditioner"],
        conditioning=text["conditioning"],
        chords="C G A:min F",
        bpm=length["bpm"],
        meter=length["meter"],
    )
    graph.add("PreviewImage", "What the model is told", images=chords["chroma"])
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=chords["conditioning"],
        duration_s=length["seconds"],
    )
    save = finished(graph, loader, sampler["codes"], "audio/chords")
    graph.column()
    heard = graph.add("MusicGenAnalyze", audio=save["audio"], bpm=length["bpm"])
    graph.add("PreviewImage", "What is heard", images=heard["picture"])
    graph.app((text, "text"), (chords, "chords"), (length, "length"), (sampler, "seed"))
    return graph


def score_to_music() -> Graph:
    graph = Graph("Score to music")
    loader = loaded(
        graph,
        "Score to music",
        "1. **Read Score** reads *Arirang*, which comes with the pack. For your own, put a MIDI, MusicXML or ABC file into "
        "ComfyUI's *input* folder and press **R**, or type notes: *C4 D4 E4:2 r G3:0.5*. The picture shows what was read.\n"
        "2. **Follow a Score** tells the model the melody, in the sound that the text asks for.\n"
        "3. The sampler plays the first 15 seconds; wire *seconds* of **Read Score** to *duration_s* for the whole.\n"
        "4. **Save Score** writes a MIDI file with what was asked for and what is heard side by side, and says how much of the "
        "melody is followed.\n"
        "5. Its chords, tempo and meter fit **MusicGen Chords**, for the chord models.",
    )
    graph.column()
    score = graph.add("MusicGenScore", file="example/Arirang.abc")
    graph.add("PreviewImage", "What was read", images=score["picture"])
    graph.column()
    text = graph.add("MusicGenText", conditioner=loader["conditioner"], text="solo flute, folk song")
    melody = graph.add(
        "MusicGenScoreMelody",
        conditioner=loader["conditioner"],
        conditioning=text["conditioning"],
        score=score["score"],
    )
    graph.add("PreviewImage", "What the model is told", images=melody["chroma"])
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=melody["conditioning"],
        duration_s=15.0,
    )
    save = finished(graph, loader, sampler["codes"], "audio/score")
    graph.column()
    graph.add("MusicGenSaveScore", score=score["score"], audio=save["audio"], filename_prefix="midi/score")
    graph.app((score, "file"), (score, "notes"), (text, "text"), (sampler, "duration_s"), (sampler, "seed"))
    return graph
