"""The text encoder: a tokenizer learnt from the descriptions, and a T5 encoder of a few layers, trained with the LM.

Both in the form of every other T5: tokenizer.json that ends a text with `</s>`, and transformers' T5EncoderModel.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...musicgen.dependencies import require
from ..data.pieces import draw_label
from ..data.words import describe
from ..recipe import TEXT_DIM, TEXT_LAYERS

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2: those of T5
_VOCABULARY, _N_TEXTS = 600, 20_000
NUMBERS = range(10, 250)  # of beats a minute


def train_tokenizer(seed: int = 0, texts: Iterator[str] | None = None, vocabulary: int = _VOCABULARY) -> str:
    """The text of a tokenizer.json: byte-level BPE over lower-case descriptions, numbers of two and three digits whole.

    texts: what to learn it from; None: descriptions of pansori.

    Nearly every word of the descriptions is one token, so their lengths differ little; other words fall into pieces.
    """
    library = require("tokenizers", "Training the tokenizer")
    pre, processors = library.pre_tokenizers, require("tokenizers.processors", "Training the tokenizer", "tokenizers")
    tokenizer = library.Tokenizer(library.models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = library.normalizers.Sequence(
        [
            library.normalizers.NFC(),
            library.normalizers.Lowercase(),
            library.normalizers.Strip(),
            library.normalizers.Prepend(" "),
        ]
    )
    tokenizer.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, UNKNOWN],
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed) if texts is None else texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return with_numbers(tokenizer.to_str())


def with_numbers(tokenizer_json: str) -> str:
    """The tokenizer of digits one by one, with a token for each of NUMBERS after all others; other numbers fall into these.

    From digits a small encoder learnt which a number has and not their order: 142 bpm was read as 124, 160 as 106.
    """
    table = json.loads(tokenizer_json)
    vocabulary, merges = table["model"]["vocab"], table["model"]["merges"]
    for number in map(str, NUMBERS):
        vocabulary.setdefault(number, len(vocabulary))
        merges += [[number[:i], number[i:]] for i in range(1, len(number)) if number[i] != "0" or i == len(number) - 1]
    for step in table["pre_tokenizer"]["pretokenizers"]:
        if step["type"] == "Digits":
            step["individual_digits"] = False
    return json.dumps(table, ensure_ascii=False)


def t5_table(tokenizer_json: str) -> dict:
    """The settings of the encoder, as `t5_config` has them."""
    return {
        "vocab_size": len(json.loads(tokenizer_json)["model"]["vocab"]),
        "d_model": TEXT_DIM,
        "d_kv": 32,
        "d_ff": 2 * TEXT_DIM,
        "num_layers": TEXT_LAYERS,
        "num_heads": TEXT_DIM // 32,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
    }


class Texts:
    """Token ids of texts, by the very tokenizer that will be shipped."""

    def __init__(self, tokenizer_json: str) -> None:
        self._tokenizer = require("tokenizers", "Reading texts").Tokenizer.from_str(tokenizer_json)

    def ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids


class TextEncoder(nn.Module):
    """T5EncoderModel for texts of one length: ids [B, n] -> hidden states [B, n, t]."""

    def __init__(self, table: Mapping) -> None:
        super().__init__()
        library = require("transformers.models.t5.modeling_t5", "The text encoder", "transformers")
        self.t5 = library.T5EncoderModel(library.T5Config(**table, dropout_rate=0.0))

    def forward(self, ids: Sequence[Sequence[int]]) -> Tensor:
        tokens = torch.tensor(ids, device=self.t5.shared.weight.device)
        return self.t5(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state

    def weights(self) -> dict[str, Tensor]:
        """Under the names of T5EncoderModel, the embedding once."""
        return {name: tensor for name, tensor in self.t5.state_dict().items() if name != "encoder.embed_tokens.weight"}


def _texts(seed: int) -> Iterator[str]:
    rng = np.random.Generator(np.random.PCG64(seed))
    for _ in range(_N_TEXTS):
        yield describe(draw_label(rng), rng)
