"""A training from data to evaluation, with a model of a few thousand parameters."""

from __future__ import annotations

import json
import math

import pytest
import torch

from jepa_world_model.core.config import cli_main
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.log import read_metrics
from jepa_world_model.vla_ki.build import build
from jepa_world_model.vla_ki.check import check_main
from jepa_world_model.vla_ki.evaluate import eval_main
from jepa_world_model.vla_ki.prompt import PromptBuilder, PromptConfig
from jepa_world_model.vla_ki.train import Guard, train_main
from tests.vla_ki.tiny import flags, words

for package in ("tokenizers", "pyarrow", "av"):
    pytest.importorskip(package)
pytestmark = pytest.mark.extra


def metrics(folder) -> dict[int, dict[str, float]]:
    return {int(row["step"]): row for row in read_metrics(folder / "metrics.jsonl")}


def test_a_run_trains_evaluates_and_can_be_evaluated_again(place, capsys):
    assert train_main(flags(place, name="first", batch_size=16)) == 0
    said = capsys.readouterr().err
    assert "knowledge insulation on in the training graph" in said
    assert "read the two curves apart" in said
    folder = place / "runs" / "first"
    rows = metrics(folder)
    assert set(rows) == {1, 2, 3, 4}
    assert rows[1]["loss/fast_ce"] == pytest.approx(math.log(1024), abs=0.5)  # fresh weights: chance
    for name in (
        "fast_ce",
        "flow",
        "text_ce",
        "chunk_mse",
        "vqa_open",
        "vqa_closed",
        "vlm_drift",
        "success_held_out",
    ):
        assert math.isfinite(rows[4][f"eval/{name}"])
    assert {"grad_norm/vision", "grad_norm/vlm", "grad_norm/expert"} <= set(rows[2])
    reach = json.loads((folder / "reach.json").read_text())
    assert reach["losses"]["flow"]["structural"] == ["expert"]
    assert eval_main(["--run", str(folder), "--eval-rows", "4", "--eval-episodes", "2"]) == 0
    again = json.loads((folder / "evaluation.json").read_text())
    assert again["eval/flow"] == pytest.approx(rows[4]["eval/flow"], rel=1e-5)
    assert again["eval/vqa_closed"] == rows[4]["eval/vqa_closed"]


def test_a_resumed_run_is_bitwise_the_one_that_was_not_stopped(place):
    train_main(flags(place, name="whole", ema=0.5))
    train_main(flags(place, name="parts", ema=0.5, steps=2))
    train_main(words({"resume": place / "runs" / "parts", "steps": 4}))
    from safetensors.torch import load_file

    for file in ("model", "average"):
        path = f"checkpoints/step-00000004/{file}.safetensors"
        a, b = (load_file(place / "runs" / name / path) for name in ("whole", "parts"))
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_compiled_run_learns_the_same_and_says_what_it_compiled(place, capsys, monkeypatch):
    monkeypatch.setattr("jepa_world_model.core.compiled.inductor", lambda listed, inputs: listed)
    asked = {"batch_size": 8, "data.questions_first": 2}
    train_main(flags(place, name="plain", **asked))
    assert "\ncompiled " not in capsys.readouterr().err
    train_main(flags(place, name="compiled", compile=True, **asked))
    assert capsys.readouterr().err.count("\ncompiled ") == 2  # questions alone, and with robot rows
    plain, compiled = (metrics(place / "runs" / name) for name in ("plain", "compiled"))
    for step, row in plain.items():
        for name, value in row.items():
            if name.startswith(("loss/", "grad_norm/")):
                assert compiled[step][name] == pytest.approx(value, rel=1e-6), (step, name)


@pytest.mark.parametrize(
    "arm",
    [
        {"model.knowledge_insulation": False},  # joint
        {"model.knowledge_insulation": False, "leak": 0.1},
        {"model.knowledge_insulation": False, "freeze_vlm": True},
        {"model.knowledge_insulation": False, "ki_fast_loss_weight": 0, "data.vqa_share": 0},  # flow only
        {"flow_weight": 0},  # FAST only
        {"data.vqa_share": 1.0, "flow_weight": 0},  # questions only
        {"lora_rank": 2, "precision": "bf16", "model.checkpointing": True},
    ],
    ids=lambda a: "-".join(map(str, a.values())),
)
def test_every_arm_of_the_comparison_trains(place, arm):
    name = "-".join(f"{k}{v}" for k, v in arm.items()).replace(".", "")
    assert train_main(flags(place, name=name, steps=1, eval_episodes=0, **arm)) == 0
    assert math.isfinite(metrics(place / "runs" / name)[1]["loss/total"])


