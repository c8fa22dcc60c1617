"""Stems by a Demucs of random weights: their sum, rates, channels, segments, progress, Cancel."""

import pytest
import torch
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.separation import NAMES, Stems, load_separator, separate_stems
from comfyui_musicgen.tests.toy.separator import small_demucs, write_separator

RATE_HZ = 44100


@pytest.fixture(scope="module")
def demucs():
    return small_demucs()


def sound(seconds=1.7, rate_hz=RATE_HZ, channels=2, clips=1):
    generator = torch.Generator().manual_seed(4)
    return Audio(torch.randn(clips, channels, round(seconds * rate_hz), generator=generator) * 0.1, rate_hz)


def parts(stems):
    return [stems.vocals, stems.drums, stems.bass, stems.other, stems.rest]


@pytest.mark.parametrize(("rate_hz", "channels"), [(44100, 2), (44100, 1), (32000, 2), (22050, 1), (48000, 2)])
def test_five_stems_are_the_song_at_any_rate(demucs, rate_hz, channels):
    song = sound(rate_hz=rate_hz, channels=channels)
    kept = song.samples.clone()
    stems = separate_stems(song, demucs)
    for part in parts(stems):
        assert part.samples.shape == song.samples.shape and part.rate_hz == rate_hz
        assert part.samples.any()
    total = sum(part.samples for part in parts(stems))
    torch.testing.assert_close(total, song.samples, atol=1e-6, rtol=0)
    assert torch.equal(song.samples, kept)
    assert not torch.equal(stems.vocals.samples, stems.drums.samples)


def test_segments_are_joined_as_demucs_joins_them(demucs):
    from demucs.apply import apply_model

    song = sound(3.3)
    with torch.inference_mode():
        theirs = apply_model(demucs, song.samples, shifts=0, split=True)[0]
    stems = separate_stems(song, demucs)
    for name in NAMES:
        torch.testing.assert_close(
            getattr(stems, name).samples[0], theirs[demucs.sources.index(name)], atol=1e-5, rtol=0
        )


def test_a_clip_of_a_batch_is_the_clip_alone(demucs):
    batch = sound(clips=2)
    together = separate_stems(batch, demucs)
    alone = separate_stems(Audio(batch.samples[1:], RATE_HZ), demucs)
    assert torch.equal(together.drums.samples[1:], alone.drums.samples)


def test_more_sources_are_in_other():
    separator = small_demucs(("drums", "bass", "other", "vocals", "guitar", "piano"))
    song = sound(0.8)
    with torch.inference_mode():
        from demucs.apply import apply_model

        theirs = apply_model(separator, song.samples, shifts=0, split=True)[0]
    stems = separate_stems(song, separator)
    torch.testing.assert_close(stems.other.samples[0], theirs[2] + theirs[4] + theirs[5], atol=1e-5, rtol=0)


def test_progress_grows_and_cancel_ends_it_between_layers(demucs):
    calls = []
    separate_stems(sound(3.3, clips=2), demucs, lambda done, total: calls.append((done, total)))
    assert (
        calls == sorted(calls) and {total for _, total in calls} == {10} and {0, 5, 10} <= {done for done, _ in calls}
    )
    assert len(calls) > 100, "between layers too"
    seen = []

    def cancel(done, total):
        seen.append(done)
        if len(seen) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate_stems(sound(), demucs, cancel)
    assert len(seen) == 30 and not any(module._forward_pre_hooks for module in demucs.modules())


def test_only_one_segment_is_with_the_separator_at_a_time(demucs):
    sizes = []
    hook = demucs.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    separate_stems(sound(5), demucs)
    hook.remove()
    assert len(sizes) == 7 and set(sizes) == {(1, 2, RATE_HZ)}


def test_what_cannot_be_separated_is_refused(demucs):
    with pytest.raises(InputError, match="4 channels"):
        separate_stems(sound(channels=4), demucs)
    with pytest.raises(InputError, match="drums, other"):
        separate_stems(sound(0.5), small_demucs(("drums", "other")))


def test_weights_of_a_named_file_are_read(tmp_path):
    separator = small_demucs()
    write_separator(separator, tmp_path / "mine.th")
    loaded = load_separator([], tmp_path / "mine.th")
    song = sound(0.5)
    assert torch.equal(separate_stems(song, loaded).bass.samples, separate_stems(song, separator).bass.samples)


def test_a_known_voice_leaves_the_music():
    song, voice = sound(), Audio(0.5 * sound().samples, RATE_HZ)
    stems = Stems.of_voice(song, voice)
    assert torch.equal(stems.vocals.samples, voice.samples)
    torch.testing.assert_close(sum(part.samples for part in parts(stems)), song.samples, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="song's own voice"):
        Stems.of_voice(song, sound(0.5))
