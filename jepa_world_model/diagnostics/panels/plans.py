"""Panels on what planning needs: a data graph that hangs together, and distances that order as steps to go do."""

from __future__ import annotations

import numpy as np

from jepa_world_model.diagnostics import charts, probes
from jepa_world_model.diagnostics.page import number, table
from jepa_world_model.diagnostics.panels.evidence import Evidence, length, rank_correlation
from jepa_world_model.diagnostics.panels.panel import PANELS, Found, MissingError, high, low
from jepa_world_model.planning.graph import GraphConfig, build_graph


@PANELS(
    "ranking",
    family="planning",
    title="Nearer means nearer",
    question="Of two frames of a window, the one whose p is nearer to the last frame's is nearer in the world, more often "
    "than its being later says.",
    limits={"p_beyond_clock": high(0.05, 0.01, "ranking accuracy of p minus that of the time index")},
    next_move="At 0, p is a clock, which a ranking loss cannot tell from a pose: configs/recommended.toml takes "
    "geometry_rank_p out and closes loops.",
)
def ranking(seen: Evidence) -> Found:
    """Ranking accuracy of p, h and z against the time index."""
    place, values, clock = seen.position, {}, np.nan
    true = length(place - place[:, -1:])
    for name in seen.latents:
        state = seen.latent(name).astype(np.float64)
        accuracy, clock = probes.rank_accuracy(length(state - state[:, -1:]), true)
        values[f"{name}_accuracy"], values[f"{name}_beyond_clock"] = accuracy, accuracy - clock
    if not np.isfinite(clock):
        raise MissingError("windows in which the distance to the last frame changes")
    told = ", ".join(f"{name} {number(values[f'{name}_accuracy'])}" for name in seen.latents)
    return Found(values, f"Pairs ordered rightly: {told}; by the time index {number(clock)}.")


@PANELS(
    "reachable",
    family="planning",
    title="The data graph hangs together",
    question="Merged by radius, the states of the evaluation windows form one graph: as many ways lead from node to node as "
    "in the true places, through as many nodes.",
    limits={
        "z_reachable": high(
            0.9, 0.5, "share of node pairs of z that ways connect, over that of the true places"
        ),
        "h_reachable": high(0.7, 0.3, "the same of h"),
        "z_nodes": low(2.0, 6.0, "factor between the nodes of z and the true places seen"),
        "h_nodes": low(2.5, 8.0, "the same of h"),
    },
    next_move="Too many nodes: states of one place differ, so raise the merge radius of the graph planner or "
    "--loss-weights.h2z. Too few: places fall together, so z has lost them.",
)
def reachable(seen: Evidence) -> Found:
    """Reachable fraction of the data graph of z, h and a measured p, beside that of the true places."""
    if len(np.unique(seen.layout)) > 1:
        raise MissingError("windows of one layout; in these the walls differ")
    true_nodes, true_share = _graph(seen, seen.position)
    states = {name: seen.latent(name) for name in ("z", "h") if name in seen.latents}
    if seen.measured is not None:
        states["p"] = seen.measured
    values, rows = {}, [("true places", f"{true_nodes:,}", f"{true_share:.1%}")]
    for name, state in states.items():
        nodes, connected = _graph(seen, state)
        factor = max(nodes / true_nodes, true_nodes / nodes)
        # A graph of a few nodes that all fell together connects everything and means nothing.
        values[f"{name}_reachable"] = connected / max(true_share, 1e-9) * min(1.0, nodes / true_nodes * 2)
        values[f"{name}_nodes"] = factor
        rows.append((name, f"{nodes:,}", f"{connected:.1%}"))
    told = ", ".join(f"{row[0]} {row[2]} of pairs over {row[1]} nodes" for row in rows[1:])
    return Found(values, f"Connected: {told}; true places {true_share:.1%} over {true_nodes:,}.",
                 lambda: table(rows, ("states", "nodes", "connected pairs")))  # fmt: skip


def _graph(seen: Evidence, states: np.ndarray) -> tuple[int, float]:
    """Nodes, and the share of node pairs that observed ways connect, of states [B,T,D]."""
    B, T = states.shape[:2]
    rows = np.arange(B * T).reshape(B, T)
    source, target = rows[:, :-1].reshape(-1), rows[:, 1:].reshape(-1)
    flat = states.reshape(B * T, -1).astype(np.float64)
    counts = (seen.moved & ~seen.noop).reshape(-1)
    try:
        graph = build_graph(flat, source, target, seen.action_id.reshape(-1), GraphConfig(), resting=~counts)
    except ValueError:  # nothing moves the state
        return 1, 0.0
    return len(graph.nodes), graph.reachable_share()


@PANELS(
    "plannability",
    family="planning",
    title="Cost follows steps to go",
    question="The distance between a state and a goal's orders frames as the true steps to the goal do, walls included.",
    limits={
        "z": high(0.6, 0.3, "Spearman correlation of the distance in z with the true steps to go"),
        "h": high(0.6, 0.3, "the same in h"),
        "p": high(0.7, 0.4, "the same in the measured p"),
        "steps": high(0.7, 0.4, "the same of the learned steps to go"),
    },
    next_move="Plan over the data graph, or train a cost that knows walls: --loss-weights.temporal-distance 1. What the "
    "straight line in the world itself scores is told beside it.",
)
def plannability(seen: Evidence) -> Found:
    """Rank correlation of latent costs with the true steps to go."""
    ahead = seen.to_go
    if ahead is None:
        raise MissingError("a simulator that knows the steps to go (gridworld and two_rooms have one)")
    steps = ahead.steps
    values = {name: _mean_correlation(cost, steps) for name, cost in ahead.costs.items()}
    values["straight"] = _mean_correlation(ahead.straight, steps)
    names = {"steps": "learned steps", "straight": "the true straight line"}
    told = ", ".join(f"{names.get(name, name)} {number(v)}" for name, v in values.items() if np.isfinite(v))
    return Found(
        values, f"Correlation of ranks, mean over goals: {told}.", lambda: _cost_figure(ahead.costs, steps)
    )


def _mean_correlation(cost: np.ndarray, steps: np.ndarray) -> float:
    """The mean over goals [M,G] of the rank correlation; a cost that is constant scores 0."""
    each = []
    for g in range(steps.shape[1]):
        known = np.isfinite(steps[:, g])
        if known.sum() >= 5 and steps[known, g].std() > 0:
            value = rank_correlation(cost[known, g], steps[known, g])
            each.append(0.0 if np.isnan(value) else value)
    return float(np.mean(each)) if each else np.nan


def _cost_figure(costs: dict[str, np.ndarray], steps: np.ndarray) -> str:
    whole = np.round(steps)
    counts = [n for n in np.unique(whole[np.isfinite(whole)]) if (whole == n).sum() >= 10]
    cards = []
    for name, cost in costs.items():
        mean = np.array([cost[whole == n].mean() for n in counts])
        title = "learned steps" if name == "steps" else f"distance in {name}"
        cards.append(
            charts.line_chart(
                title, [charts.Series(np.array(counts), mean)], sub="by true steps to go", axis="steps"
            )
        )
    return charts.charts(cards)
