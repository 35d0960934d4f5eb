"""Every loss under every gate setting: what it declares to move is what it moves, two ways measured."""

from __future__ import annotations

import itertools
from dataclasses import fields
from pathlib import Path

import pytest

from jepa_world_model.core.barrier import reach
from jepa_world_model.core.proof import difference
from jepa_world_model.core.task import Task, needed_groups
from jepa_world_model.latents import (
    CLOSED_BY_DESIGN,
    NAMED_GATES,
    OPEN_BY_DESIGN,
    RENDER_MODES,
    Settings,
    world_graph,
)
from jepa_world_model.losses import LOSSES, LossWeights
from jepa_world_model.models.world_model import BUILDERS
from tests.losses.world import SPACES, make_batch, make_task, tiny

ENC, DEC, F, H2Z, Z2H = "encoder", "decoder", "predictor", "h_to_z", "z_to_h"
G, PROTO, UNDO = "p_action_delta_projector", "dp_action_delta_projector", "inverse_action_head"
# By hand, from the tables of the design: what each loss moves under the default gates.
DEFAULT_REACH = {
    "jepa": {F, H2Z}, "jepa_rep": {ENC}, "jepa_open_loop": {F, H2Z},
    "sigreg": {ENC}, "sliced_w2": {ENC},
    "vicreg_var": {ENC}, "vicreg_cov": {ENC}, "z_smooth": {ENC}, "z_straight": {ENC},
    "recon": {ENC, DEC}, "recon_patch": {ENC, DEC}, "recon_multi_box": {ENC, DEC},
    "recon_multi_box_mse": {ENC, DEC}, "recon_multi_gauss": {ENC, DEC},
    "pixel_delta": {ENC, DEC}, "pixel_delta_multi_box": {ENC, DEC},
    "recon_zhat_multi_box": {F, H2Z, DEC},
    "h2z": {H2Z, F}, "z2h": {Z2H}, "z2h_init_zero": {Z2H}, "z2h_match_h": {Z2H}, "h2z_delta": {"h2z_delta"},
    "action_delta_h": {"h_action_delta_projector", F},
    "rollout_kstep_h": {F, H2Z}, "rollout_kstep_delta_h": {F, H2Z},
    "additivity_h": {"h_action_delta_projector", F}, "inverse_cycle_h": {F, H2Z, UNDO}, "noop_still_h": {F},
    "scale_dh": {F}, "action_consistency_h": {F}, "action_separation_h": {F}, "h_smooth": {F},
    "rollout_recon_h": {F, H2Z, DEC}, "rollout_recon_multi_box_h": {F, H2Z, DEC},
    "action_delta_dp": {PROTO, G}, "additivity_dp": {G}, "rollout_kstep_p": {G}, "scale_dp": {G},
    "geometry_rank_p": {G}, "dz_anchor_dp": {"dz_to_dp_projector", G}, "loop_closure_p": {G},
    "distance_corr_p": {G},
    "noop_still_dp": {G}, "inverse_cycle_dp": {G, UNDO}, "pose_measure_p": {"pose_measurement"},
    "temporal_distance": {"temporal_distance"}, "pose_correct_dp": {G},
    "action_delta_z": {"z_action_delta_projector", ENC}, "rollout_kstep_z": {ENC, F, H2Z},
    "rollout_recon_z": {ENC, F, H2Z, DEC}, "rollout_recon_multi_box_z": {ENC, F, H2Z, DEC},
    "rollout_recon_delta_z": {ENC, F, H2Z, DEC}, "rollout_recon_multi_box_delta_z": {ENC, F, H2Z, DEC},
    "rollout_project_z": {ENC, F, H2Z, DEC},
    "inverse_dynamics_z": {"inverse_dynamics_z", ENC}, "inverse_dynamics_h": {"inverse_dynamics_h", F},
    "inverse_dynamics_p": {"inverse_dynamics_p", G}, "inverse_dynamics_dp": {"inverse_dynamics_dp", G},
}  # fmt: skip
ON_BY_DEFAULT = {
    "jepa", "recon_multi_box", "pixel_delta_multi_box", "h2z", "z2h", "action_delta_h", "rollout_kstep_h",
    "rollout_kstep_delta_h", "action_delta_dp", "additivity_dp", "rollout_kstep_p", "scale_dp",
    "geometry_rank_p", "inverse_dynamics_h",
}  # fmt: skip
GATE_SETTINGS = [
    dict(zip(NAMED_GATES, shut, strict=True))
    for shut in itertools.product((True, False), repeat=len(NAMED_GATES))
]
SEEDS = 3
ROOT = Path(__file__).parents[2]
VARIANTS = {
    "h from z": {},
    "h from z, trained by all": {"gates": {"h_from_z->h": 1.0}},
    "h from zero": {"model": {"h_init": "zero"}},
    "no memory": {"force_h_zero": True},
    "anchored frames": {"render_mode": "anchor_delta"},
}


