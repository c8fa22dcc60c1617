"""Durations become frames and windows as in the reference; impossible ones are explained."""

import pytest
from comfyui_musicgen.musicgen.config import CodecConfig, GenerationParams, LMConfig, ModelConfig, TextConfig
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.windows import plan_windows


def config(segment_s=30.0):
    lm = LMConfig(64, 4, 2, 256, 4, 2048, (0, 1, 2, 3), True)
    return ModelConfig(
        "toy", lm, CodecConfig(32000, (8, 5, 4, 4), 4, 2048), TextConfig("t5-small", 512), None, segment_s
    )


def plan(duration_s, n_prompt=0, stride_s=18.0, segment_s=30.0):
    windows = plan_windows(
        config(segment_s), GenerationParams(duration_s=duration_s, extend_stride_s=stride_s), n_prompt
    )
    return [(w.start, w.n_known, w.n_frames) for w in windows]


def test_one_window_up_to_the_models_own():
    assert plan(8) == [(0, 0, 400)]
    assert plan(30) == [(0, 0, 1500)]
    assert plan(10, n_prompt=100) == [(0, 100, 500)]


def test_the_references_examples_of_long_pieces():
    assert plan(60) == [(0, 0, 1500), (900, 600, 1500), (1800, 600, 1200)]
    assert plan(31) == [(0, 0, 1500), (900, 600, 650)]


def test_the_default_stride_suits_shorter_windows_too():
    assert plan(20, segment_s=10.0) == [(0, 0, 500), (300, 200, 500), (600, 200, 400)]


@pytest.mark.parametrize("duration_s", [30.06, 31.24, 45, 61.5, 300, 3600])
@pytest.mark.parametrize("n_prompt", [0, 100, 1400])
def test_windows_cover_the_piece_without_gap(duration_s, n_prompt):
    end = n_prompt
    for start, known, n_frames in plan(duration_s, n_prompt):
        assert start + known == end and known < n_frames <= 1500
        end = start + n_frames
    assert end == int(duration_s * 50 + 1e-6)


@pytest.mark.parametrize("duration_s", [30.06, 31.24, 45, 61.5, 300])
@pytest.mark.parametrize(("n_prompt", "anchor_s"), [(0, 0.0), (100, 4.0), (1400, 0.0)])
def test_a_piece_that_is_to_end_has_a_whole_window_for_it(duration_s, n_prompt, anchor_s):
    params = GenerationParams(duration_s=duration_s, anchor_s=anchor_s)
    windows, total, end = plan_windows(config(), params, n_prompt, ends=True), int(duration_s * 50 + 1e-6), n_prompt
    for window in windows:
        assert window.start + window.n_known == end and window.n_known < window.n_frames <= 1500
        end = window.start + window.n_frames
    last = windows[-1]
    assert end == total and last.n_frames == 1500 and last.n_anchor == 50 * anchor_s
    assert last.n_frames - last.n_known == min(900 - 50 * anchor_s, total - n_prompt)
    assert plan_windows(config(), GenerationParams(duration_s=8), 0, ends=True) == plan_windows(
        config(), GenerationParams(duration_s=8), 0
    )


@pytest.mark.parametrize(
    ("duration_s", "stride_s", "n_prompt"), [(45, 18, 0), (60, 10.5, 0), (100, 18, 250), (33, 29, 70)]
)
def test_windows_equal_audiocrafts(audiocraft, duration_s, stride_s, n_prompt):
    import torch
    from audiocraft.models.genmodel import BaseGenModel

    calls = []

    class Recorder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def generate(self, prompt, attributes, callback, max_gen_len):
            calls.append((0 if prompt is None else prompt.shape[-1], max_gen_len))
            return torch.zeros(1, 4, max_gen_len)

    class Model(BaseGenModel):
        set_generation_params = get_pretrained = None

    codec = torch.nn.Module()
    codec.frame_rate = 50
    model = Model("toy", codec, Recorder(), 30)
    model.duration, model.extend_stride = duration_s, stride_s
    tokens = model._generate_tokens([], torch.zeros(1, 4, n_prompt) if n_prompt else None)
    ours = plan(duration_s, n_prompt, stride_s)
    assert [(known, n_frames) for _, known, n_frames in ours] == calls
    assert tokens.shape[-1] == ours[-1][0] + ours[-1][2]


def test_a_duration_is_not_cut_by_floating_point():
    assert plan(0.58) == [(0, 0, 29)]


@pytest.mark.parametrize("n_prompt", [1500, 1501, 2000, 2900])
@pytest.mark.parametrize("stride_s", [18.0, 5.0, 29.0])
def test_a_prompt_that_fills_the_window_is_continued_from_its_last_part(n_prompt, stride_s):
    """It was refused. What the first window leaves out stays in front of the piece."""
    (start, known, n_frames), *others = plan(60, n_prompt, stride_s)
    assert start + known == n_prompt and known == 1500 - stride_s * 50
    end = start + n_frames
    for start, known, n_frames in others:
        assert start + known == end and known < n_frames <= 1500
        end = start + n_frames
    assert end == 3000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"duration_s": 2, "n_prompt": 100}, ["prompt", "2 s", "duration_s", "trim"]),
        ({"duration_s": 2, "n_prompt": 150}, ["3 s", "2 s"]),
        ({"duration_s": 60, "stride_s": 30}, ["extend_stride_s", "30 s"]),
        ({"duration_s": 60, "stride_s": 17, "segment_s": 10}, ["17 s", "10 s"]),
    ],
)
def test_impossible_requests_name_their_numbers(arguments, words):
    with pytest.raises(InputError) as error:
        plan(**arguments)
    for word in words:
        assert word.lower() in str(error.value).lower()


@pytest.mark.parametrize(
    "values",
    [
        {"duration_s": 0}, {"duration_s": -1}, {"duration_s": float("nan")}, {"duration_s": 1e9}, {"seed": -1},
        {"seed": 2**64}, {"seed": 1.5}, {"top_k": -1}, {"top_p": 1.1}, {"temperature": -0.1}, {"temperature": float("inf")},
        {"cfg": -1}, {"cfg": 21}, {"batch_size": 0}, {"batch_size": 65}, {"extend_stride_s": 0}, {"batch_size": True},
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_named(values):
    (name, value), *_ = values.items()
    with pytest.raises(InputError) as error:
        GenerationParams(**values)
    assert name in str(error.value) and repr(value) in str(error.value)
