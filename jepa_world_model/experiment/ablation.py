"""The arms of an ablation: a base configuration and what each arm toggles in it; and the runs they need."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jepa_world_model.core.checkpoint import latest_checkpoint, read_extra
from jepa_world_model.core.config import flatten, from_toml, load_config
from jepa_world_model.core.errors import UserError
from jepa_world_model.core.graph import unknown
from jepa_world_model.experiment.build import resolve_device, resolve_precision, resolve_sizes
from jepa_world_model.experiment.compare import routing, settings_difference
from jepa_world_model.experiment.config import TrainConfig
from jepa_world_model.experiment.data import open_dataset
from jepa_world_model.losses import LOSSES

BASE = "base"
KNOWN = frozenset(LOSSES)
OWN_FLAGS = ("--name", "--output-dir", "--seed", "--resume", "--no-resume")  # set for every run


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One configuration of an ablation."""

    name: str  # as its run folders begin
    what: str  # the toggles as they were written; empty for the base
    cfg: TrainConfig


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of an arm."""

    arm: Arm
    seed: int
    out: Path

    @property
    def name(self) -> str:
        """The name of the run."""
        return f"{self.arm.name}-s{self.seed}"

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.out / self.name

    @property
    def cfg(self) -> TrainConfig:
        """The configuration of the run."""
        return dataclasses.replace(self.arm.cfg, seed=self.seed, name=self.name, output_dir=str(self.out))


def make_arms(
    flags: Sequence[str], *, toggles: Sequence[str] = (), leave_one_out: bool = False, add: Sequence[str] = ()
) -> list[Arm]:
    """The base and one arm for each toggle, each active loss left out, and each loss added; equal ones once.

    flags: of the trainer, for every arm. toggles: "name=value", several joined by commas; a name is a loss,
    an edge or a setting. add: losses at weight 1, or "loss=weight".
    Errors: UserError for a name that does not exist or a value that it cannot have, before anything runs.
    """
    for word in flags:
        if (flag := word.partition("=")[0].replace("_", "-")) in OWN_FLAGS:
            raise UserError(f"{flag} is set for every run by the ablation; use --seeds and --out")
    base = _arm(flags, "", BASE)
    wanted = [(text, _slug(text)) for text in toggles]
    if leave_one_out:
        wanted += [(f"{loss}=0", f"without-{loss}") for loss in routing(base.cfg).weights]
    for text in add:
        loss, _, weight = text.partition("=")
        if loss not in KNOWN:
            raise UserError(f"--add: {unknown('loss', loss, LOSSES)}")
        wanted.append((f"{loss}={weight or 1}", f"with-{_slug(text)}"))
    arms = [base]
    for text, name in wanted:
        arm = _arm([*flags, *toggle_flags(text)], text, name)
        if all(settings_difference(arm.cfg, other.cfg) for other in arms):
            arms.append(arm)
    if len(arms) == 1:
        raise UserError(
            "nothing differs from the base: give --toggles, --leave-one-out or --add something that does"
        )
    return arms


def _arm(flags: Sequence[str], what: str, name: str) -> Arm:
    cfg = load_config(TrainConfig, flags, prog="jepa-wm ablate")
    return Arm(name=name, what=what, cfg=dataclasses.replace(cfg, threads=cfg.threads or 1))


def _slug(text: str) -> str:
    """A toggle as a folder name that no shell minds."""
    return re.sub(r"[^\w.+-]+", "-", text.replace("->", "-to-").replace(",", "+")).strip("-")


def toggle_flags(text: str) -> list[str]:
    """The trainer's flags for "name=value", several joined by commas. Errors: UserError in one sentence."""
    settings, words = flatten(TrainConfig()), []
    for part in text.split(","):
        name, is_set, value = (piece.strip() for piece in part.partition("="))
        if not (is_set and name and value):
            raise UserError(
                f"the toggle {part!r} must read name=value, such as z2h=0, z->h=0.5 or detach_decoder=true"
            )
        if name in KNOWN:
            words += [f"--loss-weights.{name}", value]
        elif "->" in name:
            words += ["--gates", name, value]
        else:
            words += _setting(name.replace("-", "_"), value, settings)
    return words


def _setting(name: str, value: str, settings: dict) -> list[str]:
    """The flag of a setting, named by its path or, where no other ends alike, by the end of it."""
    paths = [name] if name in settings else [path for path in settings if path.endswith("." + name)]
    if not paths:
        raise UserError(
            f"toggle: {unknown('loss, edge or setting', name, [*LOSSES, *settings]).partition(' (known')[0]}"
        )
    if len(paths) > 1:
        raise UserError(f"toggle: {name!r} may be {' or '.join(paths)}; write the whole path")
    if not isinstance(settings[paths[0]], bool):
        return [f"--{paths[0]}", value]
    if value.lower() not in ("true", "false"):
        raise UserError(f"toggle: {paths[0]} must be true or false, got {value!r}")
    head, _, tail = paths[0].rpartition(".")
    return [f"--{head}{'.' if head else ''}{'' if value.lower() == 'true' else 'no-'}{tail}"]


def make_trials(arms: Sequence[Arm], seeds: Sequence[int], out: Path) -> list[Trial]:
    """Every arm with every seed, the base first, seed by seed. Errors: UserError for a seed given twice."""
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds holds one seed twice: {' '.join(map(str, seeds))}")
    return [Trial(arm=arm, seed=seed, out=out) for seed in seeds for arm in arms]


def check_trials(trials: Sequence[Trial]) -> None:
    """Make the data once, and refuse now what the runs would refuse.

    Errors: UserError for data that an arm cannot use, or a folder that holds a run with other settings.
    """
    checked: list[TrainConfig] = []
    for trial in trials:
        if trial.arm.cfg not in checked:
            episodes = open_dataset(trial.arm.cfg.data)
            resolve_sizes(trial.arm.cfg, episodes.space, tuple(episodes.frames.shape[1:]))
            checked.append(trial.arm.cfg)
        config = trial.folder / "config.toml"
        if not config.is_file():
            continue
        precision = resolve_precision(trial.cfg.precision, resolve_device(trial.cfg.device))
        asked = dataclasses.replace(
            trial.cfg, precision=precision
        )  # a run's own file holds what "auto" became
        if differing := settings_difference(from_toml(TrainConfig, config), asked):
            listing = ", ".join(f"{path} {was} there, {now} now" for path, (was, now) in differing.items())
            raise UserError(
                f"{trial.folder} is a run with other settings ({listing[:300]}); choose another --out"
            )


def steps_done(trial: Trial) -> int:
    """The step of the newest checkpoint of a trial; 0 without one."""
    newest = latest_checkpoint(trial.folder / "checkpoints")
    return 0 if newest is None else int(read_extra(newest)["step"])


def is_finished(trial: Trial) -> bool:
    """Whether the run is there with all its steps."""
    return trial.folder.is_dir() and steps_done(trial) >= trial.arm.cfg.steps
