"""Time one draw (ducc0 on one thread) and the views cut from a full pool, in one run.

python benchmarks/views.py demo/data/field0.ms demo/data/field1.ms
"""

from __future__ import annotations

import argparse
import os
import platform
import time

from vis2img.draws import make_draw
from vis2img.loader import Loader, LoaderConfig


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ms", nargs="+")
    parser.add_argument("--field-npix", type=int, default=768)
    parser.add_argument("--batches", type=int, default=20)
    options = parser.parse_args()
    config = LoaderConfig(tuple(options.ms), field_npix=options.field_npix, mode="sync", refresh_every=0)
    with Loader(config) as loader:
        source = loader.sources[0]
        field_visibilities(source)
        start = time.perf_counter()
        for index in range(3):
            make_draw(source, 0, 0, index)
        draw = (time.perf_counter() - start) / 3
        loader.next_batch()
        start = time.perf_counter()
        for _ in range(options.batches):
            loader.next_batch()
        batch = (time.perf_counter() - start) / options.batches
    views = config.batch_size * (config.views.n_global + config.views.n_local)
    print(f"{platform.machine()}, {os.cpu_count()} cores")
    print(f"one draw of {options.field_npix} px: {draw * 1e3:.0f} ms on one thread")
    print(f"one batch of {config.batch_size} samples, {views} views: {batch * 1e3:.1f} ms; {views / batch:.0f} views/s")
    print(f"imaging each view by itself would take {draw * views / batch:.0f} times as long")


if __name__ == "__main__":
    main()
