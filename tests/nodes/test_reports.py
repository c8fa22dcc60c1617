"""Reports of nodes: shown at once, and an output that ComfyUI sends again with a result that it has already."""

import pytest
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.nodes import host, reports


@pytest.fixture
def shown(monkeypatch):
    texts = []
    monkeypatch.setattr(host, "executing_node", lambda: "7")
    monkeypatch.setattr(host, "show_text", texts.append)
    return texts


def test_a_report_is_an_output_within_comfyui_and_none_without(shown, monkeypatch):
    made = NODES["MusicGenLength"]().measure(25.0, 0.0, length="1:30")
    assert shown == ["90.00 s"] and made["ui"] == {"text": shown} and made["result"][0] == 90.0
    monkeypatch.setattr(host, "executing_node", lambda: None)
    assert NODES["MusicGenLength"]().measure(25.0, 0.0, length="1:30") == made["result"]


def test_the_last_report_stays_and_a_node_without_one_returns_its_result(shown):
    def reporting(*texts):
        for text in texts:
            reports.show(text)
        return (1,)

    assert reports.with_report(lambda: reporting("first", "last"), {}) == {"ui": {"text": ["last"]}, "result": (1,)}
    assert reports.with_report(lambda: reporting(), {}) == (1,)
    assert shown == ["first", "last"]
    outer = reports.with_report(
        lambda: (reports.show("own"), reports.with_report(lambda: reporting("of another"), {})), {}
    )
    assert outer["ui"] == {"text": ["own"]}
