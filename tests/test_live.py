"""A piece while it is written: frames handed over, its sound within a share of the time, what a Cancel keeps."""

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.codec import Codec
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.live import MIN_FRAMES, Listener, Written, peaks

BOUND = 1e-5  # of samples: rounding alone


class Stop(BaseException):
    pass


@pytest.fixture(scope="module")
def load(toys):
    loaded = {}

    def factory(**options):
        key = tuple(sorted(options.items()))
        if key not in loaded:
            loaded[key] = loading.load(toys(**options), "float32")
        return loaded[key]

    return factory


class Clock:
    """Time that passes as told: so much a step, and so much a frame of decoding."""

    def __init__(self, codec: Codec, monkeypatch, frame_s: float):
        self.now = 0.0
        decode = codec.quantizer.decode

        def slow(codes):
            self.now += frame_s * codes.shape[-1]
            return decode(codes)

        monkeypatch.setattr(codec.quantizer, "decode", slow)

    def __call__(self) -> float:
        return self.now


def generate(loaded, duration_s=1.0, prompt=None, on_frames=None, on_step=None, **options):
    params = GenerationParams(duration_s=duration_s, seed=3, **options)
    conditioning = loaded.conditioner.encode_text(["calm"])
    return loaded.model.generate(conditioning, params, prompt, on_frames=on_frames, on_step=on_step)


