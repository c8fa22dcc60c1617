"""Names and shapes of every weight under the one naming that the engine uses."""

from ...config import CodecConfig, LMConfig, ModelConfig

Shapes = dict[str, tuple[int, ...]]


def lm_shapes(config: LMConfig) -> Shapes:
    """The language model's weights. D width, K codebooks, c entries of a codebook, F width of the feed-forward."""
    dim, n_codebooks, cardinality = config.dim, config.n_codebooks, config.cardinality
    shapes: Shapes = {"embeddings": (n_codebooks, cardinality + 1, dim)}
    for i in range(config.n_layers):
        layer = f"layers.{i}."
        shapes |= _norm(layer + "norm_self", dim)
        shapes |= {layer + "qkv.weight": (3 * dim, dim), layer + "out.weight": (dim, dim)}
        if config.cross_attention:
            shapes |= _norm(layer + "norm_cross", dim)
            shapes |= {layer + "cross_q.weight": (dim, dim), layer + "cross_kv.weight": (2 * dim, dim)}
            shapes |= {layer + "cross_out.weight": (dim, dim)}
        shapes |= _norm(layer + "norm_ffn", dim)
        shapes |= {layer + "up.weight": (config.ffn_dim, dim), layer + "down.weight": (dim, config.ffn_dim)}
    return shapes | _norm("norm", dim) | {"heads.weight": (n_codebooks * cardinality, dim)}


def conditioner_shapes(config: ModelConfig) -> Shapes:
    """The projections of the text's and the melody's features to the model's width."""
    dim = config.lm.dim
    shapes: Shapes = {"text_projection.weight": (dim, config.text.dim), "text_projection.bias": (dim,)}
    if config.melody:
        shapes |= {"melody_projection.weight": (dim, config.melody.n_chroma), "melody_projection.bias": (dim,)}
    return shapes


def codec_shapes(config: CodecConfig) -> Shapes:
    """EnCodec's weights with weight norm folded in, under the names of transformers' EncodecModel."""
    width, n_ratios = config.n_filters, len(config.ratios)
    shapes = _conv("encoder.layers.0", 1, width, config.kernel_size)
    index = 1
    for ratio in reversed(config.ratios):
        for _ in range(config.n_residual_layers):
            shapes |= _residual(f"encoder.layers.{index}", width, config)
            index += 1
        shapes |= _conv(f"encoder.layers.{index + 1}", width, 2 * width, 2 * ratio)  # index: an activation
        width, index = 2 * width, index + 2
    shapes |= _lstm(f"encoder.layers.{index}", width, config.lstm_layers)
    shapes |= _conv(f"encoder.layers.{index + 2}", width, config.latent_dim, config.last_kernel_size)

    width = config.n_filters * 2**n_ratios
    shapes |= _conv("decoder.layers.0", config.latent_dim, width, config.kernel_size)
    shapes |= _lstm("decoder.layers.1", width, config.lstm_layers)
    index = 2
    for ratio in config.ratios:
        name = f"decoder.layers.{index + 1}.conv"
        shapes |= {f"{name}.weight": (width, width // 2, 2 * ratio), f"{name}.bias": (width // 2,)}
        width, index = width // 2, index + 2
        for _ in range(config.n_residual_layers):
            shapes |= _residual(f"decoder.layers.{index}", width, config)
            index += 1
    shapes |= _conv(f"decoder.layers.{index + 1}", width, 1, config.last_kernel_size)

    for q in range(config.n_codebooks // config.channels):
        shapes[f"quantizer.layers.{q}.codebook.embed"] = (config.codebook_size, config.latent_dim)
    return shapes


def _norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _conv(name: str, n_in: int, n_out: int, kernel: int) -> Shapes:
    return {f"{name}.conv.weight": (n_out, n_in, kernel), f"{name}.conv.bias": (n_out,)}


def _residual(name: str, width: int, config: CodecConfig) -> Shapes:
    hidden = width // config.compress
    shapes = _conv(f"{name}.block.1", width, hidden, config.residual_kernel_size)
    shapes |= _conv(f"{name}.block.3", hidden, width, 1)
    if config.conv_shortcut:
        shapes |= _conv(f"{name}.shortcut", width, width, 1)
    return shapes


def _lstm(name: str, width: int, n_layers: int) -> Shapes:
    shapes: Shapes = {}
    for layer in range(n_layers):
        for side in ("ih", "hh"):
            shapes[f"{name}.lstm.weight_{side}_l{layer}"] = (4 * width, width)
        for side in ("ih", "hh"):
            shapes[f"{name}.lstm.bias_{side}_l{layer}"] = (4 * width,)
    return shapes
