"""The page docs/ARCHITECTURE.md: its line counts are those of the files, its paths exist.

`python tests/test_architecture.py` writes the counts into the page.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
MAX_LM, MAX_WAY = 900, 2500
ROW = re.compile(r"^\| (\d+) \| `(musicgen/[\w/]+\.py)` \|", re.MULTILINE)
TOTAL = re.compile(r"^\| (\d+) \| total", re.MULTILINE)
LM_TOTAL = re.compile(r"^\| (\d+) \| of these `musicgen/lm/`", re.MULTILINE)


def lines(path: str) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def counted(page: str) -> str:
    """The page with the counts of today's files."""
    files = [path for _, path in ROW.findall(page)]
    page = ROW.sub(lambda row: f"| {lines(row[2])} | `{row[2]}` |", page)
    lm = sum(lines(path) for path in files if path.startswith("musicgen/lm/"))
    page = TOTAL.sub(f"| {sum(map(lines, files))} | total", page)
    return LM_TOTAL.sub(f"| {lm} | of these `musicgen/lm/`", page)


def test_counts_are_those_of_the_files():
    page = PAGE.read_text(encoding="utf-8")
    assert page == counted(page), "run: python tests/test_architecture.py"


def test_the_plain_model_is_listed_whole_and_short():
    listed = {path for _, path in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "musicgen" / "lm").rglob("*.py")}
    assert files <= listed
    assert sum(map(lines, files)) <= MAX_LM


def test_the_way_from_text_to_sound_is_short():
    files = [path for _, path in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    assert len(files) == len(set(files)) > 20
    assert sum(map(lines, files)) <= MAX_WAY


def test_the_page_names_what_is_there():
    pages = [PAGE, ROOT / "README.md", ROOT / "benchmarks" / "README.md"]
    links = [
        (page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert [link for page, link in links if not (page.parent / link.replace("%20", " ")).exists()] == []
    named = re.findall(r"`((?:musicgen|nodes|tests)/[\w/]+\.(?:py|json))`", PAGE.read_text(encoding="utf-8"))
    examples = {"musicgen/conditioning/tempo.py", "musicgen/accel/short_passes.py"}
    assert [path for path in named if path not in examples and not (ROOT / path).exists()] == []


if __name__ == "__main__":
    PAGE.write_text(counted(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
