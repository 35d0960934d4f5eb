"""`jepa-wm completion SHELL`: print a script with which a shell completes commands, flags and their values.

bash: jepa-wm completion bash > ~/.local/share/bash-completion/completions/jepa-wm
zsh:  jepa-wm completion zsh > ~/.zfunc/_jepa-wm        (with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc)
fish: jepa-wm completion fish > ~/.config/fish/completions/jepa-wm.fish
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from jepa_world_model.commands import COMMANDS

SHELLS = ("bash", "zsh", "fish")
FLAGS = {  # command -> the class whose fields are its flags; the other commands complete file names
    "train": "jepa_world_model.experiment:TrainConfig",
    "gradients": "jepa_world_model.experiment:TrainConfig",
    "collect": "jepa_world_model.commands.collect:CollectCommand",
    "plan": "jepa_world_model.experiment.plan_config:PlanConfig",
    "ki-train": "jepa_world_model.vla_ki.config:KITrainConfig",
    "ki-check": "jepa_world_model.vla_ki.config:KITrainConfig",
    "ki-eval": "jepa_world_model.vla_ki.evaluate:EvalConfig",
}

# Run folders and data sets stand without a flag: where tyro knows nothing, bash offers files.
BASH_FILES = """
_jepa_wm_or_files() {
  local word="${COMP_WORDS[COMP_CWORD]}"
  _tyro_jepa_wm
  if [[ -z "${COMPREPLY[*]}" && "$word" != -* ]]; then COMPREPLY=($(compgen -f -- "$word")); fi
}
complete -o filenames -F _jepa_wm_or_files jepa-wm
"""


def main(argv: Sequence[str]) -> None:
    """Print the script."""
    parser = argparse.ArgumentParser(
        prog="jepa-wm completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that shall complete")
    print(script(parser.parse_args(argv).shell), end="")


def script(shell: str) -> str:
    """The completion script of a shell, written by tyro from the configuration classes."""
    import tyro

    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "script")
        commands = {name: _stand_in(name, told) for name, (_, told) in COMMANDS.items()}
        with contextlib.suppress(SystemExit):  # tyro ends the process when it has written the script
            tyro.extras.subcommand_cli_from_dict(
                commands, prog="jepa-wm", args=["--tyro-write-completion", shell, str(path)],
                config=(tyro.conf.AvoidSubcommands,),
            )  # fmt: skip
        text = path.read_text(encoding="utf-8")
    return text + BASH_FILES if shell == "bash" else text


def _stand_in(name: str, told: str) -> Callable[..., None]:
    """A function with the flags of a command, for tyro to look at."""
    import tyro

    if name in FLAGS:
        module, _, cls = FLAGS[name].partition(":")
        flags = getattr(importlib.import_module(module), cls)

        def command(cfg: Any, config: Path = Path("FILE.toml")) -> None: ...

        command.__annotations__ = {"cfg": Annotated[flags, tyro.conf.arg(name="")], "config": Path}
        command.__defaults__ = (flags(), Path("FILE.toml"))
    else:

        def command(path: Any) -> None: ...

        command.__annotations__ = {"path": tyro.conf.Positional[Path]}
    command.__doc__ = told
    return command
