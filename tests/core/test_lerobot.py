from __future__ import annotations

import json

import numpy as np
import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.lerobot import Contents, is_folder, read_folder, write_folder

pytest.importorskip("pyarrow")
pytest.importorskip("av")
pytestmark = pytest.mark.extra


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    contents = Contents(
        fps=30.0,
        bounds=np.array([[0, 3], [3, 2]]),
        columns={"wide": rng.normal(size=(5, 4)).astype(np.float32), "single": np.arange(5)},
        names={"wide": "abcd"},
        cameras={"eye": list(rng.integers(0, 256, (5, 16, 18, 3), np.uint8))},
        sizes={"eye": (16, 18)},
        tasks=("left", "right"),
        task=np.array([1, 1, 1, 0, 0]),
    )
    write_folder(tmp_path / "set", contents, robot_type="none", crf=0, extra="data")
    return tmp_path / "set", contents


def test_columns_frames_tasks_and_names_come_back(folder):
    path, wanted = folder
    found = read_folder(path, "data")
    for name, column in wanted.columns.items():
        np.testing.assert_array_equal(found.column(name), column)
    np.testing.assert_array_equal(np.stack(list(found.frames("eye"))), wanted.cameras["eye"])
    assert (found.cameras, found.tasks, found.fps) == (["eye"], ("left", "right"), 30.0)
    assert (found.lengths.tolist(), found.names("wide")) == ([3, 2], tuple("abcd"))
    assert found.column("task_index").tolist() == [1, 1, 1, 0, 0]


def test_the_statistics_are_those_of_the_columns(folder):
    path, wanted = folder
    stats = json.loads((path / "meta/stats.json").read_text())
    np.testing.assert_allclose(stats["wide"]["mean"], wanted.columns["wide"].mean(0), rtol=1e-6)
    assert (stats["single"]["min"], stats["single"]["max"], stats["single"]["count"]) == ([0], [4], [5])


def test_a_column_that_is_not_there_is_told_with_those_that_are(folder):
    with pytest.raises(UserError, match="has no column action; it has wide, single, timestamp"):
        read_folder(folder[0], "data").column("action")


def test_other_folders_are_not_mistaken_for_one(folder, tmp_path):
    assert is_folder(folder[0])
    assert not is_folder(tmp_path)
    with pytest.raises(UserError, match="is no LeRobotDataset"):
        read_folder(tmp_path, "data")
