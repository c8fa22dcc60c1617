"""What a contributor meets first: workflows, forms, hooks and the guide agree with the tree."""

import re
import subprocess
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen.store.published import SHIPPED
from comfyui_musicgen.tests import matrix

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / ".pre-commit-config.yaml", *sorted((ROOT / ".github").rglob("*.yml"))]


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_file_is_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_matrix_covers_every_value_and_pair():
    rows = read(".github/workflows/test.yml")["jobs"]["matrix"]["strategy"]["matrix"]["include"]
    systems = {row["os"].partition("-")[0] for row in rows}
    assert systems == {"ubuntu", "windows", "macos"}
    for system in systems:
        assert {row["python"] for row in rows if row["os"].startswith(system)} == {*matrix.PYTHONS, "3.14"}
    pairs = {(row["torch"], row["transformers"], row["numba"]) for row in rows}
    assert len(pairs) == 8 and {torch for torch, _, _ in pairs} == {"2.8.0", "newest"}


def test_the_workflow_calls_the_script_with_options_that_it_has():
    job = read(".github/workflows/test.yml")["jobs"]["matrix"]
    assert job["continue-on-error"] == "${{ matrix.python == '3.14' }}"
    command = job["steps"][-1]["run"]
    for row in job["strategy"]["matrix"]["include"]:
        filled = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda match, row=row: row[match[1]], command)
        arguments = matrix.parser().parse_args(filled.split()[2:])
        assert (arguments.python, arguments.torch) == (row["python"], row["torch"])
        assert arguments.numba == (row["numba"] == "")


def test_an_environment_lets_the_matrix_choose_torch():
    requirements = matrix.Environment("3.10", "2.8.0", "4", numba=False).requirements
    assert [line for line in requirements if line.startswith("torch")] == ["torch==2.8.0"]
    assert [line for line in requirements if line.startswith("transformers")] == ["transformers>=4.37.2,<5"]
    assert not any("numba" in line for line in requirements) and "julius>=0.2.7" in requirements


def test_the_fast_tests_exist():
    assert [path for path in matrix.FAST if not (ROOT / path).exists()] == []


def test_a_version_tag_is_published():
    publish = read(".github/workflows/publish.yml")
    assert publish[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key `on` as true
    assert publish["jobs"]["publish"]["steps"][-1]["uses"].startswith("Comfy-Org/publish-node-action@")


def test_the_models_that_ship_are_in_what_the_registry_gets():
    """The archive is what git tracks, less what .comfyignore names: weights that were not added would ship a default without a file."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    left_out = [line for line in (ROOT / ".comfyignore").read_text().splitlines() if line and line[0] != "#"]
    tracked = subprocess.run(["git", "ls-files", "pretrained"], cwd=ROOT, capture_output=True, text=True, check=True)
    for file in SHIPPED.values():
        for path in (file, file.with_suffix(".card.json")):
            name = path.relative_to(ROOT).as_posix()
            assert name in tracked.stdout.splitlines(), f"git add {name}"
            assert not name.startswith(tuple(left_out))
        assert file.stat().st_size < 40_000_000  # GitHub refuses 100 MB


def test_the_bug_form_asks_for_the_doctor():
    fields = {field["id"]: field for field in read(".github/ISSUE_TEMPLATE/bug.yml")["body"]}
    assert "python -m musicgen doctor" in fields["doctor"]["attributes"]["label"]
    assert fields["doctor"]["validations"]["required"]


def test_the_guide_names_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"\b(?:tests|nodes|musicgen|training|reference)/[\w/]*\w(?:\.py|\.txt)?", text))
    assert len(paths) > 5 and {path for path in paths if not (ROOT / path).exists()} == set()
    targets = set(re.findall(r"\bmake (demo|test|lint|gpu|\w+)\b(?=`| {2,}|\))", text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()
