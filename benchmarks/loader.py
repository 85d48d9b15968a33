"""Measure the loader on a measurement set: what one ducc0 call per view would give, and what the pool gives.

    python benchmarks/loader.py views REF2.ms                 # fresh, delivered, waiting; a call per view
    python benchmarks/loader.py workers REF2.ms               # one and two workers joined by a scheduler address
    python benchmarks/loader.py kills REF2.ms                 # a worker killed every 20 s for 5 minutes
    python benchmarks/loader.py memory REF4.ms --copies 3     # 30 minutes on three in a row, in time, with a plot
    python benchmarks/loader.py cache REF2.ms                 # draws read from disk, and imaged, in turns

The reference observation is simulated by benchmarks/imaging.py. Views are 2 of 224 and 8 of 96 pixels of patches of 224
suggested pixels, in a field of --field-npix; the imaging prior is `full`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import math
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from vis2img.cluster.engine import Engine
from vis2img.coordinates import sky_position
from vis2img.draws.observed_field import ObservedField
from vis2img.imaging.image import make_image
from vis2img.loader.bench import draw_plot, measure
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import open_fields
from vis2img.loader.loader import Loader
from vis2img.machine import cores
from vis2img.random import draw_rng
from vis2img.views.crops import ViewConfig

VIEWS = ViewConfig(patch_npix=224, global_size=224, local_size=96, n_global=2, n_local=8)
_SLOW = 10.0  # samples per second of a consumer that leaves the cores to the workers
_FEW = 1e8  # bytes of visibilities in a draw: some six million
_DASK = [sys.executable, "-m", "dask"]


def config_of(options: argparse.Namespace, **changes: object) -> LoaderConfig:
    """Return the configuration of a loader of the measurement set."""
    values = {"ms": (str(options.ms),), "field_npix": options.field_npix, "views": VIEWS, "batch_size": 32}
    return LoaderConfig(**{**values, **changes})


def one_view(source: ObservedField, index: int, whole: bool) -> tuple[float, float]:
    """Image one patch of 224 pixels by itself; return wall time in all, and of a ducc0 call of it."""
    from vis2img.imaging.gridding import vis_to_dirty

    rng = draw_rng(0, 0, index)
    prior = source.prior.fixed() if whole else source.prior
    params = prior.draw(rng)
    parts = source.data().select(params)
    l, m = rng.uniform(-0.3, 0.3, 2) * source.prior.fov
    ra, dec = map(float, sky_position(np.array(l), np.array(m), parts[0].phase_centre))
    pixsize = VIEWS.patch_npix * source.pixsize / VIEWS.global_size
    patch = replace(params, npix=(VIEWS.global_size,) * 2, pixsize=pixsize, phase_centre=(ra, dec))
    start = time.perf_counter()
    make_image(parts, patch, selected=True)
    middle = time.perf_counter()
    for part in parts:
        vis_to_dirty(
            part.uvw, part.chan_freq, part.vis, part.weight, patch.npix, pixsize, total=1.0, epsilon=params.epsilon
        )
    return middle - start, time.perf_counter() - middle


def with_pillow(seconds: float = 5.0) -> float:
    """Return how many of these views Pillow and NumPy would resize and stretch in a second of one core."""
    from PIL import Image

    rng = np.random.default_rng(0)
    field = rng.normal(size=(4096, 4096)).astype(np.float32)
    start, count = time.thread_time(), 0
    while time.thread_time() - start < seconds:
        for number in range(VIEWS.n_views):
            size, scale = (224, VIEWS.global_scale) if number < VIEWS.n_global else (96, VIEWS.local_scale)
            side = VIEWS.patch_npix * rng.uniform(*scale)
            x, y = rng.uniform(0, 3800, 2)
            left, lower = int(x), int(y)
            piece = np.ascontiguousarray(field[lower : lower + math.ceil(side) + 2, left : left + math.ceil(side) + 2])
            box = (x - left, y - lower, x - left + side, y - lower + side)
            view = np.asarray(Image.fromarray(piece).resize((size, size), Image.Resampling.BILINEAR, box=box))
            np.arcsinh(view / np.float32(10)) * np.float32(2)
            count += 1
    return count / (time.thread_time() - start)


def views(options: argparse.Namespace) -> None:
    """Print views per second by one call each, and by the loader, in one run."""
    print(f"cutting with Pillow and NumPy: {with_pillow():.0f} views/s and core")
    config = config_of(options)
    source = open_fields(config).fields[0]
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        for whole, text in ((True, "all data"), (False, "what a draw keeps")):
            list(pool.map(one_view, [source] * cores(), range(cores()), [whole] * cores()))
            count = 4 * cores()
            start = time.perf_counter()
            taken = list(pool.map(one_view, [source] * count, range(count), [whole] * count))
            wall = time.perf_counter() - start - sum(bare for _, bare in taken) / cores()
            bare = count / sum(b for _, b in taken) * cores()
            print(
                f"a call per view, {text}: {count / wall:.3f} views/s ({bare:.3f} of bare ducc0), {cores()} processes"
            )
    for memory_limit, rate in ((config.draw_memory, _SLOW), (_FEW, _SLOW), (_FEW, options.rate)):
        found = measure(replace(config, draw_memory=memory_limit), seconds=options.seconds, rate=rate)
        shown = {name: value for name, value in dataclasses.asdict(found).items() if isinstance(value, float | int)}
        print(
            f"draw_memory {memory_limit:g}, consumer of {rate:g} samples/s: "
            + ", ".join(f"{k} {v:.4g}" for k, v in shown.items())
        )


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[str]:
    """Yield the address of a scheduler with workers, all separate processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([*_DASK, "scheduler", "--port", str(port), "--no-dashboard"], **quiet)]  # type: ignore[call-overload]
    started += [
        subprocess.Popen([*_DASK, "worker", address, "--nthreads", "1", "--no-dashboard"], **quiet)  # type: ignore[call-overload]
        for _ in range(workers)
    ]
    try:
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def workers(options: argparse.Namespace) -> None:
    """Print fresh views per second of one and of two workers, in turns: the same draws, after a full pool."""
    seen: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.repeat):
        for count in seen:
            with cluster(count) as address, Loader(config_of(options, engine=Engine(address, count))) as loader:
                loader.next_batch()
                start, before = time.perf_counter(), loader.report()["fresh_draws"]
                while loader.report()["fresh_draws"] < before + options.draws:
                    time.sleep(0.02)
                seen[count].append(options.draws / (time.perf_counter() - start))
            print(f"{count} workers: {seen[count][-1]:.3f} draws/s", flush=True)
    ratios = [two / one for one, two in zip(*seen.values(), strict=True)]
    print(f"two over one: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; median {np.median(ratios):.2f}")


