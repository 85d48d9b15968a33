"""Training starts again once with glibc's large pages, and only then."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vis2img.cli.large_pages import _glibc

SHOW = """
import os, sys
from vis2img.cli.large_pages import use_large_pages
use_large_pages()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), os.environ.get("VIS2IMG_LARGE_PAGES"), sys.argv[1:])
print(open("/proc/self/environ").read().count("glibc.malloc.hugetlb=1"))
"""
pytestmark = pytest.mark.skipif(_glibc() < (2, 35), reason="the C library has no such setting")


def run(**environment: str) -> tuple[int, list[str]]:
    env = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "VIS2IMG_LARGE_PAGES")}
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW, "a b", "c"], stdout=subprocess.PIPE, text=True, env={**env, **environment}
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return process.pid, out.splitlines()


def test_the_process_has_the_setting_and_what_it_starts_has_not() -> None:
    pid, (shown, count) = run()
    # The same process, so that signals of whoever started it arrive; the same arguments.
    assert shown == f"{pid} None None ['a b', 'c']"
    assert count == "1"


def test_settings_of_the_user_stay() -> None:
    pid, (shown, count) = run(GLIBC_TUNABLES="glibc.malloc.check=0")
    assert shown == f"{pid} glibc.malloc.check=0 None ['a b', 'c']"
    assert count == "0"
