"""The comparison: every arm is a configuration that may be, claims are judged as stated, a small one runs."""

from __future__ import annotations

import pytest

from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.arms import ARMS, CLAIMS, COLUMNS, ArmsConfig, arm_config, arms_main, to_markdown
from tests.vla_ki.tiny import flags

pytestmark = pytest.mark.extra


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_a_configuration_that_may_be(name):
    cfg = arm_config(ArmsConfig(), ARMS[name], 1, "runs/start")
    assert cfg.seed == 1
    assert (cfg.init == "") == name.endswith("from_0")
    assert cfg.setting == ("joint" if name.startswith("open") else "insulated")
    assert (cfg.weights["text_ce"] > 0) == ("vqa" in name)


def results(**changes: float) -> dict:
    base = dict.fromkeys(COLUMNS, 0.9) | {"steps_to_0.5": 100.0, "step_ms": 10.0}
    table = {name: {0: dict(base)} for name in ("stage0b", *ARMS)}
    table["open_flow"][0]["fast_ce"] = 3.0
    table["open_10"][0]["vqa_closed"] = 0.5
    table["insulated_vqa_from_0"][0]["steps_to_0.5"] = 1000.0
    for name, value in changes.items():
        arm, _, column = name.partition("__")
        table[arm][0][column] = value
    return table


def test_claims_hold_and_fail_as_stated():
    assert to_markdown(results()).count(" held: ") == len(CLAIMS)
    for claim, change in {
        "E1": {"insulated_vqa__vqa_closed": 0.87},
        "E2": {"insulated__fast_ce": 1.0},
        "E3": {"insulated__vqa_closed": 0.54},
        "E4": {"insulated_vqa_long__success_seen": 0.84},
        "E5": {"insulated_vqa_long__steps_to_0.5": float("inf")},
        "E6": {"insulated_vqa__step_ms": 10.6},
    }.items():
        page = to_markdown(results(**change))
        assert f"{claim} failed" in page
        assert page.count("failed") == 1
    some = {name: row for name, row in results().items() if name in ("stage0b", "insulated_vqa")}
    assert to_markdown(some).count("not run") == len(CLAIMS) - 1


def test_a_small_comparison_runs_and_is_not_run_twice(place, capsys):
    base = [f"--base.{word[2:]}" if word.startswith("--") else word for word in flags(place, steps=1)]
    argv = [*base, "--seeds", "0", "--arms", "open", "insulated_vqa", "--output-dir", str(place / "arms")]
    argv += ["--stage0-steps", "1", "--stage0b-steps", "1", "--arm-steps", "1"]
    assert arms_main(argv) == 0
    first = (place / "arms" / "arms.md").read_text()
    assert "| insulated_vqa |" in first
    assert "E5 not run" in first
    assert arms_main(argv) == 0
    assert (place / "arms" / "arms.md").read_text() == first


def test_unknown_arms_are_refused():
    with pytest.raises(UserError, match="unknown arms"):
        ArmsConfig(arms=("closed",))
