"""Runs the measurements of general music, prints the findings as they come, and leaves tables in a folder."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ....musicgen.card import read_card
from ....musicgen.codec.encodec import fingerprint_of
from ....musicgen.errors import InputError
from ....musicgen.loading import Loaded, load
from ....musicgen.store.published import SHIPPED
from ...data.render import Synthesizer
from ...days.place import synthesizer
from ...recipe import CODEC
from .. import listening, measure
from ..measure import Finding
from . import findings
from .chord_following import chord_findings, key_findings
from .cli import HELD_OUT_SOUNDFONTS, PARTS, SOUNDFONT, N
from .findings import Table, Tools
from .judge import Judge, Lessons, taught
from .sections import section_findings

_LESSONS = Lessons()
_CARD = "python -m training card"
_OF_A_JUDGE = {"genres", "instruments", "drums", "sections"}  # parts that need one
_PANSORI_CLIPS, _OF_PANSORI_MINI = 200, 0.95


@dataclass(frozen=True)
class Request:
    """What is to be measured. n: clips of each instrument and genre; all other counts follow from it."""

    model: Path
    out: Path
    n: int = N
    cfg: float = 3.0
    parts: Sequence[str] = PARTS
    soundfont: Path = SOUNDFONT  # that the model was trained with
    held_out_soundfonts: Sequence[Path] = HELD_OUT_SOUNDFONTS
    n_processes: int = 2
    lessons: Lessons = _LESSONS
    text_encoder_dirs: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"--n must be at least 1, got {self.n}")
        if unknown := sorted(set(self.parts) - set(PARTS)):
            raise InputError(f"--parts: {', '.join(unknown)} is none of {', '.join(PARTS)}")


def report(request: Request) -> list[Finding]:
    """Measure a model of general music; its folder gets evaluation.json, evaluation.md and the judge, who is taught once."""
    request.out.mkdir(parents=True, exist_ok=True)
    if read_card(request.model) is None:
        print(
            f"{request.model} has no card: words are not translated, no clip is drawn again. Write one: {_CARD} {request.model}"
        )
    results = _Results(request)
    tools = _tools(request, results)
    n, alone = request.n, None
    for part in (part for part in PARTS if part in request.parts):
        begun = time.monotonic()
        match part:
            case "speed":
                found = findings.speed_findings(tools)
            case "codec":
                found, results.tables["codec"] = findings.codec_findings(tools, min(6, n))
            case "genres":
                found, results.tables["genre"], alone = findings.genre_findings(tools, n)
            case "instruments":
                found, results.tables["instrument"] = findings.instrument_findings(tools, n, alone)
            case "tempo":
                found = findings.tempo_findings(tools, 8 * n)
            case "drums":
                found = findings.drum_findings(tools, 5 * n)
            case "melody":
                found = findings.melody_findings(tools, n)
            case "chords":
                found = chord_findings(tools, 2 * n)
            case "keys":
                found = key_findings(tools, 5 * n)
            case "endings":
                found = findings.ending_findings(tools, 5 * n)
            case "silence":
                found = findings.silence_findings(tools, 50 * n)
            case "long":
                found = findings.long_findings(tools, 2 * n)
            case "sections":
                found = section_findings(tools, 5 * n)
            case _:
                found = pansori_findings(tools, request.out, 6 * n)
        results.keep(found)
        results.timed(part, time.monotonic() - begun)
    return results.findings


def pansori_findings(tools: Tools, out: Path, n: int) -> list[Finding]:
    """The figures of pansori, with 0.95 of pansori-mini's as goals; none for a model that was not taught pansori."""
    vocabulary = tools.model.conditioner.vocabulary
    if vocabulary is not None and "pansori" not in vocabulary.words:
        return []
    model, cfg, through = tools.model, tools.cfg, measure.coded(tools.model)
    critic = _critic(tools, out)
    ceilings = measure.critic_findings(critic, through, n)
    found = [*ceilings, *measure.text_findings(model, critic, n, cfg, ceilings=ceilings)[0]]
    if model.config.melody and not model.config.melody.chords:
        found += measure.melody_findings(model, n, cfg)[0]
    found += measure.continuation_findings(model, n, cfg)[0] + measure.collapse_findings(model, 2 * n, cfg)
    return [replace(one, name=f"pansori, {one.name}") for one in against(found, figures_of(SHIPPED["pansori-mini"]))]


