"""Settings of a checkpoint: nested tables read by dotted names, with errors that say which one is wrong."""

from pathlib import Path
from typing import TypeVar, cast

from ..errors import CheckpointError
from ..foreign import MAX_JSON, guarded, read_json, read_yaml
from .containers.inert import Name, check_size, content

DIFFUSION_KEY = (
    "musicgen_diffusion"  # entry of a safetensors header that holds the settings of a MultiBand Diffusion model
)
REQUIRED = object()  # the default of a setting that has none

V = TypeVar("V")


def plain(value: object, source: str) -> object:
    """OmegaConf stand-ins to plain dict and list, interpolations such as "${channels}" left as they are."""
    check_size(value, source)
    with guarded(source):  # a key may be a number too long to be written out
        return _plain(value)


def _plain(value: object) -> object:
    value = content(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Name) else value


class Settings:
    """One table of settings. `source` names the file in messages, `prefix` the place in it."""

    def __init__(self, table: dict, source: str, root: dict | None = None, prefix: str = ""):
        self.table = table
        self.source = source
        self._root = table if root is None else root
        self._prefix = prefix

    @classmethod
    def from_audiocraft(cls, value: object, source: str) -> "Settings":
        """From `xp.cfg`: YAML text in exported files, a pickled DictConfig in those of a trainer."""
        source_of_table = f"{source}: xp.cfg"
        table = plain(read_yaml(value, source_of_table) if isinstance(value, str) else value, source_of_table)
        if not isinstance(table, dict):
            raise CheckpointError(f"{source}: xp.cfg is no table of settings, so the model cannot be rebuilt from it")
        return cls(table, source)

    @classmethod
    def from_json(cls, path: Path) -> "Settings":
        with guarded(str(path)), open(path, encoding="utf-8-sig") as file:
            text = file.read(MAX_JSON + 1)
        return cls.from_text(text, str(path))

    @classmethod
    def from_text(cls, text: str, source: str) -> "Settings":
        """From JSON."""
        table = read_json(text, source)
        if not isinstance(table, dict):
            raise CheckpointError(f"{source} is no table of settings")
        return cls(table, source)

    def get(self, key: str, default: object = REQUIRED) -> object:
        """The value of the dotted `key`, references followed. CheckpointError if absent without a default."""
        value = self._find(self.table, key)
        for _ in range(8):
            if not (isinstance(value, str) and value.startswith("${") and value.endswith("}")):
                break
            value = self._find(self._root, value[2:-1].strip())
        else:
            value = REQUIRED
        if value is REQUIRED:
            if default is REQUIRED:
                raise CheckpointError(f"{self.source}: the setting '{self._prefix}{key}' is missing")
            return default
        return value

    @staticmethod
    def _find(table: object, key: str) -> object:
        for part in key.split("."):
            if not isinstance(table, dict) or part not in table:
                return REQUIRED
            table = table[part]
        return table

    def section(self, key: str) -> "Settings":
        value = self.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, value, "a table of settings")
        return Settings(value, self.source, self._root, f"{self._prefix}{key}.")

    def integer(self, key: str, default: object = REQUIRED, most: int = 2**20, least: int = 1) -> int:
        """A whole number from `least` to `most`, which keeps damaged settings from asking for a gigantic model."""
        value = self.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(key, value, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: object = REQUIRED, most: float = 3600.0, least: float = 0.0) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise self.wrong(key, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, value, "a text")
        return value

    def integers(self, key: str, default: object = REQUIRED, most: int = 1000, least: int = 0) -> tuple[int, ...]:
        """One to 64 whole numbers from `least` to `most`."""
        value = self.get(key, default)
        items = value if isinstance(value, list) else []
        if not 1 <= len(items) <= 64 or any(type(item) is not int or not least <= item <= most for item in items):
            raise self.wrong(key, value, f"a list of 1 to 64 whole numbers from {least} to {most}")
        return tuple(items)

    def names(self, key: str, default: object = REQUIRED) -> tuple[str, ...]:
        value = self.get(key, default)
        if not isinstance(value, list) or any(not isinstance(item, str) for item in value):
            raise self.wrong(key, value, "a list of names")
        return tuple(value)

    def expect(self, key: str, *allowed: V, default: object = REQUIRED) -> V:
        """The value if it is one of `allowed`. CheckpointError naming the setting otherwise."""
        value = self.get(key, default)
        if not any((type(value) is type(item) and value == item) or _same_number(value, item) for item in allowed):
            raise self.wrong(key, value, " or ".join(map(repr, allowed)))
        return cast("V", value)

    def wrong(self, key: str, value: object, needed: str) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: the setting '{self._prefix}{key}' is {_brief(value)}, but only {needed} is supported"
        )


def _brief(value: object) -> str:
    """`value`, or its kind where it is too long to be shown."""
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to write out very long integers
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (dict, list)):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    return repr(value)[:100]


def _same_number(a: object, b: object) -> bool:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (a, b))
    return numbers and a == b
