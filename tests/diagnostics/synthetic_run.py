"""A run folder made by numpy: what a real run leaves, without training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jepa_world_model.diagnostics.records import save_snapshot

GROUPS = (
    "encoder", "decoder", "predictor", "h_to_z", "z_to_h", "h_action_delta_projector",
    "p_action_delta_projector",
    "dp_action_delta_projector", "inverse_dynamics_h",
)  # fmt: skip
LOSSES = {
    "jepa": ("predictor", "h_to_z"), "recon_multi_box": ("encoder", "decoder"),
    "pixel_delta_multi_box": ("encoder", "decoder"), "h2z": ("h_to_z", "predictor"), "z2h": ("z_to_h",),
    "action_delta_h": ("h_action_delta_projector", "predictor"), "rollout_kstep_h": ("predictor", "h_to_z"),
    "rollout_kstep_delta_h": ("predictor", "h_to_z"),
    "action_delta_dp": ("dp_action_delta_projector", "p_action_delta_projector"),
    "additivity_dp": ("p_action_delta_projector",), "rollout_kstep_p": ("p_action_delta_projector",),
    "scale_dp": ("p_action_delta_projector",), "geometry_rank_p": ("p_action_delta_projector",),
    "inverse_dynamics_h": ("inverse_dynamics_h", "predictor"),
}  # fmt: skip
READS = {
    "x": ((), ()), "z": (("x",), ("encoder",)), "h_from_z": (("z",), ("z_to_h",)),
    "h": (("z", "h_from_z"), ("predictor",)), "z_from_h": (("h",), ("h_to_z",)), "z_hat": (("z_from_h",), ()),
    "rollout": (("z", "h"), ("predictor", "h_to_z")), "delta_h_hat": (("h",), ("h_action_delta_projector",)),
    "delta_p": (("h",), ("p_action_delta_projector",)), "p": (("delta_p",), ()),
    "delta_p_pair": (("h",), ("p_action_delta_projector",)),
    "rollout_p": (("rollout", "p"), ("p_action_delta_projector",)),
    "delta_p_proto": ((), ("dp_action_delta_projector",)), "x_hat": (("z",), ("decoder",)),
}  # fmt: skip
CUT = ("z->h", "z->rollout", "z->h_from_z", "h_from_z->h", "h->delta_p", "h->delta_p_pair",
       "rollout->rollout_p", "p->rollout_p")  # fmt: skip
EVAL = {
    "latent_one_step_ratio": 0.42, "latent_open_loop_ratio_k1": 0.42, "latent_open_loop_ratio_k4": 0.51,
    "latent_open_loop_ratio_k8": 0.63, "open_loop_ratio_k8": 0.71, "recon_mse": 0.004,
    "inverse_accuracy": 0.93,
    "inverse_accuracy_unblocked": 0.97, "inverse_accuracy_majority": 0.22, "probe_z_r2": 0.96,
    "probe_h_r2": 0.91,
    "probe_p_r2": 0.88, "probe_actions_r2": 0.8, "rank_z": 14.2, "rank_h": 9.7, "rank_p": 1.97, "std_z": 0.4,
    "std_h": 0.3, "std_p": 1.9, "rank_accuracy_minus_clock": 0.17, "p_q": 0.31, "p_inverse_ratio": 0.47,
    "p_noop_ratio": 0.06,
}  # fmt: skip


def reach_json() -> dict:
    """A reach.json with one declared-only and one measured-only cell."""
    rng, losses = np.random.default_rng(1), {}
    for name, groups in LOSSES.items():
        numeric = {g: float(10 ** rng.uniform(-4, 0.5)) if g in groups else None for g in GROUPS}
        row = {
            "weight": 1.0,
            "derived": sorted(groups),
            "structural": sorted(groups),
            "numeric": numeric,
            "value": 0.3,
        }
        losses[name] = row
    losses["scale_dp"]["numeric"]["predictor"] = 0.02
    losses["scale_dp"]["structural"].append("predictor")
    losses["z2h"]["numeric"]["z_to_h"] = None
    losses["z2h"]["structural"] = []
    gates = {
        f"{read}->{name}": float(f"{read}->{name}" not in CUT)
        for name, (reads, _) in READS.items()
        for read in reads
    }
    faults = ["the loss 'scale_dp' reaches predictor (numeric), which its declaration does not allow"]
    warnings = ["decoder is used but no active loss moves it: it stays at its random start"]
    return {"groups": list(GROUPS), "gates": gates, "losses": losses, "faults": faults, "warnings": warnings}


def metric_rows(steps: int, every: int, seed: int = 0) -> list[dict]:
    """Falling noisy losses, gradient norms, times, and an evaluation now and then."""
    rng, rows = np.random.default_rng(seed), []
    scale = {name: 10 ** rng.uniform(-3, 0.3) for name in LOSSES}
    for step in range(every, steps + 1, every):
        row: dict = {"step": step, "time": 0.2 * step}
        for name, size in scale.items():
            value = size * (0.1 + np.exp(-step / steps * 5)) * np.exp(0.25 * rng.normal())
            row[f"loss/{name}"] = value
            row[f"weighted/{name}"] = value * (0.1 if name == "jepa" else 1)
        row["loss/total"] = sum(value for name, value in row.items() if name.startswith("weighted/"))
        row |= {f"grad_norm/{g}": float(10 ** (rng.normal() * 0.2 - step / steps)) for g in GROUPS}
        row |= {
            "time/step_ms": 200 + 9 * rng.normal(),
            "time/frames_per_s": 480 + 20 * rng.normal(),
            "lr": 1e-3,
        }
        rows.append(row)
        if step % (steps // 6) < every:
            far = np.exp(-4 * step / steps)
            rows.append({"step": step} | {f"eval/{n}": v * (1 + far * (v < 0.75) - 0.6 * far * (v > 0.75))
                                          for n, v in EVAL.items()})  # fmt: skip
    return rows


def snapshot_arrays(seed: int = 0, size: int = 32) -> dict[str, np.ndarray]:
    """A dot that walks a square world, its blurred reconstruction, and a pose that is turned and noisy."""
    rng = np.random.default_rng(seed)
    moves = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    action = rng.integers(0, 5, (60, 12))
    place = np.full((60, 13, 2), 7)
    for t in range(12):
        place[:, t + 1] = np.clip(place[:, t] + moves[action[:, t]], 0, 15)
    place[:, :] += rng.integers(-6, 7, (60, 1, 2)) * 0
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    delta = np.diff(place, axis=1) @ turn + 0.06 * rng.normal(size=(60, 12, 2))
    pose = np.pad(delta.cumsum(1), ((0, 0), (1, 0), (0, 0)))
    frames = np.full((3, 13, 3, size, size), 40, np.uint8)
    for n in range(3):
        for t in range(13):
            x, y = place[n, t] * 2
            frames[n, t, :, y : y + 3, x : x + 3] = np.array([240, 170, 60])[:, None, None]
    soft = (frames * 0.7 + np.roll(frames, 1, -1) * 0.3 + rng.normal(size=frames.shape) * 4).clip(0, 255)
    flat, lift = place.reshape(-1, 2).astype(float), rng.normal(size=(2, 2))
    return {
        "frames": frames, "x_hat": soft.astype(np.uint8), "open_loop_true": frames[:, :9],
        "open_loop": np.roll(soft[:, :9], 1, -2).astype(np.uint8), "place": flat,
        "z_plane": flat @ lift + 0.3 * rng.normal(size=flat.shape), "z_share": np.array([0.4, 0.21]),
        "h_plane": np.tanh(flat @ lift / 9) + 0.05 * rng.normal(size=flat.shape),
        "h_share": np.array([0.6, 0.2]),
        "pose": pose[:12].astype(np.float32), "path": (place - place[:, :1])[:12].astype(np.float32),
        "map_seen": (place @ turn + 0.1 * rng.normal(size=place.shape)).astype(np.float32),
        "map_counted": (pose + place[:, :1] @ turn).astype(np.float32), "map_place": place.astype(np.float32),
        "increments": delta.reshape(-1, 2).astype(np.float32), "increment_action": action.reshape(-1),
        "increment_code": np.eye(5, dtype=np.float32)[action.reshape(-1)],
        "increment_noop": action.reshape(-1) == 0,
        "increment_moved": (np.diff(place, axis=1) != 0).any(-1).reshape(-1),
        "action_names": np.array(["stay", "right", "left", "up", "down"]),
        "action_kind": np.array("discrete"),
    }  # fmt: skip


def gradient_row(step: int) -> dict:
    """A row of gradients.jsonl."""
    rng = np.random.default_rng(2)
    on = {g: [name for name, groups in LOSSES.items() if g in groups] for g in GROUPS}
    norms = {g: {name: float(10 ** rng.uniform(-3, 0)) for name in names} for g, names in on.items()}
    pairs = lambda names: [f"{a}|{b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    return {
        "step": step,
        "norms": norms,
        "cosines": {g: {p: rng.uniform(-0.8, 1) for p in pairs(n)} for g, n in on.items()},
    }


def write_run(folder: Path, *, steps: int = 3000, every: int = 10) -> Path:
    """A whole run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(
        f"steps = {steps}\nseed = 3\nbatch_size = 8\nseq_len = 12\n\n"
        '[data]\nsource = "gridworld"\nepisodes = 400\n\n'
        "[optim]\nlr = 0.001\nmax_grad_norm = 1.0\n"
    )
    (folder / "changes.json").write_text(
        json.dumps({"seed": {"default": 0, "value": 3}, "steps": {"default": 900, "value": steps}})
    )
    (folder / "environment.json").write_text(json.dumps(
        {"devices": ["cpu"], "threads": 2, "git": {"commit": "851bc70", "dirty": False},
         "versions": {"torch": "2.13.0", "python": "3.11.8"},
         "parameters": dict.fromkeys(GROUPS, 120000)}))  # fmt: skip
    (folder / "reach.json").write_text(json.dumps(reach_json()))
    latents = [{"name": n, "reads": list(r), "trains": list(t)} for n, (r, t) in READS.items()]
    (folder / "graph.json").write_text(json.dumps({"latents": latents, "gates": reach_json()["gates"]}))
    rows = metric_rows(steps, every)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "gradients.jsonl").write_text(json.dumps(gradient_row(steps)) + "\n")
    save_snapshot(folder, snapshot_arrays())
    return folder
