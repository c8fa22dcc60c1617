"""Language models of MusicGen's structure that a test can afford. Not a test; loaded by those that need one."""

import torch
from comfyui_musicgen.musicgen.config import LMConfig, delays_for
from comfyui_musicgen.musicgen.lm import LM, Stream, linear, quantize_linears

DIM, CARD = 48, 96


def make(cross=True, precision="float32", n_codebooks=4, n_heads=3, n_layers=3):
    """Always the same random weights; cross: the text is attended to, else it stands in front of the codes."""
    torch.manual_seed(0)
    config = LMConfig(
        DIM, n_heads, n_layers, 4 * DIM, n_codebooks, CARD, delays_for(n_codebooks, n_codebooks // 4), cross
    )
    lm = LM(config).eval().requires_grad_(False)
    for name, parameter in lm.named_parameters():
        parameter.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.2 if "embed" in name else 0.08)
    if precision == "int8":
        quantize_linears(lm.layers)
    elif precision != "float32":
        for module in lm.modules():
            if isinstance(module, linear.Linear):
                module.to(getattr(torch, precision))
    return lm


def streams(lm, lengths):
    """A text for each number of tokens, the same one alone and beside others."""
    rows = [torch.randn(n, DIM, generator=torch.Generator().manual_seed(n)) for n in lengths]
    nothing = torch.zeros(0, DIM)
    return [Stream(nothing, row) if lm.config.cross_attention else Stream(row, nothing) for row in rows]


def nulls(lengths):
    return [Stream(torch.zeros(0, DIM), torch.zeros(0, DIM))] * len(lengths)