def faults(task: Task, seed: int, *, numeric: bool) -> list[str]:
    """Every difference of declared and measured reach, and every loss that is exactly zero."""
    terms = task.terms(make_batch(seed, list(SPACES)[seed % 3]))
    assert list(terms) == list(LOSSES)  # none is left out, so the pages may state the number of combinations
    measured, found = reach(terms, task.groups, numeric=numeric), []
    for name, derived in task.derived().items():
        found += difference(name, "structural", derived, measured[name].structural)
        found += difference(name, "numeric", derived, measured[name].moved) if numeric else []
        found += [f"{name} moves a tensor in no group"] if measured[name].strangers else []
        found += [f"{name} is exactly 0 on random weights"] if terms[name].item() == 0 else []
    return found


def test_the_table_of_weights_is_the_registry_in_the_same_order():
    assert [f.name for f in fields(LossWeights)] == list(LOSSES) == list(LossWeights.__dataclass_fields__)
    assert {name for name, weight in vars(LossWeights()).items() if weight == 1.0} == ON_BY_DEFAULT
    assert {name for name, weight in vars(LossWeights()).items() if weight == 0.0} == set(
        LOSSES
    ) - ON_BY_DEFAULT


def test_the_reach_under_default_gates_is_that_of_the_design():
    assert make_task().derived() == {name: frozenset(groups) for name, groups in DEFAULT_REACH.items()}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "closed", GATE_SETTINGS, ids=lambda c: "".join("x" if v else "-" for v in c.values())
)
def test_derived_structural_and_numeric_reach_agree(closed, variant):
    for seed in range(SEEDS):
        assert faults(make_task(closed=closed, seed=seed, **VARIANTS[variant]), seed, numeric=True) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_reach_agrees_when_any_single_edge_is_cut_or_opened(variant):
    setting = dict(VARIANTS[variant])
    gates = setting.pop("gates", {})
    base = make_task(gates=gates, **setting)
    for edge, keep in base.gates.items():
        flipped = make_task(gates=gates | {edge: 0.0 if keep else 1.0}, **setting)
        assert faults(flipped, 0, numeric=False) == [], f"{edge} {'cut' if keep else 'opened'}"


def test_the_pages_state_the_number_of_proven_combinations():
    count = len(LOSSES) * len(GATE_SETTINGS) * len(VARIANTS) * SEEDS
    assert f"{count:,} combinations" in (ROOT / "docs" / "gradients.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_needs_a_module_that_cannot_be_built(name):
    needed = needed_groups(world_graph(Settings(model=tiny())), [LOSSES[name]])
    assert DEFAULT_REACH[name] <= needed <= set(BUILDERS)
    alone = make_task({name: 1.0}, groups=needed)  # the smallest model on which the loss can be computed
    assert alone.terms(make_batch())[name].isfinite()


@pytest.mark.parametrize("name", LOSSES)
def test_private_heads_belong_to_one_loss(name):
    others = {head for other in LOSSES if other != name for head in LOSSES[other].contract.heads}
    latents = {group for latent in world_graph(Settings(model=tiny())) for group in latent.trains}
    assert not set(LOSSES[name].contract.heads) & (others | latents)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_states_its_claim_and_its_formula(name):
    loss = LOSSES[name]
    assert loss.claim.endswith(".")
    assert not loss.claim.startswith("...")
    assert "Formula:" in loss.function.__doc__


@pytest.mark.parametrize("render_mode", RENDER_MODES)
@pytest.mark.parametrize("force_h_zero", [False, True])
@pytest.mark.parametrize("h_init", ["z_to_h", "zero"])
def test_every_named_edge_exists_whatever_the_mode(h_init, force_h_zero, render_mode):
    settings = Settings(model=tiny(h_init=h_init), force_h_zero=force_h_zero, render_mode=render_mode)
    edges = world_graph(settings).edge_names
    assert {edge for named in NAMED_GATES.values() for edge in named} <= set(edges)


def test_every_edge_that_a_named_gate_speaks_of_is_named():
    """No z enters dynamics, no state a decoder and no h a pose past the gate that is named after it."""
    graph = world_graph(Settings(model=tiny(), render_mode="anchor_delta"))
    elsewhere = {*CLOSED_BY_DESIGN, *OPEN_BY_DESIGN}
    for latent in graph:
        for read in latent.reads:
            edge, reached = f"{read}->{latent.name}", graph.reach(read, graph.gates())
            dynamics = {"predictor", "h_to_z", G} & set(latent.trains)
            expected = None
            if "decoder" in latent.trains and read not in ("x", "x_anchor"):
                expected = "detach_decoder"
            elif G in latent.trains and F in reached | set(graph.table[read].trains):
                expected = "pose_delta_detach_h"
            elif dynamics and read == "z":
                expected = "detach_z_from_h_and_p"
            if expected and edge not in elsewhere:
                assert edge in NAMED_GATES[expected], f"{edge} belongs to {expected}"
