"""The generated pages are those in docs/."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_world_model.cli import main
from jepa_world_model.commands import docs
from jepa_world_model.core.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def pages():
    return docs.pages(DOCS)


@pytest.mark.parametrize("name", ["losses.md", "configuration.md", "gradients.md", "latent_graph.svg"])
def test_the_page_is_up_to_date(pages, name):
    assert (DOCS / name).read_text(encoding="utf-8") == pages[name], (
        f"docs/{name} is stale; run `jepa-wm docs`"
    )


def test_every_setting_has_its_meaning(pages):
    rows = [line for line in pages["configuration.md"].split("\n") if line.startswith("| `")]
    assert len(rows) > 50
    assert not [row for row in rows if row.split(" | ")[-1].strip(" |") == ""]


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(UserError, match="lacks the marks"):
        docs.within("# Gradients", "table")


def test_a_missing_folder_is_one_sentence(tmp_path, capsys):
    assert main(["docs", "--folder", str(tmp_path / "none")]) == 2
    assert "run it in a checkout" in capsys.readouterr().err
