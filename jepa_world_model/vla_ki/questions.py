"""Questions about pictures from a folder: `questions.jsonl` and the image files that it names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.images import resize_with_pad
from jepa_world_model.vla_ki.samples import Questions

LIST = "questions.jsonl"


def read_questions(folder: str | Path, image_size: int) -> Questions:
    """Rows {"image": path, "question": text, "answer": text}, one a line.

    Paths are relative to the folder; pictures become squares with black bars. Errors: UserError that names
    the line.
    """
    from PIL import Image, UnidentifiedImageError

    folder = Path(folder)
    path = folder / LIST
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; a folder of questions holds {LIST} and the pictures it names"
        )
    images, rows = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts = [str(row[name]) for name in ("question", "answer")]
            with Image.open(folder / row["image"]) as picture:
                pixels = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)[None]
        except (json.JSONDecodeError, KeyError, TypeError, UnidentifiedImageError, OSError) as error:
            raise UserError(
                f"{path}, line {number}: {error!r}; a line is a JSON object with image, question and answer, "
                "and the image must open"
            ) from None
        images.append(resize_with_pad(pixels, image_size)[0])
        rows.append(texts)
    if not rows:
        raise UserError(f"{path} holds no questions")
    questions, answers = zip(*rows, strict=True)
    return Questions(np.stack(images), questions, answers)


def split_questions(
    found: Questions, val_share: float, rng: np.random.Generator
) -> tuple[Questions, Questions]:
    """Training and validation questions, at least one of each. Errors: UserError for a single question."""
    count = len(found)
    if count < 2:
        raise UserError("training and validation need at least 2 questions")
    held = int(np.clip(round(val_share * count), 1, count - 1))
    order = rng.permutation(count)

    def take(index: np.ndarray) -> Questions:
        return Questions(
            found.images[index], [found.questions[i] for i in index], [found.answers[i] for i in index]
        )

    return take(np.sort(order[held:])), take(np.sort(order[:held]))
