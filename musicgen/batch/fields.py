"""Rows of the fields of the Replicate model: `prompt`, `duration`, ..., and the model of a row."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, InputError
from ..replicate.contracts import PansoriRequest
from ..replicate.fields import parse_field
from ..store import ModelStore
from .rows import NAME, Reading
from .table import TableRow, check_columns

MODEL = "model"
FIELDS = PansoriRequest.fields()


class FieldRecipe:
    """The 15 fields, `model` and `name` as columns. Clips are looked for beside the table.

    store: models are looked for there before anything is made; None = they lie elsewhere, on a server.
    """

    def __init__(self, model: str, precision: str, diffusion: str, folder: Path, store: ModelStore | None) -> None:
        self._model, self._precision, self._diffusion = model, precision, diffusion
        self._folder, self._store = folder, store
        self._digests: dict[str, str] = {}
        self._checked: dict[tuple[str, str], None] = {}

    def check(self, columns: Sequence[str]) -> None:
        check_columns(columns, [*FIELDS, MODEL, NAME])

    def read(self, row: TableRow) -> Reading:
        fields = {name: cell for name, cell in row.cells.items() if name in FIELDS}
        values = (
            {name: parse_field(FIELDS[name], name, cell) for name, cell in fields.items()} if row.is_text else fields
        )
        clip = values.get("input_audio")
        if isinstance(clip, str) and "://" not in clip:
            values["input_audio"] = str(self._folder / clip)
        request = PansoriRequest.of(values)
        given = None if values.get("seed") in (None, -1) else request.seed
        # Without the defaults: a field that a later version adds changes no row that leaves it empty.
        identity = {name: value for name, value in asdict(request).items() if value != FIELDS[name].default}
        identity = {**identity, MODEL: row.cells.get(MODEL)}
        identity.pop("seed", None)
        if request.input_audio is not None:
            identity["input_audio"] = self._digest(request.input_audio)
        options: dict[str, Any] = {"model": self._model_of(row), "precision": self._precision}
        if request.multi_band_diffusion:
            options["diffusion"] = self._diffusion
        self._check_models(request, options)
        group = str([options["model"], request.replicate_weights])
        return Reading(identity, options, given, request.prompt or "clip", group, self._task(request, options))

    def _task(self, request: PansoriRequest, options: dict[str, Any]) -> Callable[[int], dict[str, Any]]:
        """The task of a seed. Paths are absolute, for workers that run elsewhere."""
        fields = asdict(request)
        if self._store is not None:
            fields["replicate_weights"] = _absolute(request.replicate_weights)
            options = {
                **options,
                **{name: _absolute(options[name]) for name in ("model", "diffusion") if name in options},
            }
        return lambda seed: {"fields": {**fields, "seed": seed}, **options}

    def _model_of(self, row: TableRow) -> str:
        model = row.cells.get(MODEL, self._model)
        if not isinstance(model, str) or not model.strip():
            raise InputError(f"'{MODEL}' must be the name of a model, got {model!r}")
        return model.strip()

    def _digest(self, path: str) -> str:
        """Checksum of a clip's bytes: the row is another one when the clip changes."""
        if path not in self._digests:
            try:
                self._digests[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise InputError(f"'input_audio' cannot be read: {path}: {reason}") from error
        return self._digests[path]

    def _check_models(self, request: PansoriRequest, options: dict[str, Any]) -> None:
        """InputError for a model that is not there and cannot be downloaded."""
        wanted = {("model", options["model"])}
        if request.replicate_weights:
            wanted.add(("weights", request.replicate_weights))
        if "diffusion" in options:
            wanted.add(("diffusion", options["diffusion"]))
        for kind, name in wanted - set(self._checked):
            if self._store is not None:
                try:
                    self._store.check(name, kind)  # type: ignore[arg-type]
                except CheckpointError as error:
                    raise InputError(str(error)) from error
            self._checked[kind, name] = None


def _absolute(name: str | None) -> str | None:
    """The whole path of a model that is given by its path; any other name as it is."""
    return str(Path(name).absolute()) if name and Path(name).exists() else name
