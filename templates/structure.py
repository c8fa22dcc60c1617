"""Templates of musical structure: sections, a loop, a blend."""

from .basics import finished, loaded
from .graph import Graph


def a_piece_that_changes() -> Graph:
    graph = Graph("A piece that changes")
    loader = loaded(
        graph,
        "A piece that changes",
        "1. **Prompt Timeline** holds one text a line, each with its time: seconds or minutes:seconds, or with a minus before "
        "the end. *@ 0.7* behind a text has it followed less.\n"
        "2. The music goes over into each text at its time, without a cut.\n"
        "3. *duration_s* is the length of the piece. *anchor_s* keeps the first 2 seconds in view all the way, which holds the "
        "sound together.\n"
        "4. *fade_out_s* of **MusicGen Decode** ends it: the last 4 seconds fade.",
    )
    graph.column()
    lines = graph.add(
        "MusicGenTimeline",
        conditioner=loader["conditioner"],
        lines="0: solo piano, calm, 80 bpm\n"
        "0:10: piano with strings, warm, 90 bpm\n"
        "0:22: happy pop song, piano with drums, 110 bpm\n"
        "-8: solo piano, calm, 80 bpm",
    )
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=lines["conditioning"],
        duration_s=40.0,
        anchor_s=2.0,
    )
    graph.column()
    decode = graph.add("MusicGenDecode", codec=loader["codec"], codes=sampler["codes"], fade_out_s=4.0)
    level = graph.add("MusicGenNormalize", audio=decode["audio"])
    graph.add("MusicGenSaveAudio", audio=level["audio"], filename_prefix="audio/piece", format="flac")
    graph.app((lines, "lines"), (sampler, "duration_s"), (sampler, "seed"), (decode, "fade_out_s"))
    return graph


def seamless_loop() -> Graph:
    graph = Graph("Seamless loop")
    loader = loaded(
        graph,
        "Seamless loop",
        "1. The text names a tempo, and **Seamless Loop** the same in *bpm*: 4 bars of 4 beats at 120 bpm last 8 seconds.\n"
        "2. The sampler writes a quarter more than that, 10 seconds, so that there is a choice of places to cut.\n"
        "3. **Seamless Loop** cuts where the end meets the beginning best, and reports the tempo that it hears and how "
        "audible the join is.\n"
        "4. The file plays round and round without a gap. *fade_ms* of **MusicGen Decode** is 0 here, so that nothing fades "
        "inside the loop.",
    )
    graph.column()
    text = graph.add(
        "MusicGenText", conditioner=loader["conditioner"], text="house, electric piano with drums, 120 bpm"
    )
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=text["conditioning"],
        duration_s=10.0,
    )
    graph.column()
    decode = graph.add("MusicGenDecode", codec=loader["codec"], codes=sampler["codes"], fade_ms=0.0)
    loop = graph.add("MusicGenLoop", audio=decode["audio"], bars=4, bpm=120.0)
    graph.add("MusicGenSaveAudio", audio=loop["audio"], filename_prefix="audio/loop", format="flac")
    graph.app((text, "text"), (loop, "bpm"), (loop, "bars"), (sampler, "duration_s"), (sampler, "seed"))
    return graph


def blend_of_two_moods() -> Graph:
    graph = Graph("Blend of two moods")
    loader = loaded(
        graph,
        "Blend of two moods",
        "1. Two texts describe two moods, and **Blend Prompts** mixes them: music that both allow.\n"
        "2. *ratio* 0 is the first alone, 1 the second alone, 0.5 half of each. Move it with the seed **fixed** to hear one "
        "go over into the other.\n"
        "3. A blend takes about half again as long as one text.",
    )
    graph.column()
    slow = graph.add("MusicGenText", "One mood", conditioner=loader["conditioner"], text="solo piano, sad, slow")
    fast = graph.add(
        "MusicGenText",
        "Another mood",
        conditioner=loader["conditioner"],
        text="piano with drums, cheerful, fast",
    )
    blend = graph.add("MusicGenBlend", first=slow["conditioning"], second=fast["conditioning"], ratio=0.5)
    graph.column()
    sampler = graph.add(
        "MusicGenSampler",
        model=loader["model"],
        codec=loader["codec"],
        positive=blend["conditioning"],
        duration_s=8.0,
        control_after_generate="fixed",
    )
    finished(graph, loader, sampler["codes"], "audio/blend")
    graph.app((slow, "text"), (fast, "text"), (blend, "ratio"), (sampler, "duration_s"), (sampler, "seed"))
    return graph
