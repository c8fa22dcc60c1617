"""MultiBand Diffusion: speed and peak memory of this engine and audiocraft, in one run.

    python benchmarks/diffusion.py [--seconds 4] [--steps 3] [--rounds 2] [--device cpu] [--precisions float32]
    python benchmarks/diffusion.py --long     how memory grows from 30 s to 5 minutes (this engine, one band, one step)

Random weights in the published size (165.6 million a band). One band makes `steps` of its 20 steps, then comes the
equalizer; what 4 bands of 20 steps take is worked out from that. Every engine runs in a process of its own, in turn,
`rounds` times; the best counts. Prints a table, asserts nothing.
"""

import argparse
import json
import sys
import time
import types
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import FLOATS, Failed, in_turn, load_pack, machine, measured, peak_bytes, wait

RATE_HZ, HOP, LATENT_DIM, N_BANDS, N_STEPS = 32000, 640, 128, 4, 20
SHAPE = {
    "hidden": 48,
    "depth": 4,
    "growth": 4.0,
    "kernel": 8,
    "stride": 4,
    "emb_all_layers": True,
    "codec_dim": LATENT_DIM,
}
SCHEDULE = {"beta_t0": 1e-5, "beta_t1": 2.9e-2, "beta_exp": 7.5}


def native(device, precision):
    """This engine: run(latents, wave, steps) -> seconds of the steps, of preparing a band, of the equalizer."""
    load_pack()
    import torch
    from pack.musicgen import accel
    from pack.musicgen.diffusion import decoder
    from pack.musicgen.diffusion.config import BandConfig, DiffusionConfig, ScheduleConfig, UnetConfig

    spent = {}

    def prepared(unet):
        begun = time.perf_counter()
        accelerated = accel.faster_unet(unet)
        spent["prepare"] = time.perf_counter() - begun
        return accelerated

    config = DiffusionConfig("random", RATE_HZ, (BandConfig(UnetConfig(**SHAPE), ScheduleConfig(**SCHEDULE)),))
    model = decoder.MultiBandDecoder(config, prepared).eval().requires_grad_(False)
    model.bands[0].unet.to(device, getattr(torch, precision))
    plan = decoder.plan_steps

    def run(latents, wave, steps):
        ended = []

        def on_step(done, total):
            if done == total - 1 and not ended:
                wait(device)
                ended.append(time.perf_counter())

        with mock.patch.object(decoder, "plan_steps", lambda schedule: plan(schedule)[:steps]):
            begun = time.perf_counter()
            model.decode(latents, wave[:, 0], [0], on_step)
        finished = time.perf_counter()
        return ended[0] - begun - spent["prepare"], spent["prepare"], finished - ended[0]

    return run


def audiocraft(device, precision):
    """Meta's library."""
    load_pack()
    import torch
    from pack.reference.audiocraft import import_audiocraft

    import_audiocraft()
    from audiocraft.models.multibanddiffusion import DiffusionProcess, MultiBandDiffusion
    from audiocraft.models.unet import DiffusionUnet
    from audiocraft.modules.diffusion_schedule import NoiseSchedule

    unet = DiffusionUnet(chin=1, num_steps=1000, **SHAPE).eval().requires_grad_(False).to(device)
    process = DiffusionProcess(unet, NoiseSchedule(**SCHEDULE, num_steps=1000, clip=5.0, device=device))

    def run(latents, wave, steps):
        latents, wave = latents.to(device), wave.to(device)
        codec = types.SimpleNamespace(sample_rate=RATE_HZ, parameters=lambda: iter([wave]))
        model = MultiBandDiffusion([process], codec)
        begun = time.perf_counter()
        samples = model.generate(latents, wave.shape, step_list=[*range(999, 0, -50)[:steps], 0])
        wait(device)
        middle = time.perf_counter()
        with torch.no_grad():
            model.re_eq(samples, wave).cpu()
        return middle - begun, 0.0, time.perf_counter() - middle

    return run


ENGINES = {"native": native, "audiocraft": audiocraft}


def worker(arguments):
    import torch

    torch.manual_seed(0)
    run = ENGINES[arguments.worker](arguments.device, arguments.precision)
    n_frames = int(arguments.seconds * RATE_HZ / HOP)
    latents, wave = torch.randn(1, LATENT_DIM, n_frames), 0.1 * torch.randn(1, 1, n_frames * HOP)
    if not arguments.long:
        run(latents[..., :25], wave[..., : 25 * HOP], 1)
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps, prepare, equalizer = run(latents, wave, arguments.steps)
    peak = peak_bytes(arguments.device)
    print(json.dumps({"step": steps / arguments.steps, "prepare": prepare, "equalizer": equalizer, "peak": peak}))


def measure(engine, precision, arguments, seconds=None, steps=None):
    options = [
        "--worker", engine, "--precision", precision, "--device", arguments.device,
        "--seconds", seconds or arguments.seconds, "--steps", steps or arguments.steps,
    ]  # fmt: skip
    return measured(__file__, *options, *(["--long"] if arguments.long else []))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of audio")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precisions", nargs="+", choices=FLOATS, default=["float32"], help="of this engine")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
    elif arguments.long:
        report_long(arguments)
    else:
        contenders = [("audiocraft", "float32"), *(("native", precision) for precision in arguments.precisions)]
        report(in_turn(contenders, arguments.rounds, lambda contender: measure(*contender, arguments)), arguments)


def about(arguments):
    import torch

    return f"{machine(arguments.device)}, torch {torch.__version__}, random weights"


def report(results, arguments):
    print(f"{arguments.seconds:g} s of mono audio; {about(arguments)}; best of {arguments.rounds} rounds")
    print("| engine | precision | s a step | s to prepare a band | s for the equalizer | whole decode: audio s/s | over "
          "audiocraft | peak memory with one band, MB |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    speeds = {}
    for (engine, precision), runs in results.items():
        step, prepare, equalizer = (min(run[key] for run in runs) for key in ("step", "prepare", "equalizer"))
        speeds[engine, precision] = arguments.seconds / (N_BANDS * (N_STEPS * step + prepare) + equalizer)
        ratio = speeds[engine, precision] / speeds["audiocraft", "float32"]
        peak = max(run["peak"] for run in runs) / 1e6
        print(f"| {engine} | {precision} | {step:.2f} | {prepare:.2f} | {equalizer:.2f} | "
              f"{speeds[engine, precision]:.4f} | {ratio:.2f} | {peak:.0f} |")  # fmt: skip


def report_long(arguments):
    print(f"This engine, one band, one step; {about(arguments)}")
    print("| audio, s | peak memory, MB | over 30 s | s |")
    print("|---|---|---|---|")
    base = None
    for seconds in (30, 300):
        figures = measure("native", "float32", arguments, seconds, 1)
        base = base or figures["peak"]
        print(
            f"| {seconds} | {figures['peak'] / 1e6:.0f} | {figures['peak'] / base:.2f} | {figures['step']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(str(error))
