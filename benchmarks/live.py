"""What listening costs: share of the time of writing that goes into decoding beside it, and how much of the piece is heard.

    python benchmarks/live.py [--models pansori-mini small] [--seconds 10] [--rounds 2] [--device cpu]

pansori-mini is a model that ships; small has random weights in the published size, with its codec. One process. The
share asked for is 3 %. "Written with" over "without" is the whole cost, on a quiet machine; the share is what the
listener itself counted, and holds on a busy one too. Prints a table, asserts nothing.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import ROOT, load_pack, machine, wait


def pansori_mini(device):
    """(write, codec) of a model that ships; write(seconds, on_frames) takes the first of a batch of one."""
    from pack.musicgen import loading
    from pack.musicgen.config import GenerationParams

    loaded = loading.load(ROOT / "pretrained" / "pansori-mini.safetensors", "auto", device)
    model, codec = loaded.model.to(device), loaded.codec.to(device)
    conditioning = loaded.conditioner.encode_text(["slow pansori voice, buk drum"])

    def write(seconds, on_frames):
        return model.generate(conditioning, GenerationParams(duration_s=seconds, seed=1), on_frames=on_frames)

    return write, codec


def small(device):
    """The same of random weights in the size of MusicGen small."""
    import torch
    from pack.musicgen import accel
    from pack.musicgen.codec import Codec
    from pack.musicgen.config import CodecConfig, LMConfig
    from pack.musicgen.lm import LM, PlainStepper, RowNoise, Sampling, Stream, generate_codes, quantize_linears

    lm = LM(LMConfig(1024, 16, 24, 4096, 4, 2048, (0, 1, 2, 3), True)).eval().requires_grad_(False)
    codec = Codec(CodecConfig(32000, (8, 5, 4, 4), 4, 2048, n_filters=64, latent_dim=128))
    for tensor in [*lm.parameters(), *codec.state_dict().values()]:
        tensor.normal_(0, 0.02)
    if device == "cpu":
        quantize_linears(lm.layers)
    accel.prepare(lm, lm.config, device)
    lm.to(device), codec.to(device)
    texts = [Stream(torch.zeros(0, 1024), torch.randn(12, 1024))]
    null = [Stream(torch.zeros(0, 1024), torch.zeros(0, 1024))]

    def write(seconds, on_frames):
        with accel.choose(lm, 2, lm.device) or PlainStepper(lm) as stepper:
            return generate_codes(
                lm, texts, null, int(50 * seconds), Sampling(250), RowNoise(1, 1, 4, 2048), 3.0, None, None, stepper,
                on_frames=on_frames,
            )  # fmt: skip

    return write, codec


MODELS = {"pansori-mini": pansori_mini, "small": small}


def timed(write, seconds, on_frames, device):
    begun_s = time.perf_counter()
    write(seconds, on_frames)
    wait(device)
    return time.perf_counter() - begun_s


def listened(write, codec, seconds, device):
    """(seconds of writing with a listener, its share, its first sound after s, seconds of music heard)."""
    from pack.musicgen.live import Listener

    begun_s, heard = time.perf_counter(), []
    listener = Listener(
        codec, lambda position, samples: heard.append((time.perf_counter() - begun_s, samples.shape[-1]))
    )
    taken_s = timed(write, seconds, listener, device)
    listener.finish()
    music_s = sum(length for _, length in heard) / codec.config.sample_rate_hz
    return taken_s, listener.spent_s / listener.running_s, heard[0][0] if heard else float("nan"), music_s


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of music")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    load_pack()
    print(
        f"{arguments.seconds:g} s of music, {machine(arguments.device)}, best of {arguments.rounds}; share asked: 3 %"
    )
    print("| model | written without, s | with, s | share of decoding | first sound after, s | heard meanwhile, s |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        write, codec = MODELS[name](arguments.device)
        timed(write, 1.0, None, arguments.device)
        alone_s = min(timed(write, arguments.seconds, None, arguments.device) for _ in range(arguments.rounds))
        runs = [listened(write, codec, arguments.seconds, arguments.device) for _ in range(arguments.rounds)]
        taken_s, _, first_s, music_s = min(runs)
        share = max(share for _, share, _, _ in runs)
        print(f"| {name} | {alone_s:.1f} | {taken_s:.1f} | {share:.1%} | {first_s:.1f} | {music_s:.1f} |", flush=True)


if __name__ == "__main__":
    main()
