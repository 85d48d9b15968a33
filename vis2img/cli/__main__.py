"""``python -m vis2img.cli``, the same as ``vis2img``."""

import sys

from vis2img.cli import main

if __name__ == "__main__":
    sys.exit(main())
