"""Hundreds of damaged or hostile checkpoints: each a clear error, or a sound load. Nothing runs, hangs, or eats the memory."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from comfyui_musicgen.musicgen.checkpoints import open_checkpoint
from comfyui_musicgen.musicgen.checkpoints.tools.convert import convert
from comfyui_musicgen.musicgen.store.text_encoders import find_text_encoder
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
TINY = {"dim": 16, "n_heads": 2, "n_layers": 1, "cardinality": 32, "n_filters": 2, "latent_dim": 8, "melody": True}
SHARES = {"audiocraft": 1, "huggingface": 2, "sharded": 2, "trainer": 1, "converted": 2}
N_SHARE = int(os.environ.get("CORRUPTED_FILES", 320)) // sum(SHARES.values())  # CORRUPTED_FILES=2000: before a release
MAX_S = 9  # the slowest takes 2 on a free core
MAX_GROWTH_BYTES = 400 * 2**20


@pytest.fixture(scope="module")
def folder(toys, tmp_path_factory):
    """A sound checkpoint of each format."""
    omegaconf = pytest.importorskip("omegaconf")
    root = tmp_path_factory.mktemp("corrupted")
    for format in ("audiocraft", "huggingface"):
        shutil.copytree(toys(**TINY, format=format), root / format)
    tensors = load_file(root / "huggingface" / "model.safetensors")
    places = {name: f"model-{1 + i % 2}.safetensors" for i, name in enumerate(sorted(tensors))}
    (root / "sharded").mkdir()
    shutil.copy(root / "huggingface" / "config.json", root / "sharded")
    for shard in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == shard}, root / "sharded" / shard)
    (root / "sharded" / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    exported = torch.load(root / "audiocraft" / "state_dict.bin", weights_only=True)
    config = omegaconf.OmegaConf.create(yaml.safe_load(exported["xp.cfg"]))
    torch.save({"xp.cfg": config, "model": exported["best_state"]}, root / "trained_model.tar")
    (root / "encodec_32khz").mkdir()
    shutil.copy(root / "audiocraft" / "compression_state_dict.bin", root / "encodec_32khz")
    checkpoint = open_checkpoint(root / "huggingface")
    convert(checkpoint, root / "one.safetensors", text_encoder=find_text_encoder(checkpoint, []))
    return root


@pytest.fixture(scope="module")
def reports(folder):
    """What came of each format's damaged files."""
    shares = [f"{format}={share * N_SHARE}" for format, share in SHARES.items()]
    command = [sys.executable, str(ROOT / "tests/data/corrupt.py"), str(ROOT), str(folder), *shares]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    return {report["format"]: report for report in reports}, done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is limited and measured as Linux does")
@pytest.mark.parametrize("format", SHARES)
def test_damaged_and_hostile_files_are_clear_errors(reports, format):
    n_files = SHARES[format] * N_SHARE
    report, errors = reports[0][format], reports[1]
    assert "ended" not in report, f"the process ended with {report['ended']}: {errors[-3000:]}"
    results = report["results"]
    assert len(results) == n_files
    assert {(kind, outcome) for kind, outcome, _ in results if outcome not in ("error", "loaded")} == set()
    assert max(seconds for _, _, seconds in results) < MAX_S
    assert report["grown"] < MAX_GROWTH_BYTES
    assert report["ran"] is False
    outcomes = Counter(outcome for _, outcome, _ in results)
    assert outcomes["error"] > n_files / 2, "most damage shows"
    assert len({kind for kind, _, _ in results}) >= 6
