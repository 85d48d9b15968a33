"""``python -m vis2img``, the same as ``vis2img``."""

from vis2img.cli.__main__ import start

if __name__ == "__main__":
    start()
