"""One language model of musicgen's shape with random weights, in three engines.

Each builder returns (run, lm): run(frames, prompt_frames, on_step) writes `frames` of codes after a random prompt of
`prompt_frames`, with text of 12 tokens, guidance 3 and top-k 250, and calls on_step(done, total) after steps.
"""

import contextlib

from harness import load_pack

SIZES = {"tiny": (256, 4, 4), "small": (1024, 16, 24), "medium": (1536, 24, 48), "large": (2048, 32, 48)}
N_TEXT, CFG, TOP_K, CARD, K, RATE_HZ = 12, 3.0, 250, 2048, 4, 50


def native_lm(size, precision, device="cpu", scale=0.02):
    """This engine's language model, made layer by layer."""
    load_pack()
    import torch
    from pack.musicgen import accel
    from pack.musicgen.config import LMConfig
    from pack.musicgen.lm import LM, quantize_linears, storage_dtype
    from pack.musicgen.memory import release_freed_memory

    dim, heads, layers = SIZES[size]
    with torch.device("meta"):
        lm = LM(LMConfig(dim, heads, layers, 4 * dim, K, CARD, (0, 1, 2, 3), True))
    generator = torch.Generator().manual_seed(0)
    for module in [*lm.layers, lm]:
        for child in module.modules():
            for name, parameter in child.named_parameters(recurse=False):
                if not parameter.is_meta:
                    continue
                dtype = storage_dtype(precision) if parameter.ndim == 2 else torch.float32
                if module is lm and precision != "float32" and parameter.ndim == 2:
                    dtype = torch.float16
                filled = torch.empty(parameter.shape).normal_(0, scale, generator=generator).to(dtype)
                if isinstance(child, torch.nn.LayerNorm):
                    filled.add_(1.0 if name == "weight" else 0.0)
                setattr(child, name, torch.nn.Parameter(filled, requires_grad=False))
        if precision == "int8" and module is not lm:
            quantize_linears(module, torch.float16 if device == "cuda" else torch.float32)
        accel.prepare(module, lm.config, device)
        release_freed_memory()
    return lm.eval().to(device)


def native(size, batch, precision, device):
    """This engine."""
    lm = native_lm(size, precision, device)
    import torch
    from pack.musicgen import accel
    from pack.musicgen.lm import PlainStepper, RowNoise, Sampling, Stream, generate_codes

    if precision != "float32" and device == "cpu":
        accel.numba.load_kernels()  # a library, as torch is; the tiny model that is run first has no use for it
    nothing = torch.zeros(0, SIZES[size][0])
    rows = [Stream(nothing, torch.randn(N_TEXT, SIZES[size][0]))] * batch
    null = [Stream(nothing, nothing)] * batch
    noise = RowNoise(0, batch, K, CARD)

    def run(frames, prompt_frames, on_step):
        prompt = torch.randint(CARD, (batch, K, prompt_frames)) if prompt_frames else None
        with accel.choose(lm, 2 * batch, lm.device) or PlainStepper(lm) as stepper:
            generate_codes(
                lm, rows, null, prompt_frames + frames, Sampling(TOP_K), noise, CFG, prompt=prompt, stepper=stepper,
                on_step=lambda done, total: on_step(done, total) if done else None,
            )  # fmt: skip

    return run, lm


def stock(size, batch, precision, device):
    """This engine, without Numba."""
    load_pack()
    from pack.musicgen import accel

    accel.numba.load_kernels = lambda: None
    return native(size, batch, precision, device)


def audiocraft(size, batch, precision, device):
    """Meta's library: float32 on the CPU, float16 autocast on CUDA, as it runs there."""
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
        positional_embedding="sin", dropout=0.0, dtype=torch.float16 if device == "cuda" else torch.float32,
    ).eval().to(device)  # fmt: skip
    text = torch.randn(1, N_TEXT, dim, device=device)
    rows = torch.cat([text.expand(batch, -1, -1), torch.zeros(batch, N_TEXT, dim, device=device)])
    lm.condition_provider.tokenize = lambda conditions: {}
    lm.condition_provider.forward = lambda tokenized: {
        "description": (rows, torch.ones(2 * batch, N_TEXT, device=device))
    }
    conditions = [ConditioningAttributes(text={"description": "x"})] * batch
    cast = torch.autocast(device, torch.float16) if device == "cuda" else contextlib.nullcontext()

    def run(frames, prompt_frames, on_step):
        prompt = torch.randint(CARD, (batch, K, prompt_frames), device=device) if prompt_frames else None
        with cast:
            lm.generate(
                prompt, conditions, max_gen_len=prompt_frames + frames, top_k=TOP_K, cfg_coef=CFG, callback=on_step
            )

    return run, lm


def transformers(size, batch, precision, device):
    """Hugging Face's implementation, with its own sampling loop; its text encoder and codec are tiny here."""
    import torch
    from transformers import EncodecConfig, LogitsProcessor, MusicgenConfig, MusicgenDecoderConfig, T5Config
    from transformers import MusicgenForConditionalGeneration as Musicgen

    dim, heads, layers = SIZES[size]
    decoder = MusicgenDecoderConfig(
        vocab_size=CARD, hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads, ffn_dim=4 * dim,
        num_codebooks=K, max_position_embeddings=2048, layerdrop=0.0, dropout=0.0,
    )  # fmt: skip
    text = T5Config(vocab_size=64, d_model=768, d_kv=64, d_ff=64, num_layers=1, num_heads=2)
    codec = EncodecConfig(
        target_bandwidths=[2.2], sampling_rate=32000, num_filters=4, codebook_size=CARD, upsampling_ratios=[8, 5, 4, 4],
        use_causal_conv=False, num_lstm_layers=1, hidden_size=128, codebook_dim=128,
    )  # fmt: skip
    dtype = torch.float16 if device == "cuda" else torch.float32
    model = Musicgen(
        MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())
    )
    model = model.eval().to(device, dtype)
    for config in (model.generation_config, model.config):
        config.decoder_start_token_id = config.pad_token_id = config.bos_token_id = CARD

    class Count(LogitsProcessor):
        def __call__(self, ids, scores):
            self.done += 1
            self.on_step(self.done, 0)
            return scores

    def run(frames, prompt_frames, on_step):
        count = Count()
        count.on_step, count.done = on_step, 0
        given = {}
        if prompt_frames:
            given["decoder_input_ids"] = torch.randint(CARD, (batch * K, prompt_frames), device=device)
        model.generate(
            torch.full((batch, N_TEXT), 5, device=device), guidance_scale=CFG, do_sample=True, top_k=TOP_K,
            max_new_tokens=frames + 3, logits_processor=[count], **given,
        )  # fmt: skip

    return run, model.decoder


ENGINES = {"native": native, "stock": stock, "audiocraft": audiocraft, "transformers": transformers}
