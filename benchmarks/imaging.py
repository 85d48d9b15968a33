"""Time imaging one measurement set: vis2img beside WSClean, psimager and the bare reads and gridding.

    python benchmarks/imaging.py --psimager /path/to/psimager --json imaging.json     # simulates what it images
    python benchmarks/imaging.py --ms obs.ms --npix 1024                              # on your own data
    python benchmarks/imaging.py --draws                                              # 16 draws of one field

The reference observation is of MeerKAT: 64 antennas, 225 times of 16 s, 64 channels of 12.5 MHz from 900 MHz, 29
million visibilities, with two and with four correlations. It is simulated once, into the folder --work (3 minutes,
3 GB). Everything runs in a process of its own, whose files are in the page cache: wall time, CPU time of its process
tree and largest resident memory are what the kernel tells of it. The programs take turns, --repeat times, as the speed
of a machine drifts; medians are shown, and of the ratios too, each within one turn.

Every program grids to its own default accuracy: vis2img, WSClean's w-gridder and the floor to 1e-4, psimager to 1e-6.
psimager 0.3.1 takes four linear correlations only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REFERENCE = {"ref2.ms": "XX,YY", "ref4.ms": "XX,XY,YX,YY"}
OURS = "vis2img"
_SIMULATE = """
import math, sys
from pathlib import Path
from vis2img.simulate.config import SimulateConfig
from vis2img.simulate.run import simulate
simulate(SimulateConfig(out=Path(sys.argv[1]), ntimes=225, dtime=16.0, nchan=64, start_freq=900e6, chan_width=12.5e6,
                        correlations=sys.argv[2], n_sources=40, fov=math.radians(0.8), seed=1))
"""
_VERSIONS = """
import json
from importlib.metadata import version
from vis2img.imaging.params import ImagingParams
names = ("vis2img", "ducc0", "python-casacore", "numpy", "numba", "dask")
found = {}
for name in names:
    try:
        found[name] = version(name)
    except ImportError:
        pass
print(json.dumps({"epsilon": ImagingParams.epsilon, "versions": found}))
"""


@dataclass(frozen=True)
class Result:
    """What one program took: wall and CPU time in s, memory in MB (1e6 bytes); ``reason`` if it did not run.

    ``ratio`` is its wall time over that of vis2img.
    """

    case: str
    program: str
    wall: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    ratio: float = 0.0
    reason: str = ""
    command: str = ""


def measure(command: list[str], log: Path) -> tuple[float, float, float]:
    """Run ``command`` with its output in ``log``; return wall time (s), CPU time (s) and peak memory (MB).

    Raises
    ------
    RuntimeError
        If it fails, with the last line that it printed.
    """
    start = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"exit status {process.returncode}: {lines[-1].strip() if lines else 'no output'}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


def run(case: str, commands: dict[str, list[str]], options: argparse.Namespace) -> list[Result]:
    """Return the medians of several turns of ``commands``, by program."""
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    reasons = {name: f"{c[0]} is not there" for name, c in commands.items() if shutil.which(c[0]) is None}
    for turn in range(options.repeat):
        for name, command in commands.items():
            if name in reasons:
                continue
            log = options.work / "logs" / f"{case}-{name}.log".replace(" ", "_").replace(",", "")
            try:
                taken[name].append(measure(command, log))
            except RuntimeError as error:
                reasons[name] = str(error)
            said = reasons.get(name) or f"{taken[name][-1][0]:.1f} s"
            print(f"{case}, turn {turn + 1}: {name} {said}", file=sys.stderr, flush=True)
    results = []
    for name, command in commands.items():
        if name in reasons:
            results.append(Result(case, name, reason=reasons[name], command=" ".join(command)))
            continue
        pairs = zip(taken[name], taken.get(OURS, []), strict=False)
        ratios = [theirs[0] / ours[0] for theirs, ours in pairs] or [0.0]
        middle = (statistics.median(figures) for figures in zip(*taken[name], strict=True))
        results.append(Result(case, name, *middle, statistics.median(ratios), command=" ".join(command)))
    return results


def programs(ms: Path, npix: int, options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each program for one dirty image, Briggs 0, of ``npix`` pixels of 2 arcsec."""
    threads, size, out = str(options.threads), str(npix), options.work / "images"
    wsclean = [options.wsclean, "-j", threads, "-niter", "0", "-no-update-model-required", "-data-column", "DATA"]
    shape = ["-size", size, size, "-scale", "2asec", "-weight", "briggs", "0"]
    return {
        OURS: [
            *[options.vis2img, "image", str(ms), "--npix", size, "--pixsize", "2arcsec", "--weighting", "briggs"],
            *[
                "--robust",
                "0",
                "--no-png",
                "--threads",
                threads,
                "--overwrite",
                "-o",
                str(out / "vis2img.fits"),
            ],
        ],
        "WSClean -use-wgridder": [*wsclean, "-use-wgridder", *shape, "-name", str(out / "wgridder"), str(ms)],
        "WSClean, default gridder": [*wsclean, *shape, "-name", str(out / "wsclean"), str(ms)],
        "psimager": [options.psimager, "-j", threads, *shape, "-name", str(out / "psimager"), str(ms)],
        "floor": [
            *[sys.executable, str(HERE / "floor.py"), str(ms), "--npix", size, "--pixsize-arcsec", "2"],
            *["--epsilon", str(options.epsilon), "--threads", threads],
        ],
    }


