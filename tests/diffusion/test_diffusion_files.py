"""MultiBand Diffusion files: audiocraft's and ours hold one model; anything odd is refused by name."""

from dataclasses import replace

import pytest
import torch
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.diffusion.checkpoint import open_diffusion
from comfyui_musicgen.musicgen.errors import CheckpointError
from comfyui_musicgen.musicgen.multiband import load_diffusion
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.musicgen.store.published import DIFFUSION_MODEL
from comfyui_musicgen.tests.toy.diffusion import TOY_UNET, write_toy_diffusion

SMALL = replace(TOY_UNET, hidden=4, codec_dim=16)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_toy_diffusion(tmp_path_factory.mktemp("mbd") / "mbd_musicgen_32khz.th", SMALL)


def changed(file, tmp_path, change):
    """A copy of the file's contents after change(contents)."""
    contents = torch.load(file, weights_only=True)
    change(contents)
    torch.save(contents, tmp_path / "changed.th")
    return tmp_path / "changed.th"


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_settings_and_weights_are_read(file):
    checkpoint = open_diffusion(file)
    assert checkpoint.config.sample_rate_hz == 32000 and checkpoint.config.latent_dim == 16
    assert [band.unet for band in checkpoint.config.bands] == [SMALL] * 4
    powers = [band.processor and band.processor.power_std for band in checkpoint.config.bands]
    assert powers == [None, None, 0.4, 0.75]
    model = load_diffusion(file)
    stored = torch.load(file, weights_only=True)
    for number, band in enumerate(model.decoder.bands):
        for name, weight in stored[number]["model_state"].items():
            assert torch.equal(band.unet.state_dict()[name], weight), name


def test_settings_may_be_a_pickled_dictconfig(file, tmp_path):
    """That is what the published files have; they are read without OmegaConf, and nothing in them is run."""
    omegaconf = pytest.importorskip("omegaconf")

    def wrap(table):
        return omegaconf.OmegaConf.create({**table, "sample_rate": 32000, "dset": {"x": "${sample_rate}"}})

    pickled = write_toy_diffusion(tmp_path / "mbd.pt", SMALL, wrap=wrap)
    assert b"omegaconf" in pickled.read_bytes()
    assert open_diffusion(pickled).config.bands == open_diffusion(file).config.bands
    assert same(load_diffusion(pickled), load_diffusion(file))


