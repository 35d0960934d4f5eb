"""The protocol: our model behind it does what training does, and a plain torch module fits too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import Context
from jepa_world_model.data.batch import ActionSpace, Batch
from jepa_world_model.latents import Settings, world_graph
from jepa_world_model.models.world_model import WorldModel
from jepa_world_model.planning.dynamics import (
    Dynamics,
    WorldModelDynamics,
    device_of,
    join_rows,
    num_rows,
    pick_rows,
    repeat_rows,
)
from tests.models.build import small

SPACE = ActionSpace(kind="discrete", dim=5, noop=0)
GROUPS = ("encoder", "predictor", "h_to_z", "z_to_h", "p_action_delta_projector")


def make(groups=GROUPS, *, pose=False, precision="fp32", **settings) -> WorldModelDynamics:
    torch.manual_seed(0)
    settings = Settings(model=small(**settings.pop("model", {})), **settings)
    return WorldModelDynamics(
        WorldModel(settings.model, groups), settings, SPACE, pose=pose, precision=precision
    )


def batch(windows: int = 3, frames: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, (windows, frames - 1), generator=generator)
    return Batch(
        frames=torch.randint(256, (windows, frames, 3, 32, 32), generator=generator, dtype=torch.uint8),
        actions=nn.functional.one_hot(ids, 5).float(),
        action_id=ids,
        noop=ids == 0,
        episode=torch.arange(windows),
        start=torch.zeros(windows, dtype=torch.int64),
        state=None,
        space=SPACE,
    )


SETTINGS = [{}, {"model": {"h_init": "zero"}}, {"force_h_zero": True}]


def states_of(dynamics: WorldModelDynamics, data: Batch, names: tuple[str, ...]) -> dict:
    """The latents that training computes of the same windows."""
    graph = world_graph(dynamics.settings)
    with torch.no_grad():
        context = Context(dynamics.model, data, dynamics.settings, lambda name: torch.Generator())
        return graph.run(context, names, graph.gates({}))


@pytest.mark.parametrize("settings", SETTINGS)
def test_observing_a_window_gives_the_teacher_forced_states_of_training(settings):
    dynamics, data = make(**settings), batch()
    truth = states_of(dynamics, data, ("z", "h"))
    state = dynamics.encode(data.frames[:, 0])
    for t in range(data.T - 1):
        torch.testing.assert_close(state["z"], truth["z"][:, t])
        torch.testing.assert_close(state["h"], truth["h"][:, t])
        state = dynamics.observe(state, data.actions[:, t], data.frames[:, t + 1])
    torch.testing.assert_close(state["h"], truth["h"][:, -1])


@pytest.mark.parametrize("settings", SETTINGS)
def test_stepping_from_a_frame_gives_the_rollout_of_training(settings):
    dynamics, data = make(pose=True, **settings), batch()
    truth = states_of(dynamics, data, ("rollout", "rollout_p"))
    state = dynamics.encode(data.frames[:, 0])
    for k in range(1, data.T):
        state = dynamics.step(state, data.actions[:, k - 1])
        torch.testing.assert_close(state["z"], truth["rollout"].z[k][:, 0])
        if not settings.get("force_h_zero"):
            torch.testing.assert_close(dynamics.read(state, "p"), truth["rollout_p"][k][:, 0])


def test_a_measured_pose_starts_where_the_frame_says_and_a_goal_has_one():
    dynamics, data = make((*GROUPS, "pose_measurement"), pose=True), batch()
    state = dynamics.encode(data.frames[:, 0])
    measured = dynamics.model.pose_measurement(state["z"])
    torch.testing.assert_close(dynamics.read(state, "p"), measured)
    assert "p" in dynamics.goal_latents
    state = dynamics.observe(state, data.actions[:, 0], data.frames[:, 1])
    torch.testing.assert_close(dynamics.read(state, "p"), dynamics.model.pose_measurement(state["z"]))
    assert "p" not in make(pose=True).goal_latents


def test_a_state_without_memory_tells_no_h_of_a_goal():
    assert make().goal_latents == ("z", "h")
    assert make(force_h_zero=True).goal_latents == ("z",)
    assert make(model={"h_init": "zero"}).goal_latents == ("z",)


def test_steps_are_differentiable_in_the_actions():
    dynamics, data = make(), batch()
    action = data.actions[:, 0].clone().requires_grad_()
    state = dynamics.step(dynamics.encode(data.frames[:, 0]), action)
    dynamics.distance(state, dynamics.encode(data.frames[:, 1])).sum().backward()
    assert action.grad.abs().min() > 0


def test_bf16_products_change_a_step_by_rounding_only():
    data = batch()
    exact, rounded = make(), make(precision="bf16")
    steps = [d.step(d.encode(data.frames[:, 0]), data.actions[:, 0])["z"] for d in (exact, rounded)]
    assert steps[1].dtype == torch.float32
    assert 0 < (steps[0] - steps[1]).norm() / steps[0].norm() < 0.05


def test_a_part_that_was_not_built_is_named_with_the_loss_that_builds_it():
    with pytest.raises(UserError, match=r"h_to_z.*--loss-weights.jepa"):
        make(("encoder", "predictor", "z_to_h"))
    with pytest.raises(UserError, match=r"p_action_delta_projector.*--loss-weights.action-delta-dp"):
        make(("encoder", "predictor", "h_to_z", "z_to_h"), pose=True)
    dynamics = make()
    state = dynamics.encode(batch().frames[:, 0])
    with pytest.raises(UserError, match="no 'p'"):
        dynamics.read(state, "p")


def test_rows_of_nested_states_repeat_episode_by_episode_and_can_be_picked():
    state = {"a": torch.arange(3.0)[:, None], "b": (torch.arange(3),)}
    many = repeat_rows(state, 2)
    assert many["b"][0].tolist() == [0, 0, 1, 1, 2, 2]
    assert pick_rows(many, torch.tensor([5, 0]))["a"].flatten().tolist() == [2.0, 0.0]
    assert num_rows(many) == 6
    joined = join_rows([many, state])
    assert joined["b"][0].tolist() == [0, 0, 1, 1, 2, 2, 0, 1, 2]
    assert joined["a"].shape == (9, 1)
    assert device_of(many) == torch.device("cpu")


class Foreign(nn.Module):
    """Somebody else's model: a plain module with an encoder and a transition."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Linear(2 * 4 * 4, 6)
        self.move = nn.Linear(6 + 2, 6)


class Wrapped(Dynamics):
    """What it takes to plan with it."""

    space = ActionSpace(kind="continuous", dim=2, low=(-1.0, -1.0), high=(1.0, 1.0))
    latents = goal_latents = ("state",)

    def __init__(self, model: Foreign) -> None:
        self.model = model

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """A vector a frame."""
        return self.model.see(frames.flatten(1).float() / 255)

    def step(self, state: Tensor, action: Tensor) -> Tensor:
        """The next vector."""
        return state + self.model.move(torch.cat([state, action], -1))

    def read(self, state: Tensor, name: str) -> Tensor:
        """The vector."""
        return state


def test_a_plain_torch_module_fits_the_protocol_and_inherits_its_defaults():
    torch.manual_seed(0)
    dynamics = Wrapped(Foreign())
    assert isinstance(dynamics, Dynamics)
    frames = torch.randint(256, (3, 2, 4, 4), dtype=torch.uint8)
    state = dynamics.encode(frames)
    after = dynamics.step(state, torch.zeros(3, 2))
    assert torch.equal(dynamics.observe(after, torch.zeros(3, 2), frames), state)
    torch.testing.assert_close(dynamics.distance(state, state), torch.zeros(3))
    assert (dynamics.distance(after, state) > 0).all()
