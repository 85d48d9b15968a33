"""``python -m vis2img.cli``, the same as ``vis2img``."""

import sys
from pathlib import Path

from vis2img.cli import main


def start() -> None:
    """Run ``vis2img`` and end the process.

    Python puts the current folder in front of all packages where it runs a module, and a file of the user's there, such
    as ``numpy.py``, would be taken for one; the installed command does not look there.
    """
    here = Path.cwd()
    if sys.path and Path(sys.path[0]).absolute() == here != Path(__file__).absolute().parents[2]:
        del sys.path[0]
    sys.exit(main())


if __name__ == "__main__":
    start()
