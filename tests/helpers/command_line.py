"""What a run of the command line left behind: its streams and its files."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str

    def error(self, code: int = 1) -> str:
        """Return the message, after checking that it is one line, no traceback and no bug report."""
        lines = self.err.splitlines()
        assert self.code == code, self.err
        assert len(lines) == 1, self.err
        assert lines[0].startswith("vis2img: error: ")
        assert "this is a bug" not in lines[0] and "Traceback" not in self.err
        assert self.out == ""
        return lines[0].removeprefix("vis2img: error: ")


def fingerprint(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Return hash, modification time and mode of every file, folder and link at or below ``folder``."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status, digest = path.lstat(), "no file"
        if stat.S_ISLNK(status.st_mode):
            digest = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = (digest, status.st_mtime_ns, status.st_mode)
    return found
