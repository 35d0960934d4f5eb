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


def test_every_generated_page_is_up_to_date(pages):
    assert {
        "losses.md",
        "configuration.md",
        "diagnostics.md",
        "gradients.md",
        "recipes.md",
        "latent_graph.svg",
    } <= set(pages)
    for name, text in pages.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"docs/{name} is stale; run `jepa-wm docs`"


def test_every_setting_has_its_meaning(pages):
    rows = [line for line in pages["configuration.md"].split("\n") if line.startswith("| `")]
    assert len(rows) > 50
    assert not [row for row in rows if row.split(" | ")[-1].strip(" |") == ""]


def test_a_page_without_its_marks_is_refused(tmp_path):
    (tmp_path / "page.md").write_text("# Gradients")
    with pytest.raises(UserError, match=r"page\.md lacks the marks"):
        docs.within(tmp_path / "page.md", "table")


def test_a_missing_folder_is_one_sentence(tmp_path, capsys):
    assert main(["docs", "--folder", str(tmp_path / "none")]) == 2
    assert "run it in a checkout" in capsys.readouterr().err
