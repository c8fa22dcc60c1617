"""Names and shapes of every weight of a MultiBand Diffusion model. The U-Net's names are audiocraft's."""

from ..checkpoints.weights.layout import Shapes
from .config import N_STEPS, BandConfig, ProcessorConfig, UnetConfig

_N_LAYERS, _FFN_DIM = 6, 2048  # of the transformer


def band_shapes(config: BandConfig) -> Shapes:
    """One band's weights."""
    shapes = {f"unet.{name}": shape for name, shape in unet_shapes(config.unet).items()}
    if config.processor:
        shapes |= {f"processor.{name}": shape for name, shape in processor_shapes(config.processor).items()}
    return shapes


def unet_shapes(config: UnetConfig) -> Shapes:
    widths = config.widths
    shapes: Shapes = {}
    for level, (n_in, n_out) in enumerate(zip((1, *widths), widths)):
        encoder, decoder = f"encoders.{level}", f"decoders.{config.depth - 1 - level}"
        shapes[f"{encoder}.conv.weight"] = (n_out, n_in, config.kernel)
        shapes[f"{decoder}.convtr.weight"] = (n_out, n_in, config.kernel)
        for side in (encoder, decoder):
            shapes |= _norm(f"{side}.norm", n_out)
            for block in range(config.res_blocks):
                for part in ("1", "2"):
                    name = f"{side}.res_blocks.{block}"
                    shapes |= _norm(f"{name}.norm{part}", n_out)
                    shapes |= {f"{name}.conv{part}.weight": (n_out, n_out, 3), f"{name}.conv{part}.bias": (n_out,)}
        if level == 0:
            shapes["embedding.weight"] = (N_STEPS, n_out)
        elif config.emb_all_layers:
            shapes[f"embeddings.{level - 1}.weight"] = (N_STEPS, n_out)
    shapes |= {"conv_codec.weight": (widths[-1], config.codec_dim, 1), "conv_codec.bias": (widths[-1],)}
    if config.transformer:
        return shapes | _transformer(widths[-1], config.cross_attention)
    return shapes | (_bilstm(widths[-1]) if config.bilstm else {})


def processor_shapes(config: ProcessorConfig) -> Shapes:
    shapes: Shapes = {"counts": (1,), "filters": (config.n_bands - 1, 1, config.n_taps)}
    return shapes | dict.fromkeys(("sum_x", "sum_x2", "sum_target_x2"), (config.n_bands,))


def _transformer(width: int, cross_attention: bool) -> Shapes:
    shapes: Shapes = {}
    for index in range(_N_LAYERS):
        layer = f"transformer.layers.{index}"
        for name in ("self_attn", "cross_attention") if cross_attention else ("self_attn",):
            shapes[f"{layer}.{name}.mha.in_proj_weight"] = (3 * width, width)
            shapes[f"{layer}.{name}.mha.out_proj.weight"] = (width, width)
        for name in ("norm1", "norm2", "norm_cross") if cross_attention else ("norm1", "norm2"):
            shapes |= _norm(f"{layer}.{name}", width)
        shapes |= {f"{layer}.linear1.weight": (_FFN_DIM, width), f"{layer}.linear2.weight": (width, _FFN_DIM)}
    return shapes


def _bilstm(width: int) -> Shapes:
    shapes: Shapes = {"bilstm.linear.weight": (width, 2 * width), "bilstm.linear.bias": (width,)}
    for layer in range(2):
        for end in (f"l{layer}", f"l{layer}_reverse"):
            n_in = width * (1 + layer)
            shapes |= {f"bilstm.lstm.weight_ih_{end}": (4 * width, n_in)}
            shapes |= {f"bilstm.lstm.weight_hh_{end}": (4 * width, width)}
            shapes |= {f"bilstm.lstm.bias_{side}_{end}": (4 * width,) for side in ("ih", "hh")}
    return shapes


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
