"""The generated part of docs/recipes.md: what each shipped recipe routes, as a table and a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jepa_world_model.core.config import from_toml
from jepa_world_model.diagnostics.graph_picture import graph_svg
from jepa_world_model.experiment import TrainConfig
from jepa_world_model.losses import LOSSES


def recipes(folder: Path) -> dict[str, TrainConfig]:
    """The recommended configuration and those of configs/recipes/, by name. folder: configs/."""
    paths = [folder / "recommended.toml", *sorted((folder / "recipes").glob("*.toml"))]
    return {path.stem: from_toml(TrainConfig, path) for path in paths}


def recipes_markdown(found: dict[str, TrainConfig]) -> str:
    """For each recipe: its losses with weight and the modules that each moves, and the cut edges."""
    parts = [_recipe(name, cfg) for name, cfg in found.items()]
    return "\n\n".join(parts)


def _recipe(name: str, cfg: TrainConfig) -> str:
    graph, gates, weights = cfg.graph(), cfg.edge_gates(), dataclasses.asdict(cfg.loss_weights)
    lines = [f"### {name}", "", f"![{name}: dotted edges are cut]({picture_name(name)})", ""]
    lines += ["| loss | weight | moves |", "|---|---|---|"]
    for loss in LOSSES.active(weights):
        moved = ", ".join(f"`{group}`" for group in sorted(graph.contract_reach(loss.contract, gates)))
        lines.append(f"| `{loss.name}` | {weights[loss.name]:g} | {moved} |")
    return "\n".join(lines)


def picture_name(name: str) -> str:
    """The file of a recipe's routing picture, below docs/."""
    return f"pictures/recipe_{name}.svg"


def recipe_picture(cfg: TrainConfig) -> str:
    """The latent graph of a recipe as SVG."""
    on = LOSSES.active(dataclasses.asdict(cfg.loss_weights))
    wanted = tuple(dict.fromkeys(n for loss in on for n in loss.contract.moves + loss.contract.fixed))
    return graph_svg(cfg.graph(), cfg.edge_gates(), wanted)
