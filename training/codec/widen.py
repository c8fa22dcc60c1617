"""A trained codec in a wider one that gives back the same sound: the run of the wider one begins where the other ended.

Source: T. Chen, I. Goodfellow, J. Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer" (arXiv:1511.05641), with
new channels in place of copies.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ...musicgen.codec import Codec
from ...musicgen.config import CodecConfig
from ...musicgen.errors import InputError

_OUTGOING = 1e-3  # of a new channel's usual weights: what it gives is not heard yet, and weight norm divides by no zero
_GATES = 4  # of an LSTM's rows


@torch.no_grad()
def widened(codec: Codec, config: CodecConfig, seed: int = 0) -> Codec:
    """`codec` with the channels of `config`, the new ones behind the old. InputError if more than the width differs, or it is less."""
    same = {"n_filters": codec.config.n_filters, "fingerprint": codec.config.fingerprint}
    if replace(config, **same) != codec.config or config.n_filters < codec.config.n_filters:
        raise InputError(
            f"the codec to begin with has other sizes ({codec.config}) than this recipe ({config}), or is wider. "
            "Only n_filters may differ."
        )
    if config.n_filters == codec.config.n_filters:
        return codec
    generator = torch.Generator().manual_seed(seed)
    result = Codec(config)
    for ours, theirs in zip(result.modules(), codec.modules(), strict=True):
        if isinstance(ours, nn.LSTM):
            for wide, narrow in zip(ours.parameters(), theirs.parameters(), strict=True):
                gates = (
                    wide.view(_GATES, -1, *wide.shape[1:]).unbind(),
                    narrow.view(_GATES, -1, *narrow.shape[1:]).unbind(),
                )
                for part, old in zip(*gates, strict=True):
                    _fill(part, old, 0, generator)
        elif isinstance(ours, nn.Conv1d | nn.ConvTranspose1d):
            output_axis = 1 if isinstance(ours, nn.ConvTranspose1d) else 0
            _fill(ours.weight, theirs.get_parameter("weight"), output_axis, generator)
            if ours.bias is not None:
                _fill(ours.bias, theirs.get_parameter("bias"), 0, generator)
    for ours, theirs in zip(result.quantizer.layers, codec.quantizer.layers, strict=True):
        ours.codebook.embed.copy_(theirs.codebook.embed)
    return result


def _fill(wide: Tensor, narrow: Tensor, output_axis: int, generator: torch.Generator) -> None:
    """The old weights in the corner; new outputs as spread as the old ones, but next to nothing from new inputs to old outputs."""
    spread = narrow.std(correction=0).clamp(min=1e-6)
    wide.normal_(0.0, float(spread), generator=generator)
    old_outputs = wide.narrow(output_axis, 0, narrow.shape[output_axis])
    old_outputs.mul_(_OUTGOING)
    wide[tuple(slice(size) for size in narrow.shape)].copy_(narrow)
