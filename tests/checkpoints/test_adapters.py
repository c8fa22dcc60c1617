"""Adapters of PEFT: weights and logits are those of PEFT's own merge, for each of its options."""

import copy

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints import blend, open_checkpoint, open_fine_tune
from comfyui_musicgen.musicgen.checkpoints.formats.peft_names import places
from comfyui_musicgen.musicgen.lm import Stream
from comfyui_musicgen.tests.toy.adapters import (
    CASES,
    PLAIN,
    SMALL,
    base_model,
    logits_of,
    make_adapter,
    merged,
    other_form,
    peft,
)
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def models(toys):
    """The options of a toy -> its folder, transformers' model of it, the engine's. Each is made once."""
    made: dict = {}

    def model(options: dict):
        key = str(options)
        if key not in made:
            folder = toys(**SMALL, **options, format="huggingface")
            made[key] = folder, base_model(folder), loading.load(folder, "float32")
        return made[key]

    return model


@pytest.fixture(scope="module")
def made(models, tmp_path_factory):
    """A case's name -> its base's folder, transformers' model, the engine's; the adapter's folder, PEFT's model with it."""
    peft()
    root, table = tmp_path_factory.mktemp("adapters"), {}

    def make(name: str):
        if name not in table:
            options, config = CASES[name]
            folder, model, loaded = models(options)
            table[name] = folder, model, loaded, root / name, make_adapter(model, root / name, **config)
        return table[name]

    return make


def read_as_theirs(checkpoint) -> dict[str, torch.Tensor]:
    """Language model and projections under the names of transformers."""
    table = {}
    for name, place in places(checkpoint.config).items():
        weight = getattr(checkpoint, place.part)[place.weight]
        n_rows = 1 if place.is_embedding else place.shape[0]
        table[name] = weight.rows(place.first_row, place.first_row + n_rows).read().reshape(place.shape)
    return table


def engine_logits(model, conditioner, text: str, codes: torch.Tensor) -> torch.Tensor:
    row, none = conditioner.encode_text([text]), torch.zeros(0, SMALL["dim"])
    cross = model.config.lm.cross_attention
    with torch.no_grad():
        return model.lm(codes, [Stream(none, row.text[0]) if cross else Stream(row.prefix(0), none)])


def far(one: dict, other: dict) -> float:
    assert one.keys() <= other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize("name", CASES)
def test_weights_and_logits_are_those_of_peft(made, name):
    folder, model, loaded, adapter, wrapped = made(name)
    base = open_checkpoint(folder)
    blended = blend(base, open_fine_tune(adapter, base), 1.0)
    expected = merged(wrapped)
    assert far(read_as_theirs(blended), expected) < 1e-6
    tuned = loading.apply_fine_tune(loaded.model, loaded.conditioner, adapter, 1.0)
    ids = list(loaded.conditioner.text_encoder.tokenizer.ids("a drum"))
    shape = (1, base.config.lm.n_codebooks, 7)
    codes = torch.randint(0, SMALL["cardinality"], shape, generator=torch.Generator().manual_seed(1))
    theirs, before = logits_of(wrapped, ids, codes), logits_of(model, ids, codes)
    assert (engine_logits(*tuned, "a drum", codes) - theirs).abs().max() < 1e-4
    assert (theirs - before).abs().max() > 1, "the adapter is heard"
    unchanged = loading.apply_fine_tune(loaded.model, loaded.conditioner, adapter, 0)
    assert unchanged == (loaded.model, loaded.conditioner)
    assert (engine_logits(*unchanged, "a drum", codes) - before).abs().max() < 1e-4


@pytest.mark.parametrize("name, n_changed", [("plain", 29), ("melody", 22)])
def test_every_target_is_changed_and_nothing_else(made, name, n_changed):
    folder, _, _, adapter, _ = made(name)
    base = open_checkpoint(folder)
    before, after = read_as_theirs(base), read_as_theirs(blend(base, open_fine_tune(adapter, base), 1.0))
    assert sum(not torch.equal(before[key], after[key]) for key in before) == n_changed


@pytest.mark.parametrize("strength", [-2, -1, 0.5, 1, 2])
@pytest.mark.parametrize("name", ["plain", "dora", "modules-to-save", "bias-all"])
def test_weights_lie_on_the_line_from_the_base_through_peft_s(made, name, strength):
    folder, _, _, adapter, wrapped = made(name)
    base = open_checkpoint(folder)
    before, whole = read_as_theirs(base), merged(wrapped)
    expected = {key: before[key] + strength * (whole[key] - before[key]) for key in before}
    assert far(read_as_theirs(blend(base, open_fine_tune(adapter, base), strength)), expected) < 2e-6


def test_rank_stabilised_is_another_scale(made):
    plain, root = (merged(made(name)[-1])["decoder.lm_heads.0.weight"] for name in ("plain", "rslora"))
    before = made("plain")[1].state_dict()["decoder.lm_heads.0.weight"]
    assert torch.allclose(root - before, 2 * (plain - before), atol=1e-6)  # alpha / sqrt(4) over alpha / 4


