"""Durations in frames, and the windows of a long piece."""

from dataclasses import dataclass

from .config import GenerationParams, ModelConfig
from .errors import InputError

_OWN_STRIDE = 0.6  # of the window: 18 s of 30
_ROUNDING = 1e-6  # 0.58 s * 50 Hz is 28.999... in floating point, and is meant to be 29 frames


@dataclass(frozen=True)
class Window:
    """One run of the language model within a piece, in frames."""

    start: int  # of the window within the piece
    n_known: int  # frames at its start that are continued, not generated
    n_frames: int  # of the window, the known ones included
    n_anchor: int = 0  # frames at its start that are earlier ones, in place of those that lie there
    anchor: int = 0  # where in the piece these begin


def to_frames(time_s: float, rate_hz: float) -> int:
    """Whole frames in a time."""
    return int(time_s * rate_hz + _ROUNDING)


def plan_windows(config: ModelConfig, params: GenerationParams, n_prompt: int, ends: bool = False) -> list[Window]:
    """The windows that make `params.duration_s` of music after a prompt of `n_prompt` frames.

    One window if the piece fits into the model's; else windows that start `extend_stride_s` apart (its default is
    meant for windows of 30 s, and stands for the model's own stride where the window is no longer than that), each
    continuing what the ones before left in its range. A prompt that fills the window is continued from its last part:
    what the first window leaves out stays in front of the piece. Source: audiocraft `BaseGenModel._generate_tokens`
    (which can lose one frame to rounding where a duration over 30 s is no integer number of seconds; here no
    frame is lost).

    With `anchor_s`, each window that has left the beginning behind sees so much of it first, then as much of the latest
    music as without; it adds so much less.

    ends: the last window, whose text asks for an end, is a whole one up to the end of the piece and adds a whole stride.

    InputError: a prompt as long as the piece, a stride not shorter than the window, or an anchor not shorter than the stride.
    """
    rate = config.codec.frame_rate_hz
    total = to_frames(params.duration_s, rate)
    longest = to_frames(config.segment_s, rate)
    if total < 1:
        raise InputError(
            f"'duration_s' of {params.duration_s:g} s is shorter than one frame ({1 / rate:g} s). Ask for more."
        )
    if n_prompt >= total:
        raise InputError(
            f"The clip to continue ('prompt') is {n_prompt / rate:g} s long, but 'duration_s' (which includes it) is "
            f"{params.duration_s:g} s: nothing is left to generate. Raise 'duration_s', or trim the clip."
        )
    if total <= longest:
        return [Window(0, n_prompt, total)]
    stride_s = params.extend_stride_s
    if stride_s == GenerationParams.extend_stride_s >= config.segment_s:
        stride_s = min(config.extend_stride_s, _OWN_STRIDE * config.segment_s)
    stride = to_frames(stride_s, rate)
    if not 1 <= stride < longest:
        raise InputError(
            f"'extend_stride_s' of {params.extend_stride_s:g} s must be at least one frame and shorter than the "
            f"{config.segment_s:g} s that {config.name} sees at a time."
        )
    anchor = to_frames(params.anchor_s, rate)
    if anchor >= stride:
        raise InputError(
            f"'anchor_s' of {params.anchor_s:g} s leaves nothing of the {stride / rate:g} s that each window adds "
            f"('extend_stride_s'; {config.name} sees {config.segment_s:g} s at a time). Give less than {stride / rate:g} s."
        )
    stride -= anchor
    start = max(0, n_prompt - (longest - stride)) if n_prompt >= longest else 0
    windows, known, until = [], n_prompt - start, total - stride if ends else total
    while start + known < until:
        n_frames = min(until - start, longest)
        windows.append(Window(start, known, n_frames, anchor if start else 0))
        known = n_frames - stride
        start += stride
    if ends:
        windows.append(Window(total - longest, max(until, n_prompt) - (total - longest), longest, anchor))
    return windows
