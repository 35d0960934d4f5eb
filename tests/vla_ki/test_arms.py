"""The comparison: every arm is a configuration that may be, and a small one runs, stops, and goes on."""

from __future__ import annotations

import json
import shutil

import pytest

from jepa_world_model.core.config import load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki import arms
from jepa_world_model.vla_ki.arms import ARMS, ArmsConfig, arm_config, arms_main, jobs
from tests.vla_ki.tiny import flags

pytestmark = pytest.mark.extra


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_a_configuration_that_may_be(name):
    given = ArmsConfig()
    cfg = arm_config(given, name, "stage0b", 1)
    assert cfg.seed == 1
    assert cfg.init.endswith("stage0b-s1")
    barrier_open = name.startswith(("joint", "open"))
    assert cfg.setting == ("joint" if barrier_open else "insulated")
    assert (cfg.weights["text_ce"] > 0) == ("vqa" in name)
    robots = round(cfg.batch_size * (1 - cfg.data.vqa_share))
    assert robots == round(given.base.batch_size * (1 - given.base.data.vqa_share))


def test_arms_come_after_the_stages_that_they_start_from():
    order = [(job.arm, job.start, job.seed) for job in jobs(ArmsConfig(seeds=(0, 1)))]
    assert order[:4] == [
        ("stage0", "", 0),
        ("stage0b", "stage0", 0),
        ("stage0", "", 1),
        ("stage0b", "stage0", 1),
    ]
    assert len(order) == 4 + 2 * (2 * len(ARMS) - 3)
    assert ("joint_10", "stage0", 0) not in order


def words(place, *more: str) -> list[str]:
    base = [f"--base.{word[2:]}" if word.startswith("--") else word for word in flags(place)]
    argv = [*base, "--seeds", "0", "--arms", "joint", "insulated_vqa", "--starts", "stage0b"]
    argv += ["--output-dir", str(place / "arms"), "--stage0-steps", "1", "--stage0b-steps", "1"]
    argv += ["--base.keep-checkpoints", "2"]
    return [*argv, "--arm-steps", "4", *more]


def test_a_small_comparison_runs_goes_on_where_it_stopped_and_is_not_run_twice(place, capsys, monkeypatch):
    assert arms_main(words(place, "--minutes", "0.0000001")) == 0  # over before it begins
    assert not (place / "arms" / "arms.md").exists()
    assert arms_main(words(place)) == 0
    first = (place / "arms" / "arms.md").read_text()
    assert "| insulated_vqa@stage0b | 1 |" in first
    assert "E5 open" in first
    shutil.rmtree(place / "arms" / "joint-from-stage0b-s0" / "checkpoints" / "step-00000004")
    trained, real = [], arms.train
    monkeypatch.setattr(arms, "train", lambda cfg: trained.append((cfg.name, cfg.resume)) or real(cfg))
    assert arms_main(words(place)) == 0
    assert (
        [name for name, resume in trained if resume]
        == ["joint-from-stage0b-s0"]
        == [name for name, _ in trained]
    )
    ends = json.loads((place / "arms" / "arms.json").read_text())["ends"]
    assert ends["joint@stage0b"]["0"]["vlm_drift"] >= 0
    assert "Claims were written down" in (place / "arms" / "arms.html").read_text()


def test_a_signal_ends_the_comparison_not_the_run_alone(place, monkeypatch):
    from jepa_world_model.core.engine import Outcome

    cfg = load_config(ArmsConfig, words(place, "--output-dir", str(place / "stopped")), prog="x")
    monkeypatch.setattr(arms, "train", lambda config: (None, Outcome(step=1, interrupted=True)))
    with pytest.raises(UserError, match="after 1 steps; call again"):
        arms.run_arms(cfg)


@pytest.mark.parametrize(
    ("wrong", "claim"),
    [
        ({"arms": ("closed",)}, r"unknown arms \['closed'\]"),
        ({"starts": ("nowhere",)}, "unknown starts"),
        ({"seeds": ()}, "at least one seed"),
        ({"minutes": -1.0}, "minutes must be 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(wrong, claim):
    with pytest.raises(UserError, match=claim):
        ArmsConfig(**wrong)
