"""Cancel and /free in a real ComfyUI: milliseconds to `execution_interrupted`, and the share of memory given back.

    python benchmarks/cancel.py [--size small] [--precisions float32 float16 int8] [--batches 1 16] [--tries 2]

Random weights of the named size with a codec of full size. Each stage of a workflow is interrupted after a short
while; the slowest of the tries counts. The best possible is the time of one unit of work, a step of the language model
say; ComfyUI itself answers within some 10 ms. COMFYUI_PATH names the ComfyUI, ~/comfy/ComfyUI without it.
"""

import argparse
import contextlib
import importlib.util
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import ROOT
from load import SIZES

PACK = "comfyui_musicgen"  # the tests' name for the pack
STAGES = {  # node that is interrupted, and seconds after its start
    "load": ("MusicGenLoader", (0.05, 0.5, 1.5)),
    "text": ("MusicGenText", (0.0,)),
    "start of sampling": ("MusicGenSampler", (0.02, 0.3)),
    "sampling": ("MusicGenSampler", (6.0,)),
    "decode": ("MusicGenDecode", (0.1, 0.6)),
    "normalize": ("MusicGenNormalize", (0.0, 0.1)),
}


def register():
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])


def workflow(precision, batch_size, duration_s, seed, prompt_s=0.0):
    """Text to a normalized clip; with prompt_s, a tone of that length is continued."""
    prompt = {
        "load": ("MusicGenLoader", {"model": "bench", "precision": precision, "engine": "native"}),
        "text": ("MusicGenText", {"conditioner": ["load", 1], "text": f"slow pansori, a rough deep voice, take {seed}"}),
        "sample": (
            "MusicGenSampler",
            {
                "model": ["load", 0], "positive": ["text", 0], "duration_s": duration_s, "seed": seed, "top_k": 250,
                "top_p": 0.0, "temperature": 1.0, "cfg": 3.0, "batch_size": batch_size,
            },
        ),
        "decode": ("MusicGenDecode", {"codec": ["load", 2], "codes": ["sample", 0]}),
        "level": ("MusicGenNormalize", {"audio": ["decode", 0], "strategy": "loudness"}),
        "shape": ("ProbeShape", {"audio": ["level", 0]}),
    }  # fmt: skip
    if prompt_s:
        tone = {"rate_hz": 32000, "channels": 1, "batch": 1, "seconds": prompt_s, "dtype": "float32", "kind": "sine"}
        prompt["clip"] = ("ProbeAudio", tone)
        prompt["encode"] = ("MusicGenEncode", {"audio": ["clip", 0], "codec": ["load", 2]})
        prompt["sample"][1]["prompt"] = ["encode", 0]
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in prompt.items()}


def without_sampling(precision, batch_size, seconds, seed):
    """A tone of `batch_size` rows through the codec and back, then normalized: what comes after sampling, without it.

    The seed cuts off so many frames, so that nothing behind the encoder is remembered.
    """
    prompt = workflow(precision, batch_size, 1.0, 0, prompt_s=seconds)
    for name in ("text", "sample"):
        del prompt[name]
    prompt["clip"]["inputs"]["batch"] = batch_size
    cut = {"codes": ["encode", 0], "start_s": 0.02 * seed, "end_s": -1.0}
    prompt["cut"] = {"class_type": "MusicGenTrimCodes", "inputs": cut}
    prompt["decode"]["inputs"]["codes"] = ["cut", 0]
    return prompt


def cancelled_after_ms(server, prompt, node, delay_s):
    """Milliseconds from a press of Cancel, `delay_s` into a node, to `execution_interrupted`; None if it had ended."""
    from comfyui_musicgen.clients import comfyui as client

    (name,) = [name for name, each in prompt.items() if each["class_type"] == node]
    started, ended_s, pressed_s = threading.Event(), [], []

    def on_event(kind, data):
        if kind == "executing" and data["node"] == name and not pressed_s:
            started.set()
        elif kind == "execution_interrupted":
            ended_s.append((time.monotonic(), data.get("node_type")))

    def queue():
        with contextlib.suppress(client.InterruptedRunError):
            server.run(prompt, on_event=on_event)

    thread = threading.Thread(target=queue)
    thread.start()
    while not started.wait(0.05) and thread.is_alive():
        pass
    if not started.is_set():
        raise RuntimeError(f"{name} never began:\n{server.log[-2000:]}")
    time.sleep(delay_s)
    pressed_s.append(time.monotonic())
    server.post("/interrupt")
    thread.join(115)
    if not ended_s or ended_s[0][1] != node:
        return None
    return 1000 * (ended_s[0][0] - pressed_s[0])


def resident_mb(server):
    with open(f"/proc/{server.process.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def freed(server, precision, batch_size, seed):
    """(MB before, after a run, after /free)."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(3)
    before = resident_mb(server)
    server.run(workflow(precision, batch_size, 1.0, seed))
    full = resident_mb(server)
    server.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(3)
    return before, full, resident_mb(server)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--precisions", nargs="+", default=["float32", "float16", "int8"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="of what is decoded and normalized")
    parser.add_argument("--threads", default="2", help="OMP_NUM_THREADS of the server")
    options = parser.parse_args()
    register()
    from comfyui_musicgen.tests.comfyui.comfy_server import ComfyUI
    from comfyui_musicgen.tests.toy import write_toy

    dim, heads, layers, filters = SIZES[options.size]
    with tempfile.TemporaryDirectory() as folder:
        write_toy(
            Path(folder, "models/musicgen/bench"), dim=dim, n_heads=heads, n_layers=layers, n_filters=filters,
            text="t5-base", text_layers=12,
        )  # fmt: skip
        server = ComfyUI(Path(folder), {"OMP_NUM_THREADS": options.threads})
        try:
            measure(server, options)
        finally:
            server.stop()


def measure(server, options):
    seed = 0
    server.run(workflow("float32", 1, 0.2, seed))  # compiled code, opened files
    print("| precision | batch | stage | milliseconds, slowest | median | pressed |")
    print("|---|---|---|---|---|---|")
    for precision in options.precisions:
        for batch_size in options.batches:
            for stage in options.stages:
                node, delays_s = STAGES[stage]
                found = []
                for delay_s in delays_s * options.tries:
                    seed += 1
                    if stage == "load":
                        server.post("/free", {"unload_models": True, "free_memory": True})
                        time.sleep(1)
                    is_long = stage in ("start of sampling", "sampling")
                    prompt_s = 20.0 if stage == "start of sampling" else 0.0
                    prompt = (
                        without_sampling(precision, batch_size, options.seconds, seed)
                        if stage in ("decode", "normalize")
                        else workflow(precision, batch_size, 30.0 if is_long else 0.2, seed, prompt_s)
                    )
                    found.append(cancelled_after_ms(server, prompt, node, delay_s))
                heard = [ms for ms in found if ms is not None]
                slowest, median = (f"{f(heard):.0f}" if heard else "-" for f in (max, statistics.median))
                print(
                    f"| {precision} | {batch_size} | {stage} | {slowest} | {median} | {len(heard)} of {len(found)} |",
                    flush=True,
                )
    for precision in options.precisions:
        seed += 1
        before, full, after = freed(server, precision, options.batches[0], seed)
        share = (full - after) / max(full - before, 1)
        print(
            f"/free, {precision}: {before:.0f} MB before, {full:.0f} after a run, {after:.0f} after /free: {share:.1%} back"
        )


if __name__ == "__main__":
    main()
