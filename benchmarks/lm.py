"""Steps a second and peak memory of this engine, audiocraft and transformers: one model size, one run.

    python benchmarks/lm.py [--size small] [--steps 60] [--rounds 3] [--precisions float32 int8]

Random weights; text of 12 tokens; classifier-free guidance 3; top-k 250. Every engine runs in a process of its
own, in turn, `rounds` times; the median counts. Prints a table, asserts nothing.
"""

import argparse
import importlib.util
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"tiny": (256, 4, 4), "small": (1024, 16, 24), "medium": (1536, 24, 48), "large": (2048, 32, 48)}
N_TEXT, CFG, TOP_K, CARD, K = 12, 3.0, 250, 2048, 4


def load_pack():
    """The pack under an importable name, as ComfyUI would load it."""
    spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules["pack"] = importlib.util.module_from_spec(spec)


def native(size, batch, steps, precision):
    """This engine."""
    load_pack()
    import torch
    from pack.musicgen.config import LMConfig
    from pack.musicgen.lm import LM, RowNoise, Sampling, Stream, generate_codes, quantize_linears, storage_dtype

    dim, heads, layers = SIZES[size]
    config = LMConfig(dim, heads, layers, 4 * dim, K, CARD, (0, 1, 2, 3), True)
    with torch.device("meta"):
        lm = LM(config)
    generator = torch.Generator().manual_seed(0)
    for module in [*lm.layers, lm]:
        for child in module.modules():
            for name, parameter in child.named_parameters(recurse=False):
                if parameter.is_meta:
                    dtype = storage_dtype(precision) if parameter.ndim == 2 else torch.float32
                    filled = torch.empty(parameter.shape, dtype=dtype).normal_(0, 0.02, generator=generator)
                    setattr(child, name, torch.nn.Parameter(filled, requires_grad=False))
        if precision == "int8" and module is not lm:
            quantize_linears(module)
    nothing = torch.zeros(0, dim)
    rows = [Stream(nothing, torch.randn(N_TEXT, dim))] * batch
    null = [Stream(nothing, nothing)] * batch
    noise = RowNoise(0, batch, K, CARD)

    def run(n, on_step):
        generate_codes(lm, rows, null, n - 3, Sampling(TOP_K), noise, CFG, on_step=on_step)

    return run, sum(t.nbytes for t in lm.state_dict().values())


def audiocraft(size, batch, steps, precision):
    """Meta's library, float32 on the CPU as it runs there."""
    load_pack()
    import torch
    from pack.reference.audiocraft import import_audiocraft

    import_audiocraft()
    from audiocraft.models.lm import LMModel
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider
    from audiocraft.modules.conditioners import ConditionFuser, ConditioningAttributes, ConditioningProvider

    dim, heads, layers = SIZES[size]
    fuser = ConditionFuser({"cross": ["description"], "prepend": [], "sum": [], "input_interpolate": []})
    lm = LMModel(
        DelayedPatternProvider(K, [0, 1, 2, 3]), ConditioningProvider({}), fuser, n_q=K, card=CARD, dim=dim,
        num_heads=heads, hidden_scale=4, num_layers=layers, norm="layer_norm", norm_first=True, bias_proj=False,
        bias_ff=False, bias_attn=False, memory_efficient=True, causal=True, cross_attention=True, activation="gelu",
        positional_embedding="sin", dropout=0.0,
    ).eval()  # fmt: skip
    text = torch.randn(1, N_TEXT, dim)
    rows = torch.cat([text.expand(batch, -1, -1), torch.zeros(batch, N_TEXT, dim)])
    lm.condition_provider.tokenize = lambda conditions: {}
    lm.condition_provider.forward = lambda tokenized: {"description": (rows, torch.ones(2 * batch, N_TEXT))}
    conditions = [ConditioningAttributes(text={"description": "x"})] * batch

    def run(n, on_step):
        lm.generate(None, conditions, max_gen_len=n - 3, top_k=TOP_K, cfg_coef=CFG, callback=on_step)

    return run, sum(t.nbytes for t in lm.state_dict().values())


