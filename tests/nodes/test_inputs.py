"""Every widget as a wire: what may be wired, what of its values is taken, and what is refused by the input's name."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.nodes import host
from torch import nn

CODES = Codes(torch.zeros(1, 4, 100, dtype=torch.long), 50.0, "fake")
AUDIO = {"waveform": 0.1 * torch.rand(1, 1, 16000), "sample_rate": 16000}
LOOKED_UP = {"model", "diffusion", "weights"}  # names of files, which the loaders look up


def inputs_of(node_id):
    types = NODES[node_id].INPUT_TYPES()
    return {**types["required"], **types.get("optional", {})}


WIDGETS = [(id, name) for id in NODES for name, (_, options) in inputs_of(id).items() if "default" in options]
every_widget = pytest.mark.parametrize(("node_id", "name"), WIDGETS, ids=lambda value: value)


def arguments(node_id, **changes):
    """Something of the right type for each required input, and the widgets' defaults."""
    managed = host.Managed(nn.Identity(), "model")
    sockets = {"AUDIO": AUDIO, "MUSICGEN_CODES": CODES, "MUSICGEN_CONDITIONING": "conditioning"}
    values = {}
    for name, (kind, options) in inputs_of(node_id).items():
        if "default" in options:
            values[name] = options["default"]
        elif name in NODES[node_id].INPUT_TYPES()["required"]:
            values[name] = sockets.get(kind, managed) if isinstance(kind, str) else None
    return {**values, **changes}


def call(node_id, **inputs):
    node = NODES[node_id]()
    return getattr(node, node.FUNCTION)(**inputs)


def wrong_values(kind):
    """Values that no widget of a kind takes."""
    anything = [None, [1], {"a": 1}, b"x", torch.zeros(2), object()]
    if isinstance(kind, list) or kind == "STRING":
        return [*anything, 5, 1.5, "\ud800"]
    if kind == "BOOLEAN":
        return [*anything, 5, "true"]
    return [*anything, "2", True, math.nan, math.inf, -1e30, 10**400, np.float32("nan"), Fraction(10**400, 3)]


@every_widget
def test_a_wrong_value_is_refused_by_the_widget_s_name(node_id, name):
    kind = inputs_of(node_id)[name][0]
    for value in wrong_values(kind):
        with pytest.raises(InputError, match=f"'{name}'") as caught:
            call(node_id, **arguments(node_id, **{name: value}))
        str(caught.value).encode()  # can be printed
        assert len(str(caught.value)) < 800


@every_widget
def test_a_wired_widget_passes_validation_and_the_cache_s_question(node_id, name):
    """ComfyUI hands None to both for a wire, whose value is not known yet."""
    node, kind = NODES[node_id], inputs_of(node_id)[name][0]
    received = {name: "COMBO" if isinstance(kind, list) else kind}
    named = node.VALIDATE_INPUTS.__func__.__code__.co_varnames[: node.VALIDATE_INPUTS.__func__.__code__.co_argcount]
    values = {name: None} if name in named else {}
    assert node.VALIDATE_INPUTS(input_types=received, **values) is True
    if hasattr(node, "IS_CHANGED"):
        is_changed = node.IS_CHANGED(**{**arguments(node_id), name: None}) if name in LOOKED_UP else ""
        assert is_changed == is_changed, "NaN would load the model at every run"


@pytest.mark.parametrize(
    ("node_id", "name", "received", "fits"),
    [
        ("MusicGenSampler", "duration_s", "INT", True),
        ("MusicGenSampler", "seed", "FLOAT", True),
        ("MusicGenSampler", "seed", "STRING", False),
        ("MusicGenLoader", "model", "STRING", True),
        ("MusicGenLoader", "model", ["a", "b"], True),
        ("MusicGenLoader", "model", "*", True),
        ("MusicGenLoader", "precision", "INT", False),
        ("MusicGenText", "text", "COMBO", True),
        ("MusicGenText", "conditioner", "MUSICGEN_MODEL", False),
        ("MusicGenText", "conditioner", "MUSICGEN_CONDITIONER,MUSICGEN_MODEL", True),
        ("MusicGenDecode", "codes", "LATENT", False),
        ("MusicGenNormalize", "compressor", "FLOAT", False),
    ],
)
def test_wires_that_carry_what_can_be_taken_fit(node_id, name, received, fits):
    verdict = NODES[node_id].VALIDATE_INPUTS(input_types={name: received})
    assert verdict is True if fits else f"'{name}'" in verdict


class Anything(str):
    """The type of packs whose outputs fit every input."""

    def __ne__(self, other):
        return False


def test_wires_of_any_type_fit():
    assert NODES["MusicGenLoader"].VALIDATE_INPUTS(input_types={"model": Anything("X")}) is True


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), Fraction(1, 2), 0.5])
def test_numbers_of_every_library_are_taken(value):
    (cut,) = call("MusicGenTrimAudio", audio=AUDIO, start_s=value, end_s=-1.0)
    assert cut["waveform"].shape[-1] == 8000


