"""Memory of a process that asks for the same large tensors every step."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
KEPT_BYTES, MAPPED_BYTES = 2**31 - 1, 2**30


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, up to 2 GiB, and hand it out again; whether that could be set.

    By default it gives large blocks back to the system and gets them anew, zeroed page by page: 15,000 page faults a step
    of the default world model on the CPU, a fifth of its time. The most memory in use at once does not change (measured:
    590 MB either way). Who has set MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_ is left alone.
    """
    own = [name for name in os.environ if name.startswith(("MALLOC_TRIM_", "MALLOC_MMAP_"))]
    if own or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    return bool(mallopt(TRIM_THRESHOLD, KEPT_BYTES) and mallopt(MMAP_THRESHOLD, MAPPED_BYTES))
