"""Every loss of the registry on two processes: the value and the gradient of one process on the same global batch."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.data.batch import Batch
from jepa_world_model.losses import LOSSES
from jepa_world_model.losses.distribution import SigregConfig, SlicedConfig
from jepa_world_model.losses.geometry_p import ClosureConfig, PairConfig, RankConfig, TemporalDistanceConfig
from jepa_world_model.losses.measures import ScaleConfig
from jepa_world_model.losses.prediction import OpenLoopConfig
from tests.distributed.processes import CONTROL, needs_gloo, of_two
from tests.losses.world import make_batch, make_task

pytestmark = needs_gloo
WINDOWS, SIZE = 6, 2
TOLERANCE = 2e-5  # of the value, and of the norm of the gradient on a group: sums in fp32 in another order
FEW = {
    "sigreg": SigregConfig(directions=5), "sliced_w2": SlicedConfig(directions=1),
    "scale_dp": ScaleConfig(statistic="median"), "scale_dh": ScaleConfig(trim=0.3),
    "geometry_rank_p": RankConfig(max_pairs=24), "loop_closure_p": ClosureConfig(max_pairs=12, min_gap=2),
    "distance_corr_p": PairConfig(max_pairs=30), "temporal_distance": TemporalDistanceConfig(max_pairs=24),
    "jepa_open_loop": OpenLoopConfig(weighting="linear"),
}  # fmt: skip
CASES = {
    "discrete actions": {"kind": "discrete"},
    "continuous actions, few draws": {"kind": "continuous", "options": FEW, "model": {"z_norm": True}},
    "bits, a warm-up": {"kind": "multi_binary", "model": {"warmup_frames_h": 1}},
}


def whole_batch(kind: str) -> Batch:
    """Six windows; the two halves differ in no-ops, in lengths of moves and in the episodes they come from."""
    batch = make_batch(3, kind, windows=WINDOWS)
    noop, actions, ids = batch.noop.clone(), batch.actions.clone(), batch.action_id.clone()
    noop[0, :4], noop[4:, :] = True, False  # the first half rests much, the second hardly
    actions[noop], ids[noop] = 0.0, torch.where(ids[noop] < 0, ids[noop], torch.zeros_like(ids[noop]))
    frames = (batch.frames * torch.linspace(0.2, 1, WINDOWS)[:, None, None, None, None]).byte()
    episode = torch.tensor([0, 0, 0, 1, 0, 2])
    return dataclasses.replace(
        batch, frames=frames, noop=noop, actions=actions, action_id=ids, episode=episode
    )


def share(batch: Batch, world: World) -> Batch:
    return dataclasses.replace(batch, **{name: world.mine(x) for name, x in batch.tensors().items()})


def measured(world: World) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """Case -> loss -> its value and its gradient on every group, both as means over the processes."""
    found = {}
    for case, changes in CASES.items():
        kind, rest = changes["kind"], {k: v for k, v in changes.items() if k != "kind"}
        task = make_task(**rest)
        task.world = world
        terms = task.terms(share(whole_batch(kind), world), step=7)
        found[case] = {name: parts(task, term, world) for name, term in terms.items()}
    return found


def parts(task, term, world: World) -> dict[str, torch.Tensor]:
    flat = {"value": term}
    for group, members in task.groups.items():
        grads = torch.autograd.grad(term, list(members.values()), retain_graph=True, allow_unused=True)
        if any(grad is not None for grad in grads):
            pairs = zip(grads, members.values(), strict=True)
            flat[group] = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
    return {name: world.average(x.detach()) for name, x in flat.items()}


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[dict, dict]:
    """One process, and two of them that are started once for all losses."""
    torch.set_num_threads(1)
    return measured(ALONE), of_two(tmp_path_factory, "losses")[0]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("case", CASES)
def test_a_loss_on_two_processes_is_the_loss_on_the_whole_batch(both, case, name):
    one, two = (found[case][name] for found in both)
    assert one.keys() == two.keys()
    for part, expected in one.items():
        gap = float((two[part] - expected).norm())
        assert gap <= TOLERANCE * max(float(expected.norm()), 1e-6), f"{part}: off by {gap:.1e}"


def test_without_the_exchange_the_losses_over_the_batch_would_differ(both):
    """The control: on shares of this batch, means of means are not the mean for these losses."""
    apart = set()
    for case, changes in CASES.items():
        kind, rest = changes["kind"], {k: v for k, v in changes.items() if k != "kind"}
        task, batch = make_task(**rest), whole_batch(kind)
        halves = [task.terms(share(batch, World(rank, SIZE)), step=7) for rank in range(SIZE)]
        for name, whole in both[0][case].items():
            mean = sum(float(half[name].detach()) for half in halves) / SIZE
            if abs(mean - float(whole["value"])) > 10 * TOLERANCE * abs(float(whole["value"])):
                apart.add(name)
    assert apart == CONTROL