@pytest.mark.parametrize("value", [np.int64(1), np.uint8(1), 1, 1.0, np.float32(1)])
def test_whole_numbers_of_every_library_are_taken(value):
    (cut,) = call("MusicGenTrimCodes", codes=CODES, start_s=value, end_s=-1.0)
    assert cut.n_frames == 50
    seen = []

    class Engine(nn.Module):
        config = None

        def memory_bytes(self, params, conditioning):
            return 0

        def generate(self, conditioning, params, **options):
            seen.append(params.batch_size)

    call("MusicGenSampler", **arguments("MusicGenSampler", model=host.Managed(Engine(), "model"), batch_size=value))
    assert seen == [1] and type(seen[0]) is int


def test_a_seed_of_numpy_keeps_all_its_bits():
    from comfyui_musicgen.nodes.inputs import checked
    from comfyui_musicgen.nodes.widgets import seed

    class Node:
        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"seed": seed("x")}}

        @checked()
        def run(self, seed):
            return seed

    assert Node().run(np.uint64(2**64 - 1)) == Node().run(seed=2**64 - 1) == 2**64 - 1


@pytest.mark.parametrize("node_id", sorted(NODES))
def test_a_wrong_thing_on_a_socket_is_refused_by_its_name(node_id):
    for name, (kind, options) in inputs_of(node_id).items():
        is_required = name in NODES[node_id].INPUT_TYPES()["required"]
        if "default" in options or not (is_required or kind == "MUSICGEN_CODES"):
            continue
        for value in [None] * is_required + ([] if kind == "MUSICGEN_CONDITIONING" else ["text", 5]):
            with pytest.raises(InputError, match=f"'{name}'"):
                call(node_id, **arguments(node_id, **{name: value}))


@pytest.mark.parametrize(("node_id", "name"), [widget for widget in WIDGETS if widget[1] in LOOKED_UP])
@pytest.mark.parametrize(
    "value",
    ["x" * 5000, "x" * 900, "a/" + "x" * 300, "a\0b", "\ud800", 5, 1.5, {"a": 1}, True, "https://x/" + "y" * 9000],
)
def test_a_name_that_no_file_can_have_is_refused_before_anything_runs(node_id, name, value):
    message = NODES[node_id].VALIDATE_INPUTS(**{name: value})
    assert isinstance(message, str) and (f"'{name}'" in message or "not a usable name" in message)
    assert len(message) < 800
    NODES[node_id].IS_CHANGED(**{**arguments(node_id), name: value})


def test_a_text_with_half_a_character_names_it():
    with pytest.raises(InputError, match=r"'text'.*U\+DC00.*position 3"):
        call("MusicGenText", **arguments("MusicGenText", text="ab\udc00c"))


def test_codes_are_cut_and_an_end_past_the_end_is_the_end():
    for node_id, value, length in (("MusicGenTrimAudio", AUDIO, 8000), ("MusicGenTrimCodes", CODES, 75)):
        first = next(iter(inputs_of(node_id)))
        (cut,) = call(node_id, **{first: value, "start_s": 0.5, "end_s": 900.0})
        assert (cut["waveform"].shape[-1] if node_id == "MusicGenTrimAudio" else cut.n_frames) == length
        with pytest.raises(InputError, match="Start earlier"):
            call(node_id, **{first: value, "start_s": 5.0, "end_s": 900.0})


@pytest.mark.parametrize("node_id", ["MusicGenTrimAudio", "MusicGenTrimCodes"])
@pytest.mark.parametrize(
    ("start_s", "end_s", "is_valid"),
    [(None, None, True), (None, 5.0, True), (3.0, None, True), (None, 0.0, True), (3.0, 2.0, False), (math.nan, None, False),
     (None, math.nan, False)],
)  # fmt: skip
def test_times_are_compared_where_both_are_known(node_id, start_s, end_s, is_valid):
    verdict = NODES[node_id].VALIDATE_INPUTS(start_s=start_s, end_s=end_s)
    assert (verdict is True) == is_valid


def test_decoders_fade_both_ends_unless_asked_not_to():
    class Codec(nn.Module):
        def decode(self, codes, on_step=None):
            return Audio(torch.ones(2, 2, 640 * codes.n_frames), 32000)

    codec = host.Managed(Codec(), "codec")
    faded, picture = call("MusicGenDecode", codec=codec, codes=CODES)
    (plain, other) = call("MusicGenDecode", codec=codec, codes=CODES, fade_ms=0.0)
    assert torch.equal(plain["waveform"], torch.ones(2, 2, 64000)) and not torch.equal(picture, other)
    waveform = faded["waveform"]
    for edge in (waveform[..., :160], waveform.flip(-1)[..., :160]):  # 5 ms of 32 kHz
        assert edge[..., 0].max() < 1e-3 and edge[..., -1].min() > 0.999 and (edge.diff() > 0).all()
    assert torch.equal(waveform[..., 160:-160], plain["waveform"][..., 160:-160])
