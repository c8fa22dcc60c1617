"""A language model wide enough (1,024) that every accelerator runs as it does on the published models. Not a test."""

import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.config import LMConfig
from comfyui_musicgen.musicgen.lm import LM, Int8Linear, Linear, Stream, quantize_linears

DIM, CARD, K = 1024, 256, 4


def make(precision, layout="numba", cross=True, n_layers=2):
    """Always the same random weights. layout: "numba" = as the kernels take them, "stock" = by torch's own operators."""
    torch.manual_seed(0)
    lm = LM(LMConfig(DIM, 16, n_layers, 4 * DIM, K, CARD, (0, 1, 2, 3), cross)).eval().requires_grad_(False)
    for name, parameter in lm.named_parameters():
        parameter.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.2 if "embed" in name else 0.05)
    if precision == "int8":
        quantize_linears(lm.layers)
    for module in lm.modules():
        if isinstance(module, Linear) and precision != "float32":
            module.to(torch.float16 if precision == "int8" else getattr(torch, precision))
    if layout == "stock":
        accel.stock.replace_linears(lm)
    return lm


def widened(lm):
    """The same weights in float32."""
    exact = make("float32", "stock", lm.config.cross_attention, lm.config.n_layers)
    for ours, theirs in zip(lm.modules(), exact.modules(), strict=True):
        if isinstance(ours, Linear | Int8Linear) or hasattr(ours, "dequantized"):
            theirs.weight.data = ours.dequantized()
    return exact


def streams(lm, lengths):
    """A text for each number of tokens, the same one alone and beside others."""
    rows = [torch.randn(n, DIM, generator=torch.Generator().manual_seed(n)) for n in lengths]
    nothing = torch.zeros(0, DIM)
    return [Stream(nothing, row) if lm.config.cross_attention else Stream(row, nothing) for row in rows]


def nulls(n_rows):
    return [Stream(torch.zeros(0, DIM), torch.zeros(0, DIM))] * n_rows
