"""How far fewer bits take the language model from float32: random weights, musicgen's shape.

    python benchmarks/precision.py [--size small] [--steps 500] [--frames 1500] [--precisions float16 bfloat16 int8]

Teacher-forced: the same random codes, `steps` columns, one by one; the cosine of the logits with float32's, and how
often the likeliest code is the same. Random weights make nearly flat logits, so the latter is a lower bound. Sampled:
each precision writes `frames` frames of its own; the entropy of the codes in the first and the last fifth says whether
it drifts. Prints tables, asserts nothing.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import CARD, CFG, SIZES, K, native_lm
from harness import PRECISIONS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--frames", type=int, default=1500, help="0: skip the sampled part")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["float16", "bfloat16", "int8"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--scale", type=float, default=0.05, help="deviation of the random weights")
    arguments = parser.parse_args()
    import torch

    torch.manual_seed(0)
    codes = torch.randint(CARD, (1, K, arguments.steps))
    dim = SIZES[arguments.size][0]
    text = torch.randn(12, dim)
    exact = None
    print(f"{arguments.size}, {arguments.steps} teacher-forced steps, {arguments.device}, torch {torch.__version__}")
    print(
        "| precision | cosine, mean | cosine, least | same likeliest code | entropy of codes, first fifth, bits | last fifth |"
    )
    print("|---|---|---|---|---|---|")
    for precision in ["float32", *arguments.precisions]:
        lm = native_lm(arguments.size, precision, arguments.device, arguments.scale)
        logits = teacher_forced(lm, codes, text)
        exact = logits if exact is None else exact
        cosine = torch.nn.functional.cosine_similarity(logits, exact, dim=-1)
        same = (logits.argmax(-1) == exact.argmax(-1)).float().mean()
        drift = entropies(lm, text, arguments.frames) if arguments.frames else ("-", "-")
        print(
            f"| {precision} | {cosine.mean():.6f} | {cosine.min():.6f} | {same:.1%} | {drift[0]} | {drift[1]} |",
            flush=True,
        )


def teacher_forced(lm, codes, text):
    """Logits [steps, K, cardinality] of one clip, column by column."""
    import torch
    from pack.musicgen import accel
    from pack.musicgen.lm import PlainStepper, Stream

    with torch.inference_mode(), accel.choose(lm, 1, lm.device) or PlainStepper(lm) as stepper:
        stepper.start([Stream(text[:0], text)], codes.shape[-1])
        steps = [stepper.take_in(codes[..., i : i + 1].to(lm.device))[0].cpu() for i in range(codes.shape[-1])]
    return torch.stack(steps)


def entropies(lm, text, n_frames):
    """Entropy of the codes that it writes, in the first and the last fifth."""
    from pack.musicgen import accel
    from pack.musicgen.lm import PlainStepper, RowNoise, Sampling, Stream, generate_codes

    row, null = Stream(text[:0], text), Stream(text[:0], text[:0])
    with accel.choose(lm, 2, lm.device) or PlainStepper(lm) as stepper:
        codes = generate_codes(
            lm, [row], [null], n_frames, Sampling(250), RowNoise(0, 1, K, CARD), CFG, stepper=stepper
        )
    fifths = codes.chunk(5, dim=-1)
    entropies = []
    for part in (fifths[0], fifths[-1]):
        share = part.flatten().bincount(minlength=CARD).float() / part.numel()
        entropies.append(f"{-(share * share.clamp(min=1e-12).log2()).sum():.3f}")
    return entropies


if __name__ == "__main__":
    main()
