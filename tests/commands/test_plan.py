"""`jepa-wm plan`: from a run folder to a table, results and pictures; mistakes are one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import jepa_world_model_trainer as trainer
from jepa_world_model.cli import main
from jepa_world_model.diagnostics.plan_pictures import chosen_episodes
from jepa_world_model.planning.closed_loop import Episodes
from tests.experiment.test_run import TINY

FAST = [
    "--episodes",
    "3",
    "--steps",
    "6",
    "--horizon",
    "4",
    "--replan",
    "3",
    "--graph-frames",
    "100",
    "--pictures",
    "2",
]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A tiny run below the present folder."""
    patch, place = pytest.MonkeyPatch(), tmp_path_factory.mktemp("plan")
    patch.chdir(place)
    assert trainer.main([*TINY, "--steps", "2", "--name", "a", "--no-report"]) == 0
    yield place / "runs" / "a"
    patch.undo()


def test_a_run_is_planned_with_and_written_down(folder, capsys):
    assert main(["plan", "runs/a", *FAST]) == 0
    out = capsys.readouterr().out
    for arm in ("model", "random policy", "standing still", "untrained model", "perfect dynamics, true way"):
        assert arm in out
    assert "candidate-steps/s" in out
    made = folder / "planning" / "gridworld-auto-graph-s0"
    told = json.loads((made / "results.json").read_text())
    assert told["arms"]["model"]["episodes"] == 3
    assert told["manifest"]["step"] == 2
    assert {"model", "data", "pairs"} == set(told["manifest"]["sha256"])
    with Image.open(made / "episodes.png") as picture:
        assert picture.size[0] > 2 * 200
    with Image.open(made / "episodes.gif") as film:
        assert film.n_frames == 7


def test_a_label_a_checkpoint_and_no_baselines(folder, capsys):
    assert (
        main(
            [
                "plan",
                "runs/a",
                *FAST,
                "--no-baselines",
                "--label",
                "mine",
                "--checkpoint",
                "2",
                "--pictures",
                "0",
            ]
        )
        == 0
    )
    assert "random policy" not in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "planning" / "mine").iterdir()) == [
        "episodes.json",
        "results.json",
    ]


@pytest.mark.parametrize(("words", "sentence"), [
    ([], "name the run to plan with"), (["runs/b"], "is no run"),
    (["runs/a", "--checkpoint", "9"], "no checkpoint of step 9; there are [2]"),
    (["runs/a", "--checkpoint"], "--checkpoint takes a value"), (["runs/a", "--checkpoint", "x"], "number of a step"),
    (["runs/a", "--label", "a/b"], "no folder name"), (["runs/a", "--cost", "pose"], "--loss-weights.pose-measure-p"),
    (["runs/a", "--cost", "steps"], "--loss-weights.temporal-distance"), (["runs/a", "--planner", "icem"], "use --planner"),
    (["runs/a", "--replan", "9"], "use replan <= 4"), (["runs/a", "--epsiodes", "3"], "did you mean --episodes"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(capsys, words, sentence):
    assert main(["plan", *words[:1], *FAST, *words[1:]] if words else ["plan", *FAST]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err
    assert err.strip().count("\n") == 0


def test_pictures_show_failures_and_arrivals():
    won = np.array([True, False, True, True, False, False, True, True])
    rows = Episodes(
        starts=np.zeros((8, 2)), goals=np.zeros((8, 2)), places=np.zeros((8, 2, 2)), actions=np.zeros((8, 1)),
        distance=np.zeros((8, 2)), optimal=np.zeros(8), success={"ever": won},
        solved_at_start=~won, steps_to_goal=np.zeros(8),
    )  # fmt: skip
    assert chosen_episodes(rows, 4) == [0, 1, 2, 4]
    assert chosen_episodes(rows, 8) == list(range(8))
    rows.success["ever"][:] = True
    assert chosen_episodes(rows, 3) == [0, 1, 2]
