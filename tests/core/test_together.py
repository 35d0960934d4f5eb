"""Processes that end together: an error, a death and a signal on one of them, told on the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jepa_world_model.core import together
from jepa_world_model.core.config import cli_main
from jepa_world_model.core.distributed import ALONE
from jepa_world_model.core.errors import PeerError, UserError
from jepa_world_model.core.together import joined, own_device
from tests.distributed.processes import free_port, needs_gloo, once

SCRIPT = """
import os, signal, sys, time
import torch, torch.distributed as dist
from jepa_world_model.core.engine import fit
from jepa_world_model.core.errors import PeerError, UserError
from jepa_world_model.core.rng import Streams
from jepa_world_model.core.together import joined

me, ports = int(os.environ["RANK"]), sys.argv[1:]

def trained(at):
    with joined("cpu") as world:
        def step(index):
            world.total(torch.ones(3))
            at(index)
            return {"finite": True}
        outcome = fit(step, model=torch.nn.Linear(1, 1), steps=50, streams=Streams(0), should_stop=world.any)
        return f"stopped after {outcome.step}, {outcome.interrupted}, first {world.told(str(world.rank))}"

def told(port, at):
    os.environ["MASTER_PORT"], begin = port, time.monotonic()
    try:
        said = trained(at)
    except (PeerError, UserError) as problem:
        said = f"{type(problem).__name__}: {problem}"
        dist.destroy_process_group()
    print(f"{said} | {time.monotonic() - begin:.1f}", flush=True)

def fail(index):
    if me == 1 and index == 3:
        raise UserError("the data of process 1 are torn")

def ask(index):
    if me == 1 and index == 4:
        os.kill(os.getpid(), signal.SIGTERM)

def die(index):
    if me == 1 and index == 5:
        os.kill(os.getpid(), signal.SIGKILL)

for port, at in zip(ports, (ask, fail, die)):
    told(port, at)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> list[list[str]]:
    """What two processes print: a signal on the second, then an error in it, then its death."""
    folder = once(tmp_path_factory, "pair", end_together)
    return [(folder / f"{rank}.txt").read_text().splitlines() for rank in range(2)]


def end_together(folder: Path) -> None:
    ports, started = [str(free_port()) for _ in range(3)], []
    for rank in range(2):
        environment = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with open(folder / f"{rank}.txt", "w") as out:
            command = [sys.executable, "-c", SCRIPT, *ports]
            started.append(subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.DEVNULL))
    assert started[1].wait(120) == -signal.SIGKILL
    began = time.monotonic()
    assert started[0].wait(60) == 0
    assert time.monotonic() - began < 30


@needs_gloo
def test_a_signal_on_one_process_stops_all_after_the_same_step(said):
    assert [lines[0].partition(" |")[0] for lines in said] == ["stopped after 5, True, first 0"] * 2


@needs_gloo
def test_an_error_on_one_process_ends_the_other_with_its_message(said):
    assert said[1][1].startswith("UserError: the data of process 1 are torn")
    text, _, seconds = said[0][1].partition(" | ")
    assert text == "PeerError: process 1 of 2 failed: the data of process 1 are torn"
    assert float(seconds) < 30


@needs_gloo
def test_the_death_of_one_process_ends_the_other_with_the_cause(said):
    assert len(said[1]) == 2
    text, _, seconds = said[0][2].partition(" | ")
    assert text == (
        "PeerError: process 1 of 2 failed: it died without a word: killed, perhaps for want of memory?"
    )
    assert float(seconds) < 30


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for size in (None, "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if size:
            monkeypatch.setenv("WORLD_SIZE", size)
        with joined("cpu") as world:
            assert world is ALONE


def test_an_environment_that_is_not_torchruns_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(UserError, match="'RANK' cannot be read from the environment; start with torchrun"),
        joined(),
    ):
        pass


def test_every_process_has_a_device_of_its_own(monkeypatch):
    assert own_device("cpu", 3) == torch.device("cpu")
    with pytest.raises(UserError, match="--device cuda:1 is one device, but there are several processes"):
        own_device("cuda:1", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    assert own_device("auto", 1) == torch.device("cuda", 1)
    with pytest.raises(UserError, match="process 2 of this machine has no GPU, 2 are visible"):
        own_device("cuda", 2)


def test_the_failure_of_another_process_is_one_line_and_code_1(capsys):
    def run() -> None:
        raise PeerError("process 1 of 2 failed: it died")

    assert cli_main(run) == 1
    assert capsys.readouterr().err == "error: process 1 of 2 failed: it died\n"


def test_a_process_that_has_ended_is_not_alive(tmp_path: Path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    deadline = time.monotonic() + 20
    while together._alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not together._alive(child.pid)  # ended, though nobody has waited for it yet
    child.wait()
    assert not together._alive(child.pid)
    assert together._alive(os.getpid())