def transformers(size, batch, steps, precision):
    """Hugging Face's implementation, with its own sampling loop; its text encoder and codec are tiny here."""
    import torch
    from transformers import EncodecConfig, LogitsProcessor, MusicgenConfig, MusicgenDecoderConfig, T5Config
    from transformers import MusicgenForConditionalGeneration as Musicgen

    dim, heads, layers = SIZES[size]
    decoder = MusicgenDecoderConfig(
        vocab_size=CARD, hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads, ffn_dim=4 * dim, num_codebooks=K,
        max_position_embeddings=2048, layerdrop=0.0, dropout=0.0,
    )  # fmt: skip
    text = T5Config(vocab_size=64, d_model=768, d_kv=64, d_ff=64, num_layers=1, num_heads=2)
    codec = EncodecConfig(
        target_bandwidths=[2.2], sampling_rate=32000, num_filters=4, codebook_size=CARD, upsampling_ratios=[8, 5, 4, 4],
        use_causal_conv=False, num_lstm_layers=1, hidden_size=128, codebook_dim=128,
    )  # fmt: skip
    model = Musicgen(
        MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())
    ).eval()
    for config in (model.generation_config, model.config):
        config.decoder_start_token_id = config.pad_token_id = config.bos_token_id = CARD

    class Count(LogitsProcessor):
        def __call__(self, ids, scores):
            self.done += 1
            self.on_step(self.done, 0)
            return scores

    def run(n, on_step):
        count = Count()
        count.on_step, count.done = on_step, 0
        model.generate(
            torch.full((batch, N_TEXT), 5), guidance_scale=CFG, do_sample=True, top_k=TOP_K, max_new_tokens=n,
            logits_processor=[count],
        )  # fmt: skip

    return run, sum(t.nbytes for t in model.decoder.state_dict().values())


ENGINES = {"native": native, "audiocraft": audiocraft, "transformers": transformers}


def worker(engine, size, batch, steps, precision):
    import torch

    torch.manual_seed(0)
    run, weights = ENGINES[engine](size, batch, steps, precision)
    times = []
    with torch.inference_mode():
        run(12, lambda done, total: None)
        run(steps, lambda done, total: times.append(time.perf_counter()))
    gaps = [after - before for before, after in itertools.pairwise(times[5:])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"steps_per_s": 1 / statistics.median(gaps), "peak": peak, "weights": weights}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16", "int8"], help="of this engine")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.size, arguments.batch, arguments.steps, arguments.precision)
        return
    contenders = [
        ("audiocraft", "float32"),
        ("transformers", "float32"),
        *(("native", p) for p in arguments.precisions),
    ]
    results = {contender: [] for contender in contenders}
    for _ in range(arguments.rounds):
        for contender in contenders:
            results[contender].append(measure(*contender, arguments))
    report(results, arguments)


def measure(engine, precision, arguments):
    command = [sys.executable, __file__, "--worker", engine, "--precision", precision, "--size", arguments.size,
               "--batch", str(arguments.batch), "--steps", str(arguments.steps)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{engine} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(results, arguments):
    import torch

    print(f"musicgen-{arguments.size}'s size, batch {arguments.batch}, guidance {CFG:g}; {os.cpu_count()} cores "
          f"{platform.machine()}, torch {torch.__version__}; median of {arguments.rounds} rounds")  # fmt: skip
    base = statistics.median(r["steps_per_s"] for r in results["audiocraft", "float32"])
    print("| engine | precision | steps/s | over audiocraft | peak memory, MB | weights, MB |")
    print("|---|---|---|---|---|---|")
    for (engine, precision), runs in results.items():
        speed = statistics.median(r["steps_per_s"] for r in runs)
        peak, weights = max(r["peak"] for r in runs) / 1e6, runs[0]["weights"] / 1e6
        print(f"| {engine} | {precision} | {speed:.2f} | {speed / base:.2f} | {peak:.0f} | {weights:.0f} |")


if __name__ == "__main__":
    main()
