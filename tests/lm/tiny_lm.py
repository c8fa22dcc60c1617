"""Language models of MusicGen's structure that a test can afford. Not a test; loaded by those that need one."""

import torch
from comfyui_musicgen.musicgen import accel
from comfyui_musicgen.musicgen.config import LMConfig, delays_for
from comfyui_musicgen.musicgen.lm import LM, Int8Linear, Linear, Stream, quantize_linears

DIM, CARD = 48, 96


def make(cross=True, precision="float32", n_codebooks=4, n_heads=3, n_layers=3, layout="plain"):
    """Always the same random weights; cross: the text is attended to, else it stands in front of the codes.

    layout: "plain", or "stock" for the layers of `accel.stock`.
    """
    torch.manual_seed(0)
    config = LMConfig(
        DIM, n_heads, n_layers, 4 * DIM, n_codebooks, CARD, delays_for(n_codebooks, n_codebooks // 4), cross
    )
    lm = LM(config).eval().requires_grad_(False)
    for name, parameter in lm.named_parameters():
        parameter.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.2 if "embed" in name else 0.08)
    if precision == "int8":
        quantize_linears(lm.layers)
        lm.heads.half()
    elif precision != "float32":
        for module in lm.modules():
            if isinstance(module, Linear):
                module.to(getattr(torch, precision))
    if layout == "stock":
        accel.stock.replace_linears(lm)
    return lm


def widened(lm):
    """The same weights in float32."""
    exact = make(lm.config.cross_attention, n_heads=lm.config.n_heads, n_layers=lm.config.n_layers)
    for ours, theirs in zip(lm.modules(), exact.modules(), strict=True):
        if isinstance(ours, Linear | Int8Linear):
            theirs.weight.data = ours.dequantized()
    return exact


def streams(lm, lengths):
    """A text for each number of tokens, the same one alone and beside others."""
    rows = [torch.randn(n, DIM, generator=torch.Generator().manual_seed(n)) for n in lengths]
    nothing = torch.zeros(0, DIM)
    return [Stream(nothing, row) if lm.config.cross_attention else Stream(row, nothing) for row in rows]


def nulls(lengths):
    return [Stream(torch.zeros(0, DIM), torch.zeros(0, DIM))] * len(lengths)


def codes_of(n_rows, n_columns, n_codebooks=4):
    """The same random codes in every row, [R, K, S]."""
    row = torch.randint(CARD, (1, n_codebooks, n_columns), generator=torch.Generator().manual_seed(3))
    return row.expand(n_rows, -1, -1)


@torch.inference_mode()
def logits_of(stepper, streams, n_known=1, n=12):
    """Logits of a prompt of n_known columns and of each column after it: [R, K, n - n_known + 1, cardinality]."""
    codes = codes_of(len(streams), n)
    with stepper:
        stepper.start(streams, n)
        logits = [stepper.take_in(codes[..., :n_known]).clone()]
        logits += [stepper.take_in(codes[..., i : i + 1]).clone() for i in range(n_known, n)]
    return torch.stack(logits, dim=2)