def test_converted_holds_the_same_model(file, tmp_path, capsys):
    target = tmp_path / "mbd.safetensors"
    assert main(["convert", str(file), str(target)]) == 0
    assert same(load_diffusion(target), load_diffusion(file))
    assert load_diffusion(target).config.bands == load_diffusion(file).config.bands
    assert main(["inspect", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "MultiBand Diffusion, 4 bands" in shown and "latents of width 16" in shown
    half = tmp_path / "half.safetensors"
    assert main(["convert", str(file), str(half), "--precision", "float16"]) == 0
    assert half.stat().st_size < target.stat().st_size
    name = "decoder.bands.0.unet.encoders.0.conv.weight"
    whole, rounded = (load_diffusion(path).state_dict()[name] for path in (target, half))
    assert torch.equal(whole.half().float(), rounded)
    assert load_diffusion(half, device="cuda").state_dict()[name].dtype == torch.float16
    assert load_diffusion(target, device="cuda").state_dict()[name].dtype == torch.float32


def test_damage_shows_when_a_converted_file_is_inspected(file, tmp_path, capsys):
    target = tmp_path / "mbd.safetensors"
    main(["convert", str(file), str(target)])
    data = bytearray(target.read_bytes())
    data[-3] ^= 1
    target.write_bytes(data)
    assert main(["inspect", str(target)]) == 1
    assert "checksum" in capsys.readouterr().err


CHANGES = {
    "missing": (lambda c: c[1]["model_state"].pop("decoders.0.norm.weight"), "band 1.*unet.decoders.0.norm.weight"),
    "left over": (lambda c: c[0]["model_state"].update(extra=torch.ones(1)), "not expected.*unet.extra"),
    "misshapen": (lambda c: c[2]["processor_state"].update(counts=torch.ones(2)), r"processor.counts is \[2\], not \[1\]"),
    "a band less": (lambda c: c.pop(3), "band 3 is missing"),
    "a band more": (lambda c: c.update({4: c[3]}), "a band 4, but says that it has 4"),
    "no bands": (lambda c: c.pop("n_bands"), "no MultiBand Diffusion model"),
    "stereo": (lambda c: c[0]["cfg"].update(channels=2), "'channels' is 2"),
    "steps": (lambda c: c[0]["cfg"]["schedule"].update(num_steps=500), "'schedule.num_steps' is 500"),
    "repartition": (lambda c: c[0]["cfg"]["schedule"].update(repartition="cosine"), "'schedule.repartition' is 'cosine'"),
    "schedule": (lambda c: c[0]["cfg"]["schedule"].update(beta_t0=0.5), "schedule from 0.5 to 0.029"),
    "n_bands": (lambda c: c[0]["cfg"]["schedule"].update(n_bands=4), "'schedule.n_bands' is 4"),
    "unknown setting": (lambda c: c[0]["cfg"]["diffusion_unet"].update(film=True), "'diffusion_unet.film' is True"),
    "unconditional": (lambda c: c[0]["cfg"]["diffusion_unet"].update(codec_dim=None), "'diffusion_unet.codec_dim' is None"),
    "other processor": (lambda c: c[2]["cfg"]["processor"].update(name="power"), "'processor.name' is 'power'"),
    "groups": (lambda c: c[0]["cfg"]["diffusion_unet"].update(hidden=6), "width 6 cannot be split into 4 groups"),
    "kernel": (lambda c: c[0]["cfg"]["diffusion_unet"].update(kernel=7), "kernel 7 must exceed its stride 4"),
    "no settings": (lambda c: c[0].pop("cfg"), "band 0 is missing, or without 'cfg'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_what_is_odd_is_refused_by_name(file, tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        open_diffusion(changed(file, tmp_path, change))


def test_a_processor_that_has_seen_nothing_is_refused(file, tmp_path):
    empty = changed(file, tmp_path, lambda c: c[2]["processor_state"].update(counts=torch.zeros(1)))
    with pytest.raises(CheckpointError, match="band 2: the levels of its processor"):
        load_diffusion(empty)


def test_a_bilstm_beside_a_transformer_is_dropped(tmp_path):
    """audiocraft saves it, and never runs it."""
    unet = replace(SMALL, hidden=8, transformer=True)
    file = write_toy_diffusion(tmp_path / "mbd.th", unet, n_bands=1)

    def add(contents):
        contents[0]["cfg"]["diffusion_unet"]["bilstm"] = True
        contents[0]["model_state"]["bilstm.linear.bias"] = torch.zeros(64)

    assert same(load_diffusion(changed(file, tmp_path, add)), load_diffusion(file))


def test_files_that_run_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return eval, ("1",)

    torch.save({"sample_rate": 32000, "n_bands": 1, 0: Evil()}, tmp_path / "evil.th")
    with pytest.raises(CheckpointError, match=r"eval.*refused"):
        open_diffusion(tmp_path / "evil.th")


# --- names


def test_diffusion_files_are_listed_by_content(file, tmp_path, toys):
    (tmp_path / "facebook").mkdir()
    other = tmp_path / "facebook" / "anything.bin"
    other.write_bytes(file.read_bytes())
    main(["convert", str(file), str(tmp_path / "mine.safetensors")])
    (tmp_path / "toy").symlink_to(toys(), target_is_directory=True)
    assert ModelStore([tmp_path]).list("diffusion") == ["facebook/anything.bin", "mine.safetensors"]
    assert ModelStore([tmp_path]).list() == ["toy"] == ModelStore([tmp_path]).list("weights")
    assert ModelStore([tmp_path]).find("mine.safetensors", "diffusion") == tmp_path / "mine.safetensors"


def test_the_published_one_is_found_with_or_without_its_folders(file, tmp_path):
    flat = tmp_path / "mbd_musicgen_32khz.th"
    flat.write_bytes(file.read_bytes())
    assert ModelStore([tmp_path]).find(DIFFUSION_MODEL, "diffusion") == flat
    full = tmp_path / DIFFUSION_MODEL
    full.parent.mkdir(parents=True)
    full.write_bytes(file.read_bytes())
    assert ModelStore([tmp_path]).find(DIFFUSION_MODEL, "diffusion") == full


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(CheckpointError, match="https://huggingface.co/facebook/multiband-diffusion into") as caught:
        ModelStore([tmp_path]).find(DIFFUSION_MODEL, "diffusion")
    assert str(tmp_path / "facebook" / "multiband-diffusion") in str(caught.value)
    for name in ("../secret.th", "/etc/passwd", "", "no\\way"):
        with pytest.raises(CheckpointError):
            ModelStore([tmp_path]).find(name, "diffusion")


def test_a_model_of_music_is_no_diffusion(toys):
    with pytest.raises(CheckpointError, match="no MultiBand Diffusion model"):
        open_diffusion(toys() / "state_dict.bin")