@pytest.mark.parametrize("stereo", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("with_prompt", [False, True])
def test_finished_frames_are_those_of_the_result(load, stereo, batch_size, with_prompt):
    loaded = load(stereo=stereo)
    prompt = generate(loaded, 0.3) if with_prompt else None
    seen = []
    codes = generate(
        loaded, 1.0, prompt, lambda n, read: seen.append((n, read(0, n))), batch_size=batch_size
    ).codes  # fmt: skip
    numbers = [n for n, _ in seen]
    assert numbers == sorted(numbers) and numbers[-1] == 50 and numbers[0] == (15 if with_prompt else 0)
    assert all(torch.equal(part, codes[..., :n]) for n, part in seen), "a frame was handed over before it was finished"


def test_windows_of_a_long_piece_hand_over_frames_of_the_piece(load):
    loaded = load(segment_s=2.0)
    seen = []
    codes = generate(
        loaded, 4.1, on_frames=lambda n, read: seen.append((n, read(max(0, n - 60), n))), extend_stride_s=1.0
    )
    numbers = [n for n, _ in seen]
    assert numbers == sorted(numbers) and numbers[-1] == codes.n_frames == 205
    assert all(torch.equal(part, codes.codes[..., max(0, n - 60) : n]) for n, part in seen)


@pytest.mark.parametrize("stereo", [False, True])
def test_the_sound_is_that_of_the_final_decode(load, stereo):
    loaded, heard = load(stereo=stereo, segment_s=2.0), []
    listener = Listener(loaded.codec, lambda position, samples: heard.append((position, samples)), share=1e9)
    codes = generate(loaded, 3.2, on_frames=listener, extend_stride_s=1.0, batch_size=2)
    assert len(heard) > 3, "all of it came at the end"
    listener.finish()
    position = 0
    for start, samples in heard:
        assert start == position, "positions follow one another"
        position += samples.shape[-1]
    stream, whole = torch.cat([samples for _, samples in heard], dim=-1), loaded.codec.decode(codes).samples[0]
    assert stream.shape == whole.shape
    torch.testing.assert_close(stream, whole, atol=BOUND, rtol=0)


def test_of_a_continued_clip_the_end_is_heard_and_what_follows(load):
    loaded, heard = load(), []
    prompt = generate(loaded, 4.0)
    listener = Listener(loaded.codec, lambda position, samples: heard.append((position, samples)), share=1e9)
    codes = generate(loaded, 5.0, prompt, listener)
    listener.finish()
    hop = loaded.codec.config.hop
    assert heard[0][0] == 100 * hop, "2 s before the new music"
    stream, whole = torch.cat([samples for _, samples in heard], dim=-1), loaded.codec.decode(codes).samples[0]
    new = 100 * hop  # of the stream: by then the LSTM has forgotten that it began in the middle
    torch.testing.assert_close(stream[:, new:], whole[:, 2 * new :], atol=1e-3, rtol=0)


def feed(listener, n_frames, clock, step_s, codes, before=lambda n: None):
    for n in range(1, n_frames + 1):
        clock.now += step_s
        before(n)
        listener(n, lambda first, last: codes[..., first:last])


@pytest.mark.parametrize("frame_s", [0.0001, 0.002, 0.02])
def test_decoding_stays_below_its_share(load, monkeypatch, frame_s):
    """20 ms a step; decoding costs 0.5 %, 10 % and 100 % of that a frame."""
    loaded, heard = load(), []
    clock = Clock(loaded.codec, monkeypatch, frame_s)
    listener = Listener(loaded.codec, lambda position, samples: heard.append(samples.shape[-1]), clock=clock)
    feed(listener, 1500, clock, 0.02, torch.randint(2048, (1, 4, 1500)))
    listener.finish()
    running_s = 1500 * 0.02
    first_chunk_s = 2 * frame_s * MIN_FRAMES  # whose cost nobody knew
    assert listener.spent_s <= max(0.03 * running_s, first_chunk_s)
    share_heard = sum(heard) / loaded.codec.config.hop / 1500
    if frame_s == 0.0001:
        assert share_heard == 1 and heard[0] <= 50 * loaded.codec.config.hop, "cheap: all of it, and soon"
    elif frame_s == 0.002:
        assert 0.1 < share_heard < 0.5, "dear: what the share allows"


@pytest.mark.parametrize(("frame_s", "share_heard"), [(0.00005, 1.0), (0.001, 0.0625), (0.01, 0.0625)])
def test_of_a_piece_that_is_written_in_no_time_what_50_ms_allow_is_heard(load, monkeypatch, frame_s, share_heard):
    """0.1 s for 8 s of music: its share, 2.5 ms, was less than any chunk, and the player stayed empty."""
    loaded, heard = load(), []
    clock = Clock(loaded.codec, monkeypatch, frame_s)
    listener = Listener(loaded.codec, lambda position, samples: heard.append(samples.shape[-1]), clock=clock)
    feed(listener, 400, clock, 0.1 / 400, torch.randint(2048, (1, 4, 400)))
    assert heard == [], "beside the writing its share holds"
    listener.finish()
    assert sum(heard) / loaded.codec.config.hop / 400 == pytest.approx(share_heard, abs=0.05)
    assert listener.spent_s <= max(0.05, frame_s * MIN_FRAMES), "50 ms, or the first chunk, whose cost nobody knew"


def test_a_run_that_begins_again_is_not_heard_again(load):
    loaded, heard, codes = load(), [], torch.randint(2048, (1, 4, 200))
    listener = Listener(loaded.codec, lambda position, samples: heard.append((position, samples.shape[-1])), share=1e9)
    for n in [*range(1, 121), *range(1, 201)]:
        listener(n, lambda first, last: codes[..., first:last])
    listener.finish()
    ends = [position + length for position, length in heard]
    assert [position for position, _ in heard] == [0, *ends[:-1]] and ends[-1] == 200 * loaded.codec.config.hop


def cancelled(loaded, n_frames, prompt=None, **options):
    """What was written of a second when it is cancelled with `n_frames` finished."""
    written, finished = Written(0 if prompt is None else prompt.n_frames), []

    def on_frames(n, read):
        finished.append(n)
        written(n, read)

    def stop(done, total):
        if finished and finished[-1] == n_frames:
            raise Stop

    with pytest.raises(Stop):
        generate(loaded, 1.0, prompt, on_frames, stop, **options)
    return written.cut_short(1.0, 50.0, "codec")


def test_what_was_written_before_a_cancel_is_kept_for_all_rows(load):
    kept = cancelled(load(), 37, batch_size=3)
    assert kept is not None and kept.codes.shape == (3, 4, 37)
    assert kept.cut_short is not None and kept.cut_short.asked_s == 1 and kept.cut_short.kept_s == kept.duration_s
    assert torch.equal(kept.codes, generate(load(), 1.0, batch_size=3).codes[..., :37])


def test_before_the_first_new_frame_there_is_nothing_to_keep(load):
    prompt = generate(load(), 0.3)
    assert cancelled(load(), 15, prompt) is None
    assert cancelled(load(), 16, prompt).n_frames == 16
    assert cancelled(load(), 0) is None
    assert cancelled(load(), 1).n_frames == 1


def test_a_run_that_begins_again_does_not_shorten_what_is_kept():
    written, codes = Written(), torch.arange(10).view(1, 1, 10)
    for n in (7, 2):
        written(n, lambda first, last: codes[..., first:last])
    kept = written.cut_short(1.0, 50.0, "codec")
    assert kept is not None and kept.n_frames == 7


def test_peaks_bound_the_samples_of_all_channels():
    samples = torch.tensor([[0.1, -0.5, 0.2, 0.3, 0.0], [0.4, 0.0, -0.1, 0.9, 0.7]])
    torch.testing.assert_close(peaks(samples, 2), torch.tensor([[-0.5, 0.4], [-0.1, 0.9], [0.0, 0.7]]))
