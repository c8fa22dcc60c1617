"""The web site that all tests of downloads share."""

import pytest
from comfyui_musicgen.tests.store.web_site import DATA, PATH, running

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
