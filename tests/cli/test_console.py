"""What the commands show on a terminal."""

from comfyui_musicgen.musicgen.cli.console import Progress


def test_a_bar_follows_a_total_that_changes(capsys):
    """A stage is several downloads, and how much there is to do shows only once the first server has answered."""
    with Progress() as on_progress:
        for done, total in ((0, 1), (5, 10), (10, 10), (0, 20), (20, 20)):
            on_progress("downloading", done, total)
    assert "20/20" in capsys.readouterr().err
