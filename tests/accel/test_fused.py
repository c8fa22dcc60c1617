"""The Triton kernels: each is what torch computes, and a step of them is the step that torch takes.

Without a GPU they run in Triton's interpreter, and are compiled for one by Triton's own compiler.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen.lm import RowNoise, Sampling, fused, generate_codes, linear
from comfyui_musicgen.musicgen.lm.static import Shape, StaticRuns
from comfyui_musicgen.tests.lm import tiny_lm
from comfyui_musicgen.tests.lm.tiny_lm import CARD
from torch.nn import functional as F

pytest.importorskip("triton", reason="triton is not to be had here")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOP_K = Sampling(20)
KERNELS = Path(fused.__file__).parent


@pytest.fixture
def make(monkeypatch):
    """make(precision, cross=..., ...) -> LM whose steps the kernels take."""
    monkeypatch.setenv(fused.SWITCH, "1")
    monkeypatch.setattr(linear, "_has_fbgemm", lambda device: False)  # weights stay where the kernels read them
    monkeypatch.setattr(fused, "_OUTPUTS", (64, 64))  # fewer programs: the interpreter takes 20 ms for one

    def model(precision="float16", cross=True, n_heads=3, n_layers=2):
        lm = tiny_lm.make(cross, precision, n_heads=n_heads, n_layers=n_layers)
        lm.to(DEVICE)
        lm.captured = StaticRuns(lambda device: lambda step: step)
        return lm

    return model


def codes(lm, lengths=(5,), n_frames=2, sampling=TOP_K, **options):
    noise = RowNoise(3, len(lengths), 4, CARD)
    return generate_codes(
        lm, tiny_lm.streams(lm, lengths), tiny_lm.nulls(lengths), n_frames, sampling, noise, 3.0, **options
    )


@torch.inference_mode()
def begun(lm, lengths=(5,), n_known=9, sampling=TOP_K, guided=True):
    """A run that has taken in a few columns, and whose next step is still to come."""
    rows = tiny_lm.streams(lm, lengths) + (tiny_lm.nulls(lengths) if guided else [])
    known = torch.randint(CARD, (len(lengths), 4, n_known), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    state = lm.start(rows, n_known + 1)
    lm.step(state, torch.cat([known, known])[..., :-1] if guided else known[..., :-1])
    n_cross = max(lengths) if lm.config.cross_attention else 0
    run = lm.captured.get(lm, Shape.of(len(lengths), guided, state.length + 20, n_cross, sampling))
    run._is_checked = True
    run.begin(state, known, n_known, sampling, 3.0)
    return run


def the_run(lm):
    (run,) = lm.captured._runs.values()
    return run


def close(ours, torchs, least=0.99999):
    return F.cosine_similarity(ours.flatten(1), torchs.flatten(1)).min() > least and ours.std() > 0.1


# --- a step


@pytest.mark.parametrize(
    ("precision", "cross", "lengths", "n_heads"),
    [
        ("float16", True, (7, 2, 4), 3),
        ("float16", False, (5,), 12),
        ("bfloat16", False, (7, 2), 3),
        ("int8", True, (20,), 1),
        ("int8", False, (3,), 3),
    ],
)
@torch.inference_mode()
def test_logits_and_caches_are_torchs(make, precision, cross, lengths, n_heads):
    run = begun(make(precision, cross, n_heads), lengths)
    ours = run._fused.logits(256).clone()
    written = [(cache.keys[:, :, run.length].clone(), cache.values[:, :, run.length].clone()) for cache in run.layers]
    for cache in run.layers:
        cache.keys[:, :, run.length], cache.values[:, :, run.length] = 0, 0
    assert close(ours, run._torch_logits(256), 0.9999 if precision == "bfloat16" else 0.99999)
    for cache, (keys, values) in zip(run.layers, written, strict=True):
        torch.testing.assert_close(keys, cache.keys[:, :, run.length], atol=1e-2, rtol=0)
        torch.testing.assert_close(values, cache.values[:, :, run.length], atol=1e-2, rtol=0)
        assert keys.abs().max() > 0.1


@pytest.mark.parametrize("n_known", [3, 11, 12])
@torch.inference_mode()
def test_long_caches_are_attended_to_in_chunks(make, monkeypatch, n_known):
    """Of 8 columns here: with left padding the first chunks of a row hold nothing, and the last ones are not there yet."""
    monkeypatch.setattr(fused, "_CHUNK", 8)
    monkeypatch.setattr(fused, "_COLUMNS", 4)
    run = begun(make(cross=False, n_layers=1), (20, 2), n_known)
    assert run.length == 20 + n_known - 1
    assert close(run._fused.logits(48).clone(), run._torch_logits(48))


# --- the draw


@pytest.mark.parametrize(
    "sampling",
    [Sampling(20), Sampling(0), Sampling(1), Sampling(250), Sampling(temperature=0.0), Sampling(20, 0.0, 1.7)],
)
@pytest.mark.parametrize("guided", [True, False])
@torch.inference_mode()
def test_draws_are_torchs(make, sampling, guided):
    run = begun(make(n_layers=1), (5, 5), sampling=sampling, guided=guided)
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(run.shape.n_rows, 4, CARD, generator=generator).to(DEVICE)
    logits[:, :, 7] = logits[:, :, 3]  # a tie
    run.noise.copy_(torch.empty(run.noise.shape).exponential_(generator=generator))
    run.sequence.fill_(-1)
    run.sequence[0, 1, 6] = 55
    run.column.fill_(6)
    run.slot.fill_(2)
    run._fused.draw(logits)
    ours = run.sequence[..., 4:9].clone()
    run.sequence[..., 6] = -1
    run.sequence[0, 1, 6] = 55
    run._draw(logits)
    assert torch.equal(ours, run.sequence[..., 4:9])
    assert (ours[..., 2] >= 0).all() and (ours[..., [0, 1, 3, 4]] == -1).all() and ours[0, 1, 2] == 55


# --- a piece


@pytest.mark.parametrize(
    ("cross", "sampling"), [(True, TOP_K), (False, Sampling(0, 0.8)), (False, Sampling(temperature=0.0))]
)
def test_a_piece_is_torchs(make, monkeypatch, cross, sampling):
    """So few codes that none is a matter of rounding."""
    lm = make(cross=cross, n_layers=1)
    prompt = torch.randint(CARD, (2, 4, 6), generator=torch.Generator().manual_seed(4))
    ours = codes(lm, (7, 2), 8, sampling, prompt=prompt)
    assert the_run(lm)._fused is not None
    monkeypatch.delenv(fused.SWITCH)
    other = make(cross=cross, n_layers=1)
    assert torch.equal(ours, codes(other, (7, 2), 8, sampling, prompt=prompt)) and the_run(other)._fused is None
    assert torch.equal(ours[..., :6], prompt) and len(ours[..., 6:].unique()) > 4


# --- when they are used


def test_they_are_off_unless_asked_for(make, monkeypatch):
    for value, on in (("0", False), ("", False), ("1", True), ("true", True)):
        monkeypatch.setenv(fused.SWITCH, value)
        assert fused.wanted() == on
    monkeypatch.delenv(fused.SWITCH)
    assert not fused.wanted()


def test_float32_and_many_rows_are_torchs(make):
    assert not fused.suits(make("float32"), 2)
    lm = make()
    assert fused.suits(lm, fused.MAX_ROWS) and not fused.suits(lm, fused.MAX_ROWS + 1)


@pytest.mark.parametrize("how", ["wrong", "nan", "fails"])
def test_kernels_that_do_not_work_are_not_used(make, monkeypatch, caplog, how):
    def logits(self, bucket):
        if how == "fails":
            raise RuntimeError("no compiler")
        return torch.full_like(self._made, torch.nan if how == "nan" else 1.0)

    monkeypatch.setattr(fused.Fused, "logits", logits)
    lm = make(n_layers=1)
    made = codes(lm)
    assert the_run(lm)._fused is None and "torch's take their place" in caplog.text
    monkeypatch.delenv(fused.SWITCH)
    assert torch.equal(made, codes(make(n_layers=1)))


# --- a GPU's compiler

COMPILE = """
import json, sys, types, importlib
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
package = types.ModuleType("kernels_only"); package.__path__ = [sys.argv[1]]; sys.modules["kernels_only"] = package
kernels = importlib.import_module("kernels_only.kernels")
F, I, L, H = "*fp32", "i32", "*i64", "*fp16"
R = {"R": 2, "R2": 2}
KERNELS = {
    "embed": (dict(sequence=L, column=L, length=L, padding=L, table=H, positions=F, x=F, n_columns=I, n_entries=I, dim=I,
        n_clips=I), dict(n_codebooks=4, BLOCK=1024)),
    "normed_product": (dict(x=F, gain=F, bias=F, weight=H, scale=F, out=F, n_out=I, eps="fp32"),
        dict(R, dim=1536, dim_2=2048, N=16, BLOCK=256, gelu=True, int8=False)),
    "added_product": (dict(given=F, weight="*i8", scale=F, x=F, n_out=I), dict(R, n_in=4096, N=8, BLOCK=512, int8=True)),
    "attend": (dict(qkv=F, keys=H, values=H, length=L, padding=L, made=F, peaks=F, totals=F, n_heads=I, room=I, scale="fp32"),
        dict(head_dim=64, head_2=64, CHUNK=256, BLOCK=64, n_chunks=6)),
    "combine": (dict(parts=F, peaks=F, totals=F, out=F), dict(n_chunks=6, chunks_2=8, head_dim=64, head_2=64)),
    "attend_text": (dict(queries=F, keys=H, values=H, mask=H, out=F, n_heads=I, scale="fp32"),
        dict(n_tokens=16, head_dim=64, head_2=64, BLOCK=16)),
    "draw_code": (dict(logits=F, noise=F, slot=L, cfg=F, temperature=F, sequence=L, column=L, n_columns=I, n_clips=I,
        n_codebooks=I, cardinality=I), dict(cardinality_2=2048, guided=True, greedy=False, top_k=250)),
}
sizes = {}
for name, (signature, constants) in KERNELS.items():
    source = ASTSource(getattr(kernels, name), {**signature, **dict.fromkeys(constants, "constexpr")}, constants)
    made = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[2]), 32))
    sizes[name] = [len(made.asm["cubin"]), made.metadata.shared]
print(json.dumps(sizes))
"""


@pytest.mark.parametrize("capability", [80, 90])
def test_they_compile_for_a_gpu(capability, tmp_path):
    """With the compiler that Triton brings, to machine code for an A100 and an H100; no GPU is needed for that."""
    (tmp_path / "compile.py").write_text(COMPILE)
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(tmp_path / "compile.py"), str(KERNELS), str(capability)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = json.loads(done.stdout)
    assert len(sizes) == 7 and all(code > 1000 and shared <= 48 * 1024 for code, shared in sizes.values()), sizes