@pytest.mark.parametrize("form", ["decoder", "named", "float16", "bfloat16", "bin"])
def test_other_forms_of_the_same_adapter(made, models, tmp_path, form):
    folder, model, _, plain, wrapped = made("plain")
    base, expected = open_checkpoint(folder), merged(wrapped)
    if form == "decoder":
        wrapped = make_adapter(model, tmp_path / "a", part=lambda model: model.decoder, **PLAIN)
        own = {f"decoder.{key}": value for key, value in merged(wrapped).items()}
        expected = {**model.state_dict(), **own}
    elif form == "named":
        expected = merged(make_adapter(model, tmp_path / "a", name="pansori", **PLAIN))
        assert (tmp_path / "a" / "pansori" / "adapter_config.json").is_file()
    else:
        other_form(plain, tmp_path / "a", form)
    read = read_as_theirs(blend(base, open_fine_tune(tmp_path / "a", base), 1.0))
    # Rounded files: B A of 4 products of numbers up to 0.5, at scale 2.
    assert far(read, expected) < {"float16": 2e-3, "bfloat16": 1.6e-2}.get(form, 1e-6)


@pytest.mark.parametrize("strengths", [(1, 1), (0.5, -0.7), (-1, 2)])
def test_several_in_a_row_are_peft_s_combination(made, tmp_path, strengths):
    folder, model, _, first, _ = made("plain")
    make_adapter(model, tmp_path / "b", seed=7, **{**PLAIN, "r": 2, "target_modules": ["q_proj", "fc1", "lm_heads.1"]})
    both = peft().PeftModel.from_pretrained(copy.deepcopy(model), first, adapter_name="a")
    both.load_adapter(tmp_path / "b", adapter_name="b")
    both.add_weighted_adapter(["a", "b"], list(strengths), "sum", combination_type="cat")
    expected = both.merge_and_unload(adapter_names=["sum"]).state_dict()
    base = open_checkpoint(folder)
    one, other = (open_fine_tune(path, base) for path in (first, tmp_path / "b"))
    chained = blend(blend(base, one, strengths[0]), other, strengths[1])
    turned = blend(blend(base, other, strengths[1]), one, strengths[0])
    assert far(read_as_theirs(chained), read_as_theirs(turned)) < 1e-6
    assert far(read_as_theirs(chained), expected) < 2e-6
    assert chained.config.name.count(" + ") == 2


@pytest.mark.parametrize("options", [{}, {"melody": True}, {"stereo": True}], ids=["small", "melody", "stereo"])
def test_a_base_in_audiocraft_s_format_becomes_the_same_model(made, toys, options):
    name = {"": "plain", "melody": "melody", "stereo": "stereo"}["".join(options)]
    folder, _, _, adapter, _ = made(name)
    ours, theirs = open_checkpoint(toys(**SMALL, **options)), open_checkpoint(folder)
    one, other = (blend(base, open_fine_tune(adapter, base), 0.7) for base in (ours, theirs))
    for part in ("lm", "conditioner"):
        for key, weight in getattr(one, part).items():
            assert torch.equal(weight.read(), getattr(other, part)[key].read()), key


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_other_precisions_are_the_float_weights_rounded_once(made, tmp_path, precision):
    folder, _, _, adapter, _ = made("plain")
    loaded = loading.load(folder, precision)
    state = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    model, _ = loading.apply_fine_tune(loaded.model, loaded.conditioner, adapter, -0.6)
    base = open_checkpoint(folder)
    exact = read_as_theirs(blend(base, open_fine_tune(adapter, base), -0.6))
    save_file({name: tensor.contiguous() for name, tensor in exact.items()}, tmp_path / "float32.safetensors")
    rounded, _ = loading.apply_fine_tune(loaded.model, loaded.conditioner, tmp_path / "float32.safetensors", 1.0)
    expected, ours = rounded.state_dict(), model.state_dict()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    weight = exact["decoder.model.decoder.layers.1.fc1.weight"]
    step = weight.abs().amax(dim=1, keepdim=True) / {"int8": 127, "float16": 2**10, "bfloat16": 2**7}[precision]
    assert ((model.lm.layers[1].up.dequantized() - weight).abs() <= 0.51 * step).all()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.model.state_dict().items())


def test_large_weights_are_adapted_in_slabs(made, monkeypatch):
    from comfyui_musicgen.musicgen.checkpoints.weights import lazy

    folder, _, _, adapter, _ = made("dora")
    base = open_checkpoint(folder)
    blended = blend(base, open_fine_tune(adapter, base), 0.5)
    whole = {name: weight.read() for name, weight in blended.lm.items()}
    monkeypatch.setattr(lazy, "SLAB_BYTES", 512)
    assert all(torch.allclose(weight.read(), whole[name], atol=1e-7) for name, weight in blended.lm.items())


def test_the_text_encoder_is_a_new_one_where_it_was_trained(made):
    _, _, loaded, adapter, wrapped = made("all-linear")
    own = loaded.conditioner.text_encoder
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    _, conditioner = loading.apply_fine_tune(loaded.model, loaded.conditioner, adapter, 1.0)
    expected = merged(wrapped)
    for name, tensor in conditioner.text_encoder.encoder.state_dict().items():
        assert torch.allclose(tensor, expected[f"text_encoder.{name}"], atol=1e-6), name
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    _, other = loading.apply_fine_tune(loaded.model, loaded.conditioner, made("melody")[3], 1.0)
    assert other.text_encoder is own
