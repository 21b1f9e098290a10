"""How many threads a call may use."""

import os

__all__ = ["thread_count"]

# An OpenMP runtime that has run in the parent hangs in a forked child: there, its loops stay on one thread.
_FORKED = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _FORKED.append(True))


def thread_count(n_threads=None, openmp=False):
    """`n_threads`, or as many as the processors that this process may use; 1 for OpenMP in a forked child."""
    if openmp and _FORKED:
        return 1
    if n_threads is not None:
        return int(n_threads)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