def against(found: Sequence[Finding], figures: dict[str, float], share: float = _OF_PANSORI_MINI) -> list[Finding]:
    """The findings with a share of another model's figures of the same name as goals; without goals where there is none."""
    return [
        replace(one, at_least=share * figures[one.name] if one.name in figures else None, at_most=None) for one in found
    ]


def figures_of(model: Path) -> dict[str, float]:
    """{name: value} of a model's card; nothing if it has none."""
    card = read_card(model)
    table = card.table.get("figures", []) if card else []
    return {row["name"]: row["value"] for row in table}


class _Results:
    """What was found so far, written after every part: what comes later may be interrupted."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.findings: list[Finding] = []
        self.tables: dict[str, Table] = {}
        self._seconds: dict[str, float] = {}

    def keep(self, found: Sequence[Finding]) -> None:
        self.findings += found
        for finding in found:
            print(finding, flush=True)

    def timed(self, part: str, seconds: float) -> None:
        self._seconds[part] = round(seconds, 1)
        print(f"  ({part}: {seconds:.0f} s)", flush=True)
        rows = [{**asdict(finding), "goal": finding.goal, "good": finding.good} for finding in self.findings]
        table = {
            "model": self._request.model.name, "n": self._request.n, "guidance": self._request.cfg, "findings": rows,
            "tables": self.tables, "seconds": self._seconds,
        }  # fmt: skip
        (self._request.out / "evaluation.json").write_text(
            json.dumps(table, indent=1, ensure_ascii=False) + "\n", "utf-8"
        )
        (self._request.out / "evaluation.md").write_text(self._page(), "utf-8")

    def _page(self) -> str:
        lines = [
            f"# {self._request.model.stem}",
            "",
            "| | measured | goal | chance | ceiling |",
            "|---|---|---|---|---|",
        ]
        for one in self.findings:
            value = f"**{one.value:.3g}**" if one.good is False else f"{one.value:.3g}"
            lines.append(f"| {one.name} | {value} | {one.goal} | {_number(one.chance)} | {_number(one.ceiling)} |")
        for name in ("instrument", "genre"):
            rows = self.tables.get(name)
            if not rows:
                continue
            columns = list(next(iter(rows.values())))
            lines += ["", f"| {name} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
            lines += [
                f"| {each} | {' | '.join(_number(row[column]) for column in columns)} |" for each, row in rows.items()
            ]
        return "\n".join(lines) + "\n"


def _tools(request: Request, results: _Results) -> Tools:
    model = load(request.model, text_encoder_dirs=request.text_encoder_dirs)
    rate = replace(CODEC, sample_rate_hz=measure.HEARING_HZ)
    own = synthesizer(request.soundfont, rate)
    packages = "fluid-soundfont-gm, timgm6mb-soundfont and csound-soundfont"
    foreign = [synthesizer(path, rate, packages, "--held-out-soundfont") for path in request.held_out_soundfonts]
    judge = _judge(request, results, model, foreign) if _OF_A_JUDGE & set(request.parts) else None
    return Tools(model, judge, own, foreign[0], findings.through_codec(model), request.cfg)


def _judge(request: Request, results: _Results, model: Loaded, synthesizers: Sequence[Synthesizer]) -> Judge:
    """The judge of the folder, or a new one: taught once for a codec."""
    notes = {
        "codec": f"{model.config.codec.fingerprint}-{fingerprint_of(model.codec.decoder.parameters())}",
        "soundfonts": ", ".join(path.name for path in request.held_out_soundfonts),
    }
    notes |= {name: str(value) for name, value in asdict(request.lessons).items()}
    path = request.out / "judge.safetensors"
    judge = Judge.opened(path, notes)
    if judge is None:
        begun = time.monotonic()
        judge = taught(synthesizers, request.lessons, findings.through_codec(model), request.n_processes)
        judge.save(path, notes)
        results.timed("teaching the judge", time.monotonic() - begun)
    return judge


def _critic(tools: Tools, out: Path) -> listening.Critic:
    """The critic of pansori, taught once."""
    notes = {"codec": tools.model.config.codec.fingerprint, "clips": str(_PANSORI_CLIPS)}
    path = out / "critic.safetensors"
    critic = listening.Critic.opened(path, notes)
    if critic is None:
        through = measure.coded(tools.model)
        critic = listening.train_critic(_PANSORI_CLIPS, measure.DURATION_S, measure.HEARING_HZ, through)
        critic.save(path, notes)
    return critic


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
