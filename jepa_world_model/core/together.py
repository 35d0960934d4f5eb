"""Joining the other processes that `torchrun` started, and ending together, with the cause, when one of them fails."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from jepa_world_model.core.distributed import ALONE, World
from jepa_world_model.core.errors import PeerError, UserError

PATIENCE = datetime.timedelta(
    hours=1
)  # for one exchange: process 0 may evaluate meanwhile; a death is seen sooner
LOOK_S = 1.0  # between two looks at the others
GRACE_S = 20.0  # for a process to end by itself after another has failed; then it is ended
WAIT_S = 8.0  # after a broken exchange, for the word of the process that broke it
DIED = "it died without a word: killed, perhaps for want of memory?"
EXCHANGE = (
    "gloo",
    "NCCL",
    "Connection",
    "ProcessGroup",
    "TCPStore",
    "recvValue",
)  # words of a broken exchange


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """This process among those that torchrun started; alone, without any exchange, where there is no torchrun.

    device: "auto" (a GPU each where there are any), "cpu" or "cuda"; gloo on the CPU, NCCL on GPUs. On leaving, all wait
    for each other. When a process fails, each of the others raises within seconds, wherever it is waiting.
    Errors: UserError for a device that cannot be shared out; PeerError with the cause when another process failed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    world, store = _join(device)
    watch = _Watch(store, world)
    watch.start()
    try:
        world.barrier()
        yield world
        watch.conclude_well()
        world.barrier()
    except BaseException as problem:
        told = watch.conclude(problem)
        if told is None:
            raise
        raise PeerError(told) from problem
    watch.over.set()
    watch.join()
    dist.destroy_process_group()


def _join(device: str) -> tuple[World, Any]:
    """The world that the environment describes, connected, and the store that its processes share."""
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", rank))
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    except (KeyError, ValueError) as problem:
        raise UserError(
            f"WORLD_SIZE is set, but {problem} cannot be read from the environment; start with torchrun"
        ) from None
    where = own_device(device, local)
    backend = "gloo" if where.type == "cpu" else "cpu:gloo,cuda:nccl"
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=PATIENCE))
    dist.init_process_group(
        backend, store=dist.PrefixStore("group", store), rank=rank, world_size=size, timeout=PATIENCE
    )
    return World(rank=rank, size=size, local_rank=local, device=where), dist.PrefixStore("watch", store)


def own_device(name: str, local_rank: int) -> torch.device:
    """The device of one of several processes on a machine; a GPU becomes the current one.

    Errors: UserError for one GPU named for all, or fewer GPUs than processes.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"--device {name} is one device, but there are several processes; use auto, cpu or cuda"
        )
    seen = torch.cuda.device_count() if name != "cpu" else 0
    if name == "cpu" or (name == "auto" and seen == 0):
        return torch.device("cpu")
    if local_rank >= seen:
        raise UserError(
            f"process {local_rank} of this machine has no GPU, {seen} are visible; "
            f"use torchrun --nproc-per-node {max(seen, 1)}, or --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


class _Watch(threading.Thread):
    """Looks every second whether another process has failed or died, and ends this one if it cannot end itself."""

    def __init__(self, store: Any, world: World) -> None:
        super().__init__(name="watch", daemon=True)
        # A client of its own: a wait in the main thread would hold this one up.
        self.main, self.store, self.world = store, store.clone(), world
        self.over = threading.Event()
        self.store.set(f"pid/{world.rank}", json.dumps([_house(), os.getpid()]))
        self.peers: dict[int, int] = {}

    def run(self) -> None:
        """Look, and after another's failure wait for this process to end by itself."""
        while not self.over.wait(LOOK_S):
            told = self._look()
            if told is not None and not self.over.wait(GRACE_S):
                # Stuck in an exchange that will never end (NCCL), where no exception can be raised.
                sys.stderr.write(f"error: {told}\n")
                sys.stderr.flush()
                os._exit(1)

    def _look(self) -> str | None:
        """What another process has failed of."""
        try:
            told = self.failure()
            if told is None:
                self._meet()
                for rank in self._dead():
                    if not self.store.check([f"done/{rank}"]):
                        self.tell(rank, DIED)
                told = self.failure()
        except RuntimeError:  # the store is gone, and with it the process that held it: 0, or torchrun
            return self._lost()
        return None if told is None or told[0] == self.world.rank else told[1]

    def _meet(self) -> None:
        """Learn the process numbers of those that run on this machine."""
        if self.peers or not self.store.check([f"pid/{rank}" for rank in range(self.world.size)]):
            return
        for rank in range(self.world.size):
            house, pid = json.loads(self.store.get(f"pid/{rank}"))
            if house == _house():
                self.peers[rank] = pid

    def _dead(self) -> list[int]:
        """The processes of this machine that run no more."""
        return [rank for rank, pid in self.peers.items() if not _alive(pid)]

    def _lost(self) -> str:
        """What is known when nothing can be asked any more."""
        dead = self._dead()
        if dead:
            return f"process {dead[0]} of {self.world.size} failed: {DIED}"
        return f"process {self.world.rank} lost the others; see what the first of them, or torchrun, says"

    def failure(self) -> tuple[int, str] | None:
        """The process that failed first, and a sentence on it."""
        if not self.store.check(["failure"]):
            return None
        rank, text = json.loads(self.store.get("failure"))
        return rank, f"process {rank} of {self.world.size} failed: {text}"

    def tell(self, rank: int, text: str) -> None:
        """Say what failed, unless something is said already."""
        self.store.compare_set("failure", "", json.dumps([rank, text]))

    def conclude(self, problem: BaseException) -> str | None:
        """After an error here: what to say instead, when another process was the cause; the others are told ours."""
        broken = isinstance(problem, RuntimeError) and any(word in str(problem) for word in EXCHANGE)
        if broken and threading.current_thread() is threading.main_thread():
            # torchrun ends the others by SIGTERM as soon as one is gone; this one ends by itself and says why.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            until = time.monotonic() + (WAIT_S if broken else 0)
            told = self.failure()
            while told is None and time.monotonic() < until:
                time.sleep(0.1)
                told = self.failure()
            if told is None:
                self.tell(self.world.rank, _sentence(problem))
        except RuntimeError:
            return self._lost() if broken else None
        finally:
            self.over.set()
        return told[1] if broken and told is not None else None

    def conclude_well(self) -> None:
        """All went well here: to end is no failure. Before the last wait, after which the store may be gone."""
        self.main.set(f"done/{self.world.rank}", "1")


def _sentence(problem: BaseException) -> str:
    """One line on an error."""
    first = (str(problem).splitlines() or [""])[0]
    return first if isinstance(problem, UserError) and first else f"{type(problem).__name__}: {first}"


def _house() -> str:
    """Processes with the same one see each other's numbers: the machine, and in a container the container."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {sys.platform}"


def _alive(pid: int) -> bool:
    """Whether a process of this machine runs; one that has ended but was not yet waited for does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return False
    except OSError:
        return True
    try:  # no /proc: macOS
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
