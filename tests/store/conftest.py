"""The web site that all tests of downloads share."""

import pytest
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.tests.store.web_site import DATA, NAME, PATH, SMALL, publish, running

VARIABLES = (
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)


@pytest.fixture
def site(monkeypatch):
    """A web site with one file of weights on it. Nothing in this machine's environment leads elsewhere."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with running() as site:
        site.files[PATH] = DATA
        site.headers[PATH] = {"ETag": '"v1"'}
        yield site


@pytest.fixture
def hub(site, toys, monkeypatch):
    """The site as a mirror of the hub, on this machine and without TLS, with a small musicgen-small on it."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    folder = toys(**SMALL)
    names = ("state_dict.bin", "compression_state_dict.bin")
    publish(site, NAME, {name: (folder / name).read_bytes() for name in names})
    return site


@pytest.fixture
def store(hub, tmp_path):
    return ModelStore([tmp_path], network=hub.network)
