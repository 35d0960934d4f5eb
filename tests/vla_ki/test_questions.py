"""Questions from a folder: read, split, and lines that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.questions import read_questions, split_questions


def write(folder: Path, rows: list[dict]) -> Path:
    for i, row in enumerate(rows):
        Image.fromarray(np.full((20, 40, 3), 10 * i, np.uint8)).save(folder / f"{i}.png")
        row.setdefault("image", f"{i}.png")
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return folder


def test_rows_are_read_with_their_pictures(tmp_path):
    found = read_questions(write(tmp_path, [{"question": f"q{i}", "answer": f"a{i}"} for i in range(5)]), 32)
    assert found.images.shape == (5, 3, 32, 32)
    assert (found.questions[3], found.answers[3]) == ("q3", "a3")
    assert (found.images[3, :, 16] == 30).all()
    train, val = split_questions(found, 0.4, np.random.default_rng(0))
    assert sorted([*train.questions, *val.questions]) == [f"q{i}" for i in range(5)]
    assert len(val) == 2
    assert all(
        (p == 10 * int(q[1])).any() for p, q in zip(train.images[:, :, 16], train.questions, strict=True)
    )


def test_what_cannot_be_used_is_named_by_its_line(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_questions(tmp_path, 32)
    write(tmp_path, [{"question": "q", "answer": "a"}, {"question": "q"}])
    with pytest.raises(UserError, match=r"line 2: KeyError\('answer'\)"):
        read_questions(tmp_path, 32)
    write(tmp_path, [{"question": "q", "answer": "a", "image": "none.png"}])
    with pytest.raises(UserError, match="line 1: FileNotFoundError"):
        read_questions(tmp_path, 32)
    (tmp_path / "questions.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no questions"):
        read_questions(tmp_path, 32)
    one = read_questions(write(tmp_path, [{"question": "q", "answer": "a"}]), 32)
    with pytest.raises(UserError, match="at least 2 questions"):
        split_questions(one, 0.5, np.random.default_rng(0))
