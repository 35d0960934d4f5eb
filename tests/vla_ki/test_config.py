"""Configurations: what is derived, and the combinations that would train the wrong thing in silence."""

from __future__ import annotations

import pytest

from jepa_world_model.core.config import from_toml, load_config, to_toml
from jepa_world_model.core.errors import UserError
from jepa_world_model.vla_ki.config import KIDataConfig, KITrainConfig, read_config
from jepa_world_model.vla_ki.model import KIConfig
from jepa_world_model.vla_ki.table import BARRIER

OPEN = KIConfig(knowledge_insulation=False)


def test_the_flag_of_the_model_is_the_barrier():
    assert KITrainConfig().gates()[BARRIER] == 0
    assert KITrainConfig(model=OPEN).gates()[BARRIER] == 1
    leaky = KITrainConfig(model=OPEN, leak=0.1)
    assert (leaky.setting, leaky.gates()[BARRIER]) == ("leaky", 0.1)
    assert KITrainConfig(model=OPEN, leak=0.0).gates()[BARRIER] == 0


def test_losses_without_rows_are_off():
    assert KITrainConfig().weights == {"fast_ce": 1.0, "text_ce": 1.0, "flow": 1.0}
    assert KITrainConfig(data=KIDataConfig(vqa_share=0)).weights["text_ce"] == 0
    only_questions = KITrainConfig(data=KIDataConfig(vqa_share=1.0))
    assert only_questions.weights == {"fast_ce": 0.0, "text_ce": 1.0, "flow": 0.0}
    frozen = KITrainConfig(model=OPEN, freeze_vlm=True)
    assert frozen.weights == {"fast_ce": 0.0, "text_ce": 0.0, "flow": 1.0}


@pytest.mark.parametrize("cause", [{"ki_fast_loss_weight": 0.0}, {"freeze_vlm": True}])
def test_insulation_without_a_teacher_is_a_frozen_backbone_in_disguise(cause):
    with pytest.raises(UserError, match="frozen backbone in disguise"):
        KITrainConfig(**cause)
    KITrainConfig(model=OPEN, **cause)  # said plainly, it may be


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow_weight": -1.0}, "flow_weight must be finite and 0 or above, got -1"),
        ({"ki_fast_loss_weight": float("nan")}, "ki_fast_loss_weight must be finite"),
        ({"vqa_weight": float("inf")}, "vqa_weight must be finite"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"ema": 1.0}, r"ema must lie in \[0, 1\)"),
        ({"leak": 2.0, "model": OPEN}, r"must lie in \[0, 1\]"),
        ({"freeze_vlm": True, "lora_rank": 4, "model": OPEN}, "exclude each other"),
    ],
)
def test_impossible_values_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        KITrainConfig(**change)


def test_data_settings_are_checked():
    with pytest.raises(UserError, match="vqa_share"):
        KIDataConfig(vqa_share=1.5)
    with pytest.raises(UserError, match="episodes must be at least 2"):
        KIDataConfig(episodes=1)


def test_a_written_configuration_reads_back_equal(tmp_path):
    cfg = KITrainConfig(model=OPEN, leak=0.25, data=KIDataConfig(cameras=("a", "b")))
    (tmp_path / "config.toml").write_text(to_toml(cfg))
    assert from_toml(KITrainConfig, tmp_path / "config.toml") == cfg
    flags = ["--no-model.knowledge-insulation", "--optim.lr-scale", "expert", "2.0", "--data.cameras", "top"]
    given = load_config(KITrainConfig, flags, prog="ki-train")
    assert not given.model.knowledge_insulation
    assert given.optim.lr_scale == {"expert": 2.0}
    assert given.data.cameras == ("top",)


def test_presets_are_short_for_sizes_and_later_flags_win():
    cfg = read_config(["--preset", "pi05_droid_ki", "--model.horizon=20"], prog="x", description="")
    assert (cfg.model.vlm, cfg.model.horizon, cfg.model.fast_skip) == ("gemma_2b", 20, 128)
    assert (cfg.optim.lr, cfg.precision) == (2.5e-5, "bf16")
    assert read_config(["--preset=tiny_ki"], prog="x", description="").model == KIConfig()
    assert not read_config(["--preset", "pi05"], prog="x", description="").model.knowledge_insulation
    with pytest.raises(UserError, match="did you mean 'pi05_ki'"):
        read_config(["--preset", "pi5_ki"], prog="x", description="")


def test_a_resumed_run_brings_its_settings(tmp_path):
    (tmp_path / "config.toml").write_text(to_toml(KITrainConfig(batch_size=7)))
    cfg = read_config(["--resume", str(tmp_path), "--steps", "9"], prog="x", description="")
    assert (cfg.batch_size, cfg.steps, cfg.resume) == (7, 9, str(tmp_path))


def test_the_old_name_of_the_fast_weight_is_understood():
    for words in (["--knowledge-insulation-lambda", "0.5"], ["--knowledge_insulation_lambda=0.5"]):
        assert read_config(words, prog="x", description="").ki_fast_loss_weight == 0.5


def test_a_compiled_step_and_recomputed_layers_exclude_each_other():
    with pytest.raises(UserError, match=r"what model.checkpointing throws away"):
        KITrainConfig(compile=True, model=KIConfig(checkpointing=True))