def kills(options: argparse.Namespace) -> None:
    """Compare the batches of a synchronous run whose workers are killed with those of an undisturbed one."""
    config = config_of(options, mode="sync", refresh_every=4, batch_size=8, engine=Engine(workers=2))
    disturbed, killed, repeated = _digests(config, options.seconds, kill_every=options.every)
    print(
        f"{len(disturbed)} batches in {options.seconds:.0f} s, {killed} workers killed, {repeated} draws repeated",
        flush=True,
    )
    undisturbed, _, _ = _digests(config, math.inf, count=len(disturbed))
    same = sum(a == b for a, b in zip(disturbed, undisturbed, strict=True))
    samples = [key for digest in disturbed for key in digest[1]]
    print(f"{same} of {len(undisturbed)} batches are the same; {len(samples) - len(set(samples))} samples came twice")


def _digests(
    config: LoaderConfig, seconds: float, *, count: int | None = None, kill_every: float = 0.0
) -> tuple[list[tuple[str, tuple[object, ...]]], int, float]:
    """Run a loader; return a hash and the samples of each batch, the workers killed and the draws repeated."""
    found: list[tuple[str, tuple[object, ...]]] = []
    killed, stop = [0], threading.Event()
    with Loader(config, seed=7) as loader:

        def kill() -> None:
            while not stop.wait(kill_every):
                pids = list(loader.source.pool.requests.client.run(os.getpid, on_error="ignore").values())
                if pids:
                    os.kill(random.choice(pids), signal.SIGKILL)
                    killed[0] += 1

        if kill_every:
            threading.Thread(target=kill, daemon=True).start()
        start = time.perf_counter()
        while (time.perf_counter() - start < seconds) if count is None else (len(found) < count):
            batch = loader.next_batch()
            digest = hashlib.sha256()
            for array in vars(batch).values():
                digest.update(np.ascontiguousarray(array))
            keys = zip(batch.item.tolist(), batch.draw_index.tolist(), batch.position.tolist(), strict=True)
            found.append((digest.hexdigest(), tuple((f, *i, *p) for f, i, p in keys)))
        stop.set()
        return found, killed[0], loader.report()["repeated_draws"]


