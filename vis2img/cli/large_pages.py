"""Large pages for the memory of training on CPUs.

XLA's CPU backend takes the temporary memory of a step anew at every call, and gives it back: gigabytes that the kernel
hands over, and clears, in pages of 4 kB, which takes up to a quarter of a step (docs/benchmarks.md). glibc asks for
pages of 2 MB if it is told to when a process starts, and only then.
"""

from __future__ import annotations

import os
import sys

_MARK = "VIS2IMG_LARGE_PAGES"
_TUNABLES = "GLIBC_TUNABLES"
_SINCE = (2, 35)  # the glibc that knows the setting


def use_large_pages() -> None:
    """Start this process again, in its place, with the setting; once, and not where the user has settings of glibc."""
    if os.environ.pop(_MARK, None):
        # It was read at the start; what this process starts is to decide for itself.
        del os.environ[_TUNABLES]
        return
    if _TUNABLES in os.environ or _glibc() < _SINCE:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    environment = {**os.environ, _MARK: "1", _TUNABLES: "glibc.malloc.hugetlb=1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _glibc() -> tuple[int, ...]:
    """Version of the C library, or () if it is another one."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, ValueError):
        return ()
    return tuple(int(part) for part in version.split(".")) if name == "glibc" else ()