def test_an_arm_starts_from_the_weights_and_tokenizers_of_another_run(place):
    train_main(flags(place, name="stage0", steps=1, **{"data.vqa_share": 1.0, "flow_weight": 0}))
    from jepa_world_model.core.config import load_config
    from jepa_world_model.vla_ki.config import KITrainConfig

    start = place / "runs" / "stage0"
    cfg = load_config(KITrainConfig, flags(place, init=start, seed=5), prog="x")
    exp = build(cfg)
    saved = build(
        load_config(KITrainConfig, flags(place, init=start, seed=6), prog="x")
    ).task.model.state_dict()
    assert all(torch.equal(v, saved[k]) for k, v in exp.task.model.state_dict().items())
    assert exp.tools.text.to_json() == json.loads((start / "tokenizers.json").read_text())["text"]


def test_the_check_command_proves_a_configuration(place, capsys):
    assert check_main(flags(place)) == 0
    assert "10 of 10 proofs hold" in capsys.readouterr().out


def test_the_alias_of_the_fast_weight_is_understood(place, capsys):
    assert cli_main(lambda: train_main([*flags(place), "--knowledge_insulation_lambda=-2"])) == 2
    assert "ki_fast_loss_weight must be finite and 0 or above, got -2" in capsys.readouterr().err


def test_what_cannot_be_run_is_said_in_one_sentence(place, tmp_path):
    with pytest.raises(UserError, match=r"holds no config.toml"):
        eval_main(["--run", str(tmp_path)])
    with pytest.raises(UserError, match="which run"):
        eval_main([])
    with pytest.raises(UserError, match="FAST loses"):
        train_main(flags(place, name="coarse", **{"data.fast_scale": 0.3}))
    with pytest.raises(UserError, match="gives 1 cameras"):
        train_main(flags(place, name="cameras", **{"model.cameras": 2}))


def test_the_guard_stops_copy_tasks_and_cut_answers():
    builder = PromptBuilder(None, PromptConfig())
    guard = Guard(builder)
    guard.write(10, {"loss/fast_ce": 3.0})
    guard.write(60, {"loss/fast_ce": 0.01})
    with pytest.raises(UserError, match="copy task"):
        guard.write(40, {"loss/fast_ce": 0.01})
    builder.rows, builder.cut_answers = 1000, 11
    with pytest.raises(UserError, match="11 of 1000 answers were cut"):
        guard.write(60, {})


def test_the_copy_task_is_looked_for_when_robot_rows_begin():
    guard = Guard(PromptBuilder(None, PromptConfig()), first=100)
    guard.write(40, {"loss/fast_ce": 0.0})
    guard.write(160, {"loss/fast_ce": 0.01})
    with pytest.raises(UserError, match=r"0.010 after 20 steps"):
        guard.write(120, {"loss/fast_ce": 0.01})


def test_what_the_expert_reads_moves_slower_than_the_expert(place):
    flow = {"steps": 1, "eval_episodes": 0, "optim.warmup_steps": 0, "vlm_rate": 0.001}
    train_main(flags(place, name="slow", **flow))
    train_main(flags(place, name="alone-fast", **flow, flow_weight=0))
    drift = [metrics(place / "runs" / name)[1]["eval/vlm_drift"] for name in ("slow", "alone-fast")]
    assert drift[0] < 0.01 * drift[1]  # without an expert nothing waits


def test_losses_without_rows_are_not_logged(place):
    train_main(flags(place, name="alone", eval_episodes=0, **{"data.questions_first": 2}))
    rows = metrics(place / "runs" / "alone")
    assert ["loss/flow" in rows[step] for step in (1, 2, 3, 4)] == [False, False, True, True]
    assert rows[1]["grad_norm/expert"] == 0


def test_a_folder_of_ones_own_trains_with_questions_of_ones_own(place, tmp_path):
    from tests.vla_ki.test_questions import write

    arm_folder = next((place / "datasets").iterdir())
    write(tmp_path, [{"question": f"what is {i}?", "answer": f"{i}"} for i in range(6)])
    given = {"data.folder": arm_folder, "data.questions_folder": tmp_path}
    assert train_main(flags(place, name="own", steps=1, **given)) == 0
    row = metrics(place / "runs" / "own")[1]
    assert math.isfinite(row["eval/vqa_open"])
    assert "eval/success_seen" not in row  # nobody can simulate somebody else's robot
    with pytest.raises(UserError, match=r"give --data.questions-folder"):
        train_main(flags(place, name="none", **{"data.folder": arm_folder}))
