"""Hundreds of prompts in one real ComfyUI: failures of good ones, memory, threads and temporary files.

    python benchmarks/soak.py [--prompts 500] [--seed 0]

Templates with a small random model by turns; one prompt in ten is cancelled, one in ten is wrong. Memory is the server's
resident size after prompt --settle and after the last one. The best possible growth is 0; a server that kept each
clip's samples alone would grow by some 0.1 MB a prompt. Exit code 1 if a good prompt failed, a wrong one passed, memory
grew by more than 5 %, or threads or half-written files were left. COMFYUI_PATH names the ComfyUI, ~/comfy/ComfyUI
without it.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cancel import register, resident_mb
from harness import ROOT

TEMPLATES = (
    "text_to_music", "continue_a_clip", "follow_a_melody", "several_takes", "change_of_mood", "seamless_loop",
    "levels_and_formats", "blend_of_two_moods", "guidance_compared", "theme_and_variation",
)  # fmt: skip
WRONG = (
    ("MusicGenSampler.duration_s", -1.0), ("MusicGenSampler.top_k", -5), ("MusicGenLoader.model", "gone"),
    ("MusicGenSaveAudio.filename_prefix", "a\0b"), ("MusicGenLoader.precision", "int3"),
)  # fmt: skip


def workflow(name: str, seed: int) -> dict:
    """A template with the small model, a second of music and its own seed."""
    from comfyui_musicgen.clients import comfyui as client

    prompt = client.load_workflow(ROOT / "workflows" / "api" / f"{name}.json")
    for node in prompt.values():
        inputs = node["inputs"]
        if node["class_type"] == "MusicGenLoader":
            inputs["model"] = "toy-melody"
        if node["class_type"] == "MusicGenLoop":
            inputs["bars"] = 1  # four of the template's would not fit into a few seconds at every measured tempo
        for key, value in (("duration_s", 6.0 if "loop" in name else 1.0), ("seed", seed)):
            if isinstance(inputs.get(key), (int, float)):
                inputs[key] = value + (5.0 if key == "duration_s" and "prompt" in inputs else 0.0)
    return prompt


def spoil(prompt: dict, target: str, value: object) -> None:
    """Set CLASS.INPUT of the first node of that class."""
    kind, _, name = target.partition(".")
    next(node for node in prompt.values() if node["class_type"] == kind)["inputs"][name] = value


def threads_of(server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def soak(server, n_prompts: int, settle: int, seed: int) -> bool:
    from comfyui_musicgen.clients import comfyui as client

    rng, outcomes, failures, at = random.Random(seed), Counter(), [], {}
    for turn in range(1, n_prompts + 1):
        name = TEMPLATES[turn % len(TEMPLATES)]
        prompt = workflow(name, rng.randrange(2**32))
        kind = rng.choices(("good", "cancelled", "wrong"), (0.8, 0.1, 0.1))[0]
        if kind == "wrong":
            spoil(prompt, *rng.choice(WRONG))
        timer = threading.Timer(rng.uniform(0, 1.5), server.post, ("/interrupt",)) if kind == "cancelled" else None
        if timer:
            timer.start()
        try:
            outcome = "done" if server.run(prompt).saved else "saved nothing"
        except client.InterruptedRunError:
            outcome = "interrupted"
        except client.ClientError as error:
            outcome = "refused"
            if kind != "wrong":
                failures.append(f"{turn} {name}: {str(error)[:300]}")
        if timer:
            timer.join()
        outcomes[kind, outcome] += 1
        if turn in (settle, n_prompts):
            time.sleep(3)
            at[turn] = resident_mb(server), threads_of(server)
    for (kind, outcome), n in sorted(outcomes.items()):
        print(f"{kind}: {outcome} {n}")
    (early, threads), (late, threads_left) = at[settle], at[n_prompts]
    temp = [path for path in (server.base / "temp").rglob("*") if path.is_file()]
    partial = [path for path in server.base.rglob("*.part") if path.is_file()]
    print(f"memory: {early:.0f} MB after {settle}, {late:.0f} MB after {n_prompts}: {(late - early) / early:+.1%}")
    print(f"threads: {threads} after {settle}, {threads_left} at the end")
    print(
        f"temp: {len(temp)} files, {sum(path.stat().st_size for path in temp) / 2**20:.1f} MB; partial files: {len(partial)}"
    )
    print(*failures[:20], sep="\n")
    good = {outcome for kind, outcome in outcomes if kind == "good"} == {"done"}
    return (
        good
        and ("wrong", "done") not in outcomes
        and late <= 1.05 * early
        and threads_left <= threads + 2
        and not partial
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--settle", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    register()
    from comfyui_musicgen.tests.comfyui.comfy_server import ComfyUI, write_toys

    with tempfile.TemporaryDirectory() as folder:
        write_toys(Path(folder, "models/musicgen"), ["toy-melody"])
        server = ComfyUI(Path(folder))
        try:
            started = time.monotonic()
            passed = soak(server, options.prompts, min(options.settle, options.prompts - 1), options.seed)
            print(
                f"{options.prompts} prompts in {time.monotonic() - started:.0f} s: {'passed' if passed else 'FAILED'}"
            )
        finally:
            server.stop()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
