"""Small disks that only a test sees."""

from __future__ import annotations

import contextlib
import subprocess

import pytest


def own_mounts() -> list[str]:
    """Command before another that lets it mount what only it sees; the test is skipped where nothing does."""
    probe = ["sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
    for alone in (["unshare", "-m"], ["unshare", "-Urm"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*alone, *probe], capture_output=True).returncode == 0:
                return alone
    pytest.skip("neither this user nor a namespace of its own may mount a small disk")