def draw_programs(ms: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the commands for 16 draws of half of the times, 4096 pixels of 1 arcsec."""
    threads, size = str(options.threads), str(max(options.npix))
    return {
        OURS: [
            *[options.vis2img, "image", str(ms), "--draws", "16", "--npix", size, "--pixsize", "1arcsec"],
            *["--keep-times", "0.5", "--weighting", "briggs", "--robust", "0", "--no-png", "--threads", threads],
            *["--overwrite", "-o", str(options.work / "images" / "draw.fits")],
        ],
        "floor": [
            *[sys.executable, str(HERE / "floor.py"), str(ms), "--npix", size, "--pixsize-arcsec", "1"],
            *["--epsilon", str(options.epsilon), "--threads", threads, "--draws", "16", "--keep-times", "0.5"],
        ],
    }


def table(results: list[Result]) -> str:
    """Return the results of one case as a markdown table."""
    lines = ["| program | wall time | CPU time | peak memory | wall time / vis2img |", "|---|---|---|---|---|"]
    for r in results:
        if r.reason:
            lines.append(f"| {r.program} | skipped: {r.reason.replace('|', '/')} | | | |")
        else:
            ratio = f"{r.ratio:.2f}" if r.ratio else ""
            lines.append(f"| {r.program} | {r.wall:.1f} s | {r.cpu:.1f} s | {r.memory:.0f} MB | {ratio} |")
    return "\n".join(lines)


def observations(options: argparse.Namespace) -> list[Path]:
    """Return the measurement sets, after simulating those that are not there yet."""
    if options.ms:
        return [path.resolve() for path in options.ms]
    made = []
    for name, correlations in REFERENCE.items():
        path = options.work / name
        if not path.exists():
            print(f"simulating {path} ...", file=sys.stderr, flush=True)
            measure([sys.executable, "-c", _SIMULATE, str(path), correlations], options.work / "logs" / "simulate.log")
        made.append(path)
    return made


def warm(ms: Path) -> float:
    """Read every file of ``ms`` once, so that it is in the page cache; return its size in bytes."""
    total = 0
    for path in sorted(p for p in ms.rglob("*") if p.is_file()):
        with path.open("rb", buffering=0) as file:
            while block := file.read(1 << 24):
                total += len(block)
    return total


def machine(options: argparse.Namespace) -> dict[str, object]:
    """Return what the figures depend on: processor, memory, versions and commit."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    commit = _output(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"])
    changed = _output(["git", "-C", str(HERE), "status", "--porcelain", "--untracked-files=no"])
    record = json.loads(_output([sys.executable, "-c", _VERSIONS]) or '{"epsilon": 1e-4, "versions": {}}')
    options.epsilon = record["epsilon"]
    versions = {"python": platform.python_version(), **record["versions"]}
    versions["wsclean"] = next(iter(_output([options.wsclean, "--version"]).splitlines()), "")
    versions["psimager"] = _output([options.psimager, "-version"])
    return {
        "date": datetime.date.today().isoformat(),
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "threads": options.threads,
        "epsilon": options.epsilon,
        "commit": commit + (" with changes" if changed else ""),
        "versions": versions,
    }


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def parse() -> argparse.Namespace:
    """Return the options."""
    beside = Path(sys.executable).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ms", nargs="+", type=Path, help="measurement sets; default: the reference observations")
    parser.add_argument("--npix", nargs="+", type=int, default=[1024, 4096])
    parser.add_argument("--draws", action="store_true", help="time 16 draws of the largest --npix instead")
    parser.add_argument("--repeat", type=int, default=3, help="turns that the programs take; medians are shown")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="only the programs whose name contains one of these")
    parser.add_argument("--work", type=Path, default=Path("bench"), help="folder for observations, images and logs")
    parser.add_argument("--wsclean", default="wsclean")
    parser.add_argument("--psimager", default="psimager", help="its executable, which may be of another environment")
    parser.add_argument("--vis2img", default=str(beside / "vis2img"))
    parser.add_argument("--json", type=Path, help="write everything here too")
    options = parser.parse_args()
    options.work = options.work.resolve()
    return options


def main() -> None:
    """Measure and print."""
    options = parse()
    for name in ("logs", "images"):
        (options.work / name).mkdir(parents=True, exist_ok=True)
    about = machine(options)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)  # type: ignore[attr-defined]
    print(
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB; {options.threads} threads; "
        f"commit {about['commit']}\n{versions}"
    )
    everything: list[Result] = []
    for ms in observations(options):
        size = warm(ms)
        for npix in [max(options.npix)] if options.draws else options.npix:
            case = f"{ms.stem}, {'16 draws of ' if options.draws else ''}{npix} px"
            commands = draw_programs(ms, options) if options.draws else programs(ms, npix, options)
            wanted = {
                name: command
                for name, command in commands.items()
                if not options.only or any(part in name for part in options.only)
            }
            results = run(case, wanted, options)
            everything += results
            print(f"\n{case} ({size / 1e9:.1f} GB)\n\n{table(results)}", flush=True)
    if options.json:
        record = {**about, "results": [asdict(result) for result in everything]}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
