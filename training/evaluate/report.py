"""Runs every measurement, prints the findings as they come, and leaves a table and pictures in a folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ...musicgen.errors import InputError
from ...musicgen.loading import load
from . import listening, pictures
from . import measure as evaluate
from .drift import drift_findings
from .measure import Example, Finding

_CRITIC_CLIPS = 1000


def report(
    path: Path, out: Path, n_prompts: int, n_seeds: int, cfg: float, n_pictures: int, text_encoder_dirs: Sequence[Path]
) -> list[Finding]:
    """Measure the model at `path`; `out` gets evaluation.json and PNGs."""
    out.mkdir(parents=True, exist_ok=True)
    model = load(path, text_encoder_dirs=text_encoder_dirs)
    rate_hz = evaluate.HEARING_HZ
    findings: list[Finding] = []

    def keep(found: Sequence[Finding], examples: Sequence[Example] = ()) -> None:
        findings.extend(found)
        for finding in found:
            print(finding, flush=True)
        for example in examples[:n_pictures]:
            pictures.draw(example, rate_hz, out / f"{example.name}.png")

    keep(evaluate.speed_findings(model, cfg))
    keep(evaluate.codec_findings(model, n_prompts))
    if model.config.melody:
        keep(*evaluate.melody_findings(model, n_prompts, cfg))
    through = evaluate.coded(model)
    critic = listening.train_critic(_CRITIC_CLIPS, evaluate.DURATION_S, rate_hz, through)
    ceilings = evaluate.critic_findings(critic, through, n_prompts)
    keep(ceilings)
    unguided, _ = evaluate.text_findings(model, critic, n_prompts, 1.0)
    guided, examples = evaluate.text_findings(model, critic, n_prompts, 3.0, ceilings=ceilings)
    keep([replace(finding, at_least=None) for finding in unguided])
    keep(guided, examples)
    between, _ = evaluate.text_findings(model, critic, n_prompts, 3.0, True, ceilings)
    keep([replace(finding, at_least=None) for finding in between])
    # A rise is one more right answer at least, of all.
    rise = sum(after.value - before.value for before, after in zip(unguided[:2], guided[:2], strict=True)) / 2
    keep([Finding("text: mean agreement gained by guidance 3 over 1", rise, 0.5 / n_prompts)])
    keep(*evaluate.continuation_findings(model, n_prompts, cfg))
    keep(evaluate.collapse_findings(model, n_seeds, cfg))
    _write(findings, path, out / "evaluation.json")
    return findings


def report_drift(
    path: Path,
    out: Path,
    n_pieces: int,
    n_minutes: int,
    cfg: float,
    anchor_s: float | None,
    text_encoder_dirs: Sequence[Path],
) -> list[Finding]:
    """Measure how far long pieces of the model at `path` drift, print it; `out` gets drift.json."""
    if n_pieces < 2 or n_minutes < 2:
        raise InputError(f"drift needs 2 pieces and 2 minutes at least, got {n_pieces} and {n_minutes}")
    out.mkdir(parents=True, exist_ok=True)
    findings = drift_findings(load(path, text_encoder_dirs=text_encoder_dirs), n_pieces, n_minutes, cfg, anchor_s)
    for finding in findings:
        print(finding, flush=True)
    _write(findings, path, out / "drift.json")
    return findings


def _write(findings: Sequence[Finding], path: Path, file: Path) -> None:
    table = [{**asdict(finding), "good": finding.good} for finding in findings]
    file.write_text(json.dumps({"model": path.name, "findings": table}, indent=2) + "\n", "utf-8")