def memory(options: argparse.Namespace) -> None:
    """Print the most memory of loader and workers, and its growth, and write the plot."""
    from averaging import repeat

    ms = options.folder / f"{options.ms.stem}-times-{options.copies}.ms"
    if not ms.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        repeat(options.ms, options.copies, ms)
    size = sum(path.stat().st_size for path in ms.rglob("*") if path.is_file())
    options.ms = ms
    config = config_of(options, draw_memory=options.draw_memory, mode="async")
    found = measure(config, seconds=options.seconds, rate=options.rate)
    total = np.add(found.series.loader_bytes, found.series.worker_bytes) / 1e9
    time_s = np.array(found.series.time)
    full = time_s > found.fill_seconds + 60
    half = time_s > (time_s[full][0] + time_s[-1]) / 2
    print(
        f"{size / 1e9:.2f} GB: at most {total.max():.2f} GB resident (loader and workers); mean of the first half "
        f"{total[full & ~half].mean():.2f} GB, of the second {total[half].mean():.2f} GB; "
        f"{found.fresh_draws * found.seconds:.0f} draws, {found.read_bytes / 1e6:.0f} MB/s read, "
        f"{found.delivered_views:.0f} views/s, wait {100 * found.input_wait:.1f}%"
    )
    draw_plot(found.series, options.plot, overwrite=True)


def cache(options: argparse.Namespace) -> None:
    """Print what a loader gives whose draws are imaged, and read from disk, in turns: the same draws."""
    with tempfile.TemporaryDirectory(dir=options.folder if options.folder.is_dir() else None) as folder:
        imaged = config_of(options, draws_total=options.draws)
        kept = replace(imaged, draw_cache=folder)
        with Loader(kept) as loader:
            loader.next_batch()
            while loader.report()["fresh_draws"] < options.draws:
                time.sleep(0.05)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.npz"))
        print(f"{options.draws} draws kept, {size / options.draws / 1e6:.1f} MB each")
        for _ in range(options.repeat):
            for name, config in (("imaged", imaged), ("read", kept)):
                found = measure(config, seconds=options.seconds, rate=options.rate)
                print(
                    f"{name}: full after {found.fill_seconds:.1f} s, {found.fresh_draws:.2f} draws/s, "
                    f"{found.delivered_views:.0f} views/s, wait {100 * found.input_wait:.1f}%",
                    flush=True,
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["views", "workers", "kills", "memory", "cache"])
    parser.add_argument("ms", type=Path)
    parser.add_argument("--field-npix", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=0.0, help="default: 60; kills 300; memory 1800")
    parser.add_argument("--rate", type=float, default=300.0, help="samples per second of the consumer")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--draws", type=int, default=20, help="of each turn of workers; in all, of cache")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between kills")
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--draw-memory", type=float, default=2e8)
    parser.add_argument("--folder", type=Path, default=Path("bench"), help="where copies go")
    parser.add_argument("--plot", type=Path, default=Path("loader-memory.png"))
    options = parser.parse_args()
    options.seconds = options.seconds or {"kills": 300.0, "memory": 1800.0}.get(options.what, 60.0)
    options.ms = options.ms.resolve()
    print(f"{platform.machine()}, {cores()} cores; {options.what} {options.ms.name}, field of {options.field_npix} px")
    globals()[options.what](options)


if __name__ == "__main__":
    main()
