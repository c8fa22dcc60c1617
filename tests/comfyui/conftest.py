"""The one server and the one page that the tests of a real ComfyUI share."""

import pytest
from comfyui_musicgen.tests.comfyui import page as browser_page


@pytest.fixture(scope="package")
def browser():
    with browser_page.browser() as browser:
        yield browser


@pytest.fixture(scope="package", params=[False, True], ids=["canvas", "nodes-2.0"])
def page(request, comfy, browser):
    """The page, in the classic canvas and in Nodes 2.0 (`nodes2`)."""
    settings = {
        "Comfy.TutorialCompleted": True,
        "Comfy.Minimap.Visible": False,
        "Comfy.VueNodes.Enabled": request.param,
    }
    comfy.post("/settings", settings)
    comfy.post("/history", {"clear": True})  # the page cannot read the NaN of prompts that were to be refused
    page = browser_page.open_page(browser, comfy.address, width=1600, height=900)
    page.nodes2 = request.param
    yield page
    page.close()


@pytest.fixture(autouse=True)
def _no_errors_of_others(request):
    if "page" in request.fixturenames:
        request.getfixturevalue("page").errors.clear()
