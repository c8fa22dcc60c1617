"""EnCodec's decoding and encoding: speed and peak memory of this engine, audiocraft and transformers, in one run.

    python benchmarks/codec.py [--seconds 30] [--rounds 3] [--device cpu]
    python benchmarks/codec.py --long     how memory grows from 1 minute of codes to an hour (this engine, decoding)

Random weights in the published size (32 kHz, 64 filters, 4 codebooks of 2048). Every engine runs in a process of its own,
in turn, `rounds` times; the best counts. Peak memory is what comes on top of a first run of 2 s, the result included.
Prints a table, asserts nothing.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import Failed, in_turn, load_pack, machine, measured, peak_bytes

RATE_HZ, HOP, K, SIZE, DIM, FILTERS, RATIOS = 32000, 640, 4, 2048, 128, 64, (8, 5, 4, 4)


def native(device):
    """This engine: decode(codes) and encode(wave), in chunks."""
    load_pack()
    import torch
    from pack.musicgen.audio import Audio
    from pack.musicgen.codec import Codec
    from pack.musicgen.codes import Codes
    from pack.musicgen.config import CodecConfig

    codec = Codec(CodecConfig(RATE_HZ, RATIOS, K, SIZE, n_filters=FILTERS, latent_dim=DIM))
    for tensor in codec.state_dict().values():
        tensor.normal_(0, 0.05)
    codec.to(device)
    config = codec.config
    return (
        lambda codes: codec.decode(Codes(codes, config.frame_rate_hz, config.identity)).samples,
        lambda wave: torch.as_tensor(codec.encode(Audio(wave, RATE_HZ)).codes),
    )


def audiocraft(device):
    """Meta's library: everything in one pass."""
    load_pack()
    from pack.reference.audiocraft import import_audiocraft

    import_audiocraft()
    from audiocraft.models.encodec import EncodecModel
    from audiocraft.modules.seanet import SEANetDecoder, SEANetEncoder
    from audiocraft.quantization.vq import ResidualVectorQuantizer

    shape = {
        "channels": 1,
        "dimension": DIM,
        "n_filters": FILTERS,
        "n_residual_layers": 1,
        "ratios": list(RATIOS),
        "norm": "weight_norm",
        "lstm": 2,
    }
    model = EncodecModel(
        SEANetEncoder(**shape), SEANetDecoder(**shape), ResidualVectorQuantizer(DIM, n_q=K, bins=SIZE),
        frame_rate=RATE_HZ // HOP, sample_rate=RATE_HZ, channels=1,
    ).eval().to(device)  # fmt: skip
    return lambda codes: model.decode(codes.to(device)).cpu(), lambda wave: model.encode(wave.to(device))[0].cpu()


def transformers(device):
    """Hugging Face's port."""
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(
        target_bandwidths=[K * 11 * RATE_HZ / HOP / 1000], sampling_rate=RATE_HZ, audio_channels=1, normalize=False,
        num_filters=FILTERS, num_residual_layers=1, upsampling_ratios=list(RATIOS), norm_type="weight_norm", hidden_size=DIM,
        num_lstm_layers=2, codebook_size=SIZE, codebook_dim=DIM, use_causal_conv=False, use_conv_shortcut=False,
    )  # fmt: skip
    model = EncodecModel(config).eval().to(device)
    return (
        lambda codes: model.decode(codes[None].to(device), [None]).audio_values.cpu(),
        lambda wave: model.encode(wave.to(device), bandwidth=config.target_bandwidths[0]).audio_codes[0].cpu(),
    )


ENGINES = {"audiocraft": audiocraft, "transformers": transformers, "native": native}


def worker(arguments):
    import torch

    torch.manual_seed(0)
    decode, encode = ENGINES[arguments.worker](arguments.device)
    n_frames = int(arguments.seconds * RATE_HZ / HOP)
    codes = torch.randint(SIZE, (1, K, n_frames))
    wave = 0.1 * torch.randn(1, 1, (100 if arguments.long else n_frames) * HOP)  # not in the way of what is measured
    result = {}
    with torch.no_grad():
        decode(codes[..., :100]), encode(wave[..., : 100 * HOP])
        before = peak_bytes(arguments.device)
        for name, run, value, expected in (
            ("decode", decode, codes, (1, 1, n_frames * HOP)),
            ("encode", encode, wave, codes.shape),
        ):
            if arguments.long and name == "encode":
                continue
            begun = time.perf_counter()
            result = run(value)  # the results are on the CPU, so this waits for the GPU
            result[name] = time.perf_counter() - begun
            result[f"{name}_peak"] = peak_bytes(arguments.device) - before
            if result.shape != expected:
                sys.exit(f"{name} made {list(result.shape)} instead of {list(expected)}")
    print(json.dumps(result))


def measure(engine, arguments, seconds):
    options = ["--worker", engine, "--device", arguments.device, "--seconds", seconds]
    return measured(__file__, *options, *(["--long"] if arguments.long else []))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of audio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--worker", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
    elif arguments.long:
        report_long(arguments)
    else:
        report(
            in_turn(ENGINES, arguments.rounds, lambda engine: measure(engine, arguments, arguments.seconds)), arguments
        )


def about(arguments):
    import torch

    return f"{machine(arguments.device)}, torch {torch.__version__}, float32, random weights"


def report(results, arguments):
    print(f"{arguments.seconds:g} s of mono audio; {about(arguments)}; best of {arguments.rounds} rounds")
    print("| engine | decode: audio s/s | over audiocraft | encode: audio s/s | over audiocraft | peak memory of a decode, "
          "MB |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    speeds = {}
    for engine, runs in results.items():
        for name in ("decode", "encode"):
            speeds[engine, name] = arguments.seconds / min(run[name] for run in runs)
        decode, encode = (speeds[engine, name] for name in ("decode", "encode"))
        peak = max(run["decode_peak"] for run in runs) / 1e6
        print(f"| {engine} | {decode:.1f} | {decode / speeds['audiocraft', 'decode']:.2f} | {encode:.1f} | "
              f"{encode / speeds['audiocraft', 'encode']:.2f} | {peak:.0f} |")  # fmt: skip


def report_long(arguments):
    print(f"This engine, decoding; {about(arguments)}")
    print("| audio, s | peak memory, MB | of it the result, MB | audio s/s |")
    print("|---|---|---|---|")
    for seconds in (60, 600, 3600):
        figures = measure("native", arguments, seconds)
        print(f"| {seconds} | {figures['decode_peak'] / 1e6:.0f} | {4 * seconds * RATE_HZ / 1e6:.0f} | "
              f"{seconds / figures['decode']:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(str(error))
