"""The world model as a whole: groups, shapes, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jepa_world_model.commands.gradients import synthetic_batch, with_actions
from jepa_world_model.core.task import parameter_groups
from jepa_world_model.experiment import TrainConfig, build_task
from jepa_world_model.losses import LOSSES, LossWeights
from jepa_world_model.model_config import ModelConfig
from jepa_world_model.models.world_model import BUILDERS, WITHOUT_ACTIONS, WorldModel
from tests.models.build import small

LEAD = (2, 3)  # leading dimensions


def inputs(name: str, cfg: ModelConfig) -> tuple[Tensor, ...]:
    """What a part is called with."""
    generator = torch.Generator().manual_seed(0)
    z, h, p, a = (
        torch.randn(*LEAD, width, generator=generator)
        for width in (cfg.z_dim, cfg.state_dim, cfg.pose_dim, cfg.action_dim)
    )
    x = torch.rand(6, cfg.in_channels, cfg.image_size, cfg.image_size, generator=generator)
    return {
        "encoder": (x,), "decoder": (z,), "predictor": (z, h, a), "h_to_z": (h,), "z_to_h": (z,),
        "p_action_delta_projector": (p, h, a), "h_action_delta_projector": (h, a),
        "z_action_delta_projector": (z, a), "dp_action_delta_projector": (a,),
        "inverse_dynamics_z": (z, z * z), "inverse_dynamics_h": (h, h * h), "inverse_dynamics_p": (p, p * p),
        "inverse_dynamics_dp": (p,), "inverse_action_head": (h, a), "h2z_delta": (h,),
        "dz_to_dp_projector": (z,), "pose_measurement": (z,), "temporal_distance": (z, z.flip(0)),
    }[name]  # fmt: skip


def shape(name: str, cfg: ModelConfig) -> tuple[int, ...]:
    """What it returns."""
    frame = (cfg.in_channels, cfg.image_size, cfg.image_size)
    z, h, p, a = ((*LEAD, w) for w in (cfg.z_dim, cfg.state_dim, cfg.pose_dim, cfg.action_dim))
    return {
        "encoder": (6, cfg.z_dim), "decoder": (*LEAD, *frame), "predictor": h, "h_to_z": z, "z_to_h": h,
        "p_action_delta_projector": p, "h_action_delta_projector": h, "z_action_delta_projector": z,
        "dp_action_delta_projector": p, "inverse_dynamics_z": a, "inverse_dynamics_h": a,
        "inverse_dynamics_p": a, "inverse_dynamics_dp": a, "inverse_action_head": a, "h2z_delta": z,
        "dz_to_dp_projector": p, "pose_measurement": p, "temporal_distance": LEAD,
    }[name]  # fmt: skip


CONFIGS = {
    "small": small(),
    "odd_two_channels": small(image_size=33, in_channels=2, encoder_schedule=(8, 16), keypoints=0),
    "choices": small(z_norm=True, predictor_layer_norm=False, spectral_norm=True, action_kind="continuous"),
    "smallest": small(image_size=8, action_dim=1, pose_dim=1),
}


@pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", BUILDERS)
def test_every_part_keeps_leading_dimensions(name, cfg):
    torch.manual_seed(0)
    assert getattr(WorldModel(cfg, {name}), name)(*inputs(name, cfg)).shape == shape(name, cfg)


@pytest.mark.parametrize("cfg", [CONFIGS["small"], CONFIGS["choices"]], ids=["small", "choices"])
@pytest.mark.parametrize("name", BUILDERS)
def test_a_gradient_reaches_every_parameter_of_a_part(name, cfg):
    torch.manual_seed(0)
    part = getattr(WorldModel(cfg, {name}), name)
    out = part(*inputs(name, cfg))
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    still = [key for key, p in part.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not still


@pytest.mark.parametrize("name", BUILDERS)
def test_bf16_autocast_gives_finite_numbers_near_those_of_fp32(name):
    cfg = CONFIGS["small"]
    torch.manual_seed(0)
    part = getattr(WorldModel(cfg, {name}), name)
    with torch.no_grad():
        exact = part(*inputs(name, cfg))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = part(*inputs(name, cfg)).float()
    assert rounded.isfinite().all()
    # bf16 keeps 8 bits: about 0.4 % a rounding, a few roundings a part.
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1 * exact.std().item())


def test_every_parameter_belongs_to_exactly_one_group():
    model = WorldModel(small(), BUILDERS)
    groups = parameter_groups(model)
    assert set(groups) == set(BUILDERS)
    owned = [id(p) for members in groups.values() for p in members.values()]
    assert len(owned) == len(set(owned)) == len(list(model.parameters()))


def test_only_the_groups_asked_for_are_built_and_in_one_order():
    model = WorldModel(small(), ["predictor", "encoder"])
    assert [name for name, _ in model.named_children()] == ["encoder", "predictor"]


def test_an_unknown_group_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no model part is called odometer; there are encoder, decoder"):
        WorldModel(small(), {"odometer"})


@pytest.mark.parametrize("name", sorted(set(BUILDERS) - WITHOUT_ACTIONS))
def test_parts_that_see_actions_need_their_width(name):
    with pytest.raises(ValueError, match=f"{name} sees actions"):
        WorldModel(small(action_dim=0), {name})


def test_parts_without_actions_need_no_width():
    model = WorldModel(small(action_dim=0), WITHOUT_ACTIONS)
    assert {name for name, _ in model.named_children()} == set(WITHOUT_ACTIONS)


def test_no_part_couples_the_rows_of_a_batch():
    torch.manual_seed(0)
    model = WorldModel(small(), BUILDERS)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    x = torch.rand(4, 3, 32, 32)
    alone = torch.cat([model.encoder(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(model.encoder(x), alone)
    torch.testing.assert_close(model.decoder(alone)[2:3], model.decoder(alone[2:3]))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_feature_maps_change_no_bit_and_keep_less(precision):
    """Every loss at once: frames that are decoded, encoded again, and seen by frozen parts."""
    found = []
    for checkpointing in (False, True):
        sizes = ModelConfig(
            image_size=16, encoder_schedule=(8, 8), decoder_schedule=(8, 8), z_dim=8, state_dim=8, hidden_dim=16,
            keypoints=4, pose_dim=2, checkpointing=checkpointing,
        )  # fmt: skip
        cfg = with_actions(
            TrainConfig(batch_size=2, seq_len=6, rollout_horizon=4, precision=precision, model=sizes,
                        loss_weights=LossWeights(**dict.fromkeys(LOSSES, 1.0)))
        )  # fmt: skip
        task, kept = build_task(cfg), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, k=kept: k.append(t.nbytes) or t, lambda t: t):
            total = task.total(task.terms(synthetic_batch(cfg, 2)))[0]
        total.backward()
        found.append((total, [p.grad for p in task.model.parameters()], sum(kept)))
    (plain, grads, bytes_), (again, same, fewer) = found
    assert torch.equal(plain, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, same, strict=True) if a is not None)
    assert [g is None for g in grads] == [g is None for g in same]
    assert fewer < 0.85 * bytes_
