"""The text encoder: what tokenizers of a T5 it takes, and what ids they give."""

import base64
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints import open_checkpoint
from comfyui_musicgen.musicgen.checkpoints.formats.t5 import read_t5
from comfyui_musicgen.musicgen.conditioning import Tokenizer
from comfyui_musicgen.musicgen.conditioning.tokenizer import read_tokenizer
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.store.published import SHIPPED
from safetensors.torch import load_file

SMALL = {"dim": 16, "n_heads": 2, "n_layers": 1, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
TEXTS = ["", " ", "a drum", "a  drum ", "느린 판소리", "½ ﬁne", "<extra_id_3> x", "x" * 300]


def charsmap(replaced: str, replacement: str) -> str:
    """A Precompiled normalizer that replaces one ASCII character. Source: darts-clone's double array."""
    units = [0] * 512
    leaf = 256 ^ ord(replaced)
    units[0] = 256 << 10
    units[leaf] = ord(replaced) | 1 << 8 | 1 << 10
    units[leaf ^ 1] = 1 << 31  # the first of the replacements
    return base64.b64encode(struct.pack("<I512I", 2048, *units) + replacement.encode() + b"\0").decode()


def t5_tokenizer() -> dict:
    """The parts of t5-base's tokenizer.json, with a vocabulary of a few pieces."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", "a", "d", "r", "u", "m", "▁drum", "x"]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    single, pair = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}
    metaspace = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "prepend_scheme": "always"}
    return {
        "version": "1.0",
        "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **special} for i, text in enumerate(pieces[:3])],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap("D", "d")},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [single, end],
            "pair": [single, end, pair, end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": [[piece, -float(i)] for i, piece in enumerate(pieces)]},
    }


def load(table: dict, vocab_size: int = 32) -> Tokenizer:
    return Tokenizer(json.dumps(table), "tokenizer.json", vocab_size)


def test_the_tokenizer_of_a_t5_is_taken_and_never_truncates():
    tokenizer = load(t5_tokenizer())
    assert tokenizer.ids("Drum a  drum") == [9, 3, 4, 9, 1]
    assert tokenizer.ids("") == [1]


def test_flan_t5_s_normalizers_are_taken():
    table = t5_tokenizer()
    strip = {"type": "Strip", "strip_left": False, "strip_right": True}
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}
    table["normalizer"] = {"type": "Sequence", "normalizers": [table["normalizer"], strip, spaces]}
    assert load(table).ids("Drum  a ") == [*load(t5_tokenizer()).ids("Drum")[:-1], 3, 4, 1]


def test_the_ids_are_those_of_the_library_for_the_shipped_and_for_t5_itself():
    tokenizers = pytest.importorskip("tokenizers")
    root = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
    t5 = root / "comfy" / "text_encoders" / "t5_tokenizer" / "tokenizer.json"
    sources = [open_checkpoint(shipped).text_encoder for shipped in SHIPPED.values()]
    tables = [(source.tokenizer_json, source.config["vocab_size"]) for source in sources]
    tables += [(t5.read_text(encoding="utf-8"), 32128)] if t5.is_file() else []
    for text, vocab_size in tables:
        ours, theirs = Tokenizer(text, "tokenizer.json", vocab_size), tokenizers.Tokenizer.from_str(text)
        assert [ours.ids(text) for text in TEXTS] == [theirs.encode(text).ids for text in TEXTS]


def test_the_encoder_is_transformers_own(toys):
    from transformers import AutoTokenizer, T5EncoderModel

    folder = toys(**SMALL) / "text_encoder"
    encoder = loading.load(folder.parent, "float32").conditioner.text_encoder
    tokens = AutoTokenizer.from_pretrained(folder)(["a drum"], return_tensors="pt")
    with torch.inference_mode():
        expected = T5EncoderModel.from_pretrained(folder)(**tokens).last_hidden_state[0]
        assert torch.equal(encoder("a drum"), expected)


def test_a_text_encoder_saved_by_torch_is_read(toys, tmp_path):
    source = toys(**SMALL) / "text_encoder"
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    torch.save(load_file(source / "model.safetensors"), tmp_path / "pytorch_model.bin")
    ours, theirs = read_t5(tmp_path).weights, read_t5(source).weights
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name].read(), theirs[name].read()) for name in ours)


UNFIT = {
    "no end": (lambda t: t["post_processor"].update(single=t["post_processor"]["single"][:1]), "SpecialToken|</s>"),
    "random": (lambda t: t.update(model={"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5}), "random"),
    "regular expression": (
        lambda t: t.update(normalizer={"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": ""}),
        "regular expression",
    ),
    "growth": (
        lambda t: t.update(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 999}),
        "999 characters of one",
    ),
    "growth of the charsmap": (
        lambda t: t["normalizer"].update(precompiled_charsmap=charsmap("D", "d" * 99)),
        "by 99 bytes",
    ),
    "a charsmap cut off": (lambda t: t["normalizer"].update(precompiled_charsmap="////f2FiYw=="), "cut off"),
    "ids": (lambda t: t["added_tokens"][0].update(id=32), "0 to 32, but the encoder's embedding has 32"),
    "scores": (lambda t: t["model"]["vocab"][3].__setitem__(1, float("nan")), "no number"),
    "a long piece": (lambda t: t["model"]["vocab"].append(["a" * 999, 0.0]), "too long"),
    "parts": (lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "a"}}), "'Split'"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_no_tokenizer_of_a_t5_is_is_refused(kind):
    change, words = UNFIT[kind]
    table = t5_tokenizer()
    change(table)
    with pytest.raises(CheckpointError, match=rf"tokenizer\.json is no tokenizer of a T5 .*({words})"):
        load(table)


def test_a_panic_at_the_first_text_is_an_error_of_the_file():
    table = t5_tokenizer()
    trie = struct.pack("<4I", 2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1)
    text = base64.b64encode(struct.pack("<I", len(trie)) + trie + b"a\0").decode()
    table["normalizer"]["precompiled_charsmap"] = text
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load(table).ids("a drum")


@pytest.mark.parametrize("text", ["x " * 2049, "x" * 100_000, "\ud800"])
def test_texts_that_no_model_was_trained_for_are_refused(text):
    with pytest.raises(InputError, match="'text'"):
        load(t5_tokenizer()).ids(text)


def test_a_tokenizer_of_sentencepiece_alone_is_read(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    (tmp_path / "texts").write_text("\n".join(f"a slow drum {i} over the sea, voice {i * 7 % 31}" for i in range(300)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts"), model_prefix=str(tmp_path / "spiece"), vocab_size=60, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / "spiece.model"))
    ours = Tokenizer(read_tokenizer(tmp_path), "spiece.model", 200)
    for text in ("a slow drum", "the  voice over"):
        assert ours.ids(text) == [*theirs.encode(text), 1]
    (tmp_path / "spiece.model").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"spiece\.model"):
        read_tokenizer(tmp_path)
