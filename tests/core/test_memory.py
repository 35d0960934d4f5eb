"""Memory of a process that asks for the same large tensors every step."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jepa_world_model.core import memory

FAULTS = """
import resource, sys
from jepa_world_model.core.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
import torch
count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step = lambda: torch.ones(12_000_000)  # 48 MB: glibc's own threshold grows to 32 MB at most
for _ in range(15):  # aligned blocks find their place after some turns
    step()
before = count()
for _ in range(3):
    step()
print(count() - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_large_tensors_of_every_step_are_not_fetched_from_the_system_again():
    assert page_faults("kept") < 0.1 * page_faults("plain")


def test_what_the_user_has_set_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not memory.keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.keep_freed_memory()
