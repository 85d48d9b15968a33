"""Compare the results of two installations, set by set: images, averages and views, bit for bit.

    python benchmarks/same_results.py OLD/.venv/bin NEW/.venv/bin ../shared/data/ms
    python benchmarks/same_results.py OLD/.venv/bin NEW/.venv/bin ../shared/data/ms --sets atca_miriad dish_dp3

Both are used as a user would: by their command line, and views by the public names of Python. For every set the
same commands run with both, and what they write is compared: pixels and header cards of images, arrays and
attributes of averages, the batches of a synchronous loader, and the one line that tells why a set is refused. The table
tells "same" or the largest difference, relative to the largest value. The exit status is 1 if anything differs by
more than --tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zarr
from astropy.io import fits

SELECTIONS = {
    "alma_casacore_mssel": {"field": "1", "spw": 1},
    "ata_3c286_uvh5": {"weight_column": "none"},
    "meerkat_den_0h60s_sim": {"column": "MODEL_DATA"},
}
"""What to take of sets whose first field and window cannot be imaged."""
IMAGES = {
    "natural": ["--weighting", "natural", "--psf"],
    "uniform": ["--weighting", "uniform"],
    "robust 0": ["--weighting", "briggs", "--robust", "0", "--stokes", "IV", "--channels-out", "2"],
    "thinned": ["--keep-times", "0.6", "--keep-baselines", "0.7", "--band", "0.1", "0.9", "--sampling-seed", "3"],
    "all windows": ["--spw", "all"],
}
VIEWS = """
import json, sys
import numpy as np
from vis2img import Loader, LoaderConfig, Selection

if __name__ == "__main__":
    selection = Selection(**json.loads(sys.argv[3]))
    config = LoaderConfig(ms=(sys.argv[1],), selection=selection, mode="sync", field_npix=256, batch_size=4)
    with Loader(config, seed=5) as loader:
        batches = [batch for batch, _ in zip(loader, range(3))]
    arrays = {}
    for i, batch in enumerate(batches):
        arrays |= {f"global{i}": batch.global_views, f"local{i}": batch.local_views, f"turns{i}": batch.turns}
    np.savez(sys.argv[2], **arrays)
"""
DATED = ("DATE", "ORIGIN", "HISTORY", "COMMENT", "CHECKSUM", "DATASUM", "date", "version", "versions")


def run(command: list[str | Path], path: Path | None = None) -> str:
    """Run a command, with the code that lies at ``path`` if given; return the last line of errors, "" for success."""
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed in silence"])[-1]


def results(folder: Path, ms: Path, selection: dict[str, str | int], out: Path, path: Path | None) -> dict[str, str]:
    """Make everything with the programs of ``folder``; return the refusals by name, "" for what was made."""
    out.mkdir(parents=True)
    told = {}
    given = [word for name, value in selection.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    alone = ["--threads", "1", "--quiet"]  # threads add up in any order

    def image(source: Path, name: str, *options: str) -> None:
        target = out / f"{name.replace(' ', '_')}.fits"
        told[name] = run([folder / "vis2img", "image", source, *options, *alone, "--no-png", "-o", target], path)

    for name, options in IMAGES.items():
        image(ms, name, *given, "--npix", "256", *options)

    average = out / "average.zarr"
    command = [folder / "vis2img", "average", ms, *given, "--npix", "256", *alone, "-o", average]
    told["average"] = run(command, path)
    if not told["average"]:
        image(average, "image of averages", "--npix", "128")

    script = out / "views.py"
    script.write_text(VIEWS)
    told["views"] = run([folder / "python", script, ms, out / "views.npz", json.dumps(selection)], path)
    return {name: line.replace(str(out), "OUT") for name, line in told.items()}


def arrays_in(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the names and values of everything numeric that one installation wrote."""
    for path in sorted(folder.glob("*.fits")):
        with fits.open(path) as hdus:
            for number, hdu in enumerate(hdus):
                if hdu.data is not None and hdu.is_image:
                    yield f"{path.name}[{number}]", np.array(hdu.data)

    for store in sorted(folder.glob("*.zarr")):
        for block in sorted(each for each in store.rglob("zarr.json") if each.parent != store):
            node = json.loads(block.read_text())
            if node["node_type"] == "array":
                yield str(block.parent.relative_to(folder)), np.asarray(zarr.open_array(block.parent, mode="r")[...])

    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            for name in file.files:
                yield f"{path.name}:{name}", file[name]


def texts_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield header cards of images and attributes of averages, apart from dates and versions."""
    for path in sorted(folder.glob("*.fits")):
        with fits.open(path) as hdus:
            for number, hdu in enumerate(hdus):
                for card in hdu.header.cards:
                    if card.keyword not in DATED:
                        yield f"{path.name}[{number}] {card.keyword}", str(card.value)

    for path in sorted(folder.rglob("zarr.json")):
        attributes = json.loads(path.read_text()).get("attributes", {})
        for name, value in attributes.items():
            if name not in DATED:
                yield f"{path.relative_to(folder)} {name}", json.dumps(value, sort_keys=True)


def difference(old: np.ndarray, new: np.ndarray) -> float:
    """Return the largest difference relative to the largest value; infinite if shapes, types or blanks differ."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return np.inf
    if old.tobytes() == new.tobytes():
        return 0.0
    if not np.array_equal(np.isnan(old), np.isnan(new)):
        return np.inf
    return float(np.nanmax(np.abs(new - old)) / max(np.nanmax(np.abs(old)), np.finfo(np.float32).tiny))


def compare(old: Path, new: Path) -> tuple[int, float, list[str]]:
    """Return how many arrays were compared, the largest difference, and what else differs."""
    ours, theirs = dict(arrays_in(new)), dict(arrays_in(old))
    notes = [f"only one has {name}" for name in sorted(ours.keys() ^ theirs.keys())]
    worst = 0.0
    for name in sorted(ours.keys() & theirs.keys()):
        apart = difference(theirs[name], ours[name])
        if apart:
            notes.append(f"{name} differs by {apart:.2g}")
        worst = max(worst, apart)

    ours_text, theirs_text = dict(texts_in(new)), dict(texts_in(old))
    for name in sorted(ours_text.keys() | theirs_text.keys()):
        before, after = (texts.get(name, "nothing").replace(str(each), "OUT") for texts, each in
                         ((theirs_text, old), (ours_text, new)))  # fmt: skip
        if before != after:
            notes.append(f"{name}: {before[:80]!r} became {after[:80]!r}")
    return len(ours), worst, notes


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack a set and return its path."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return next(folder.glob(f"{archive.name.removesuffix('.ms.tar.xz')}*.ms"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="folder of programs (bin) of the one environment")
    parser.add_argument("new", type=Path, help="folder of programs of the other")
    parser.add_argument("folder", type=Path, help="where NAME.ms.tar.xz are")
    parser.add_argument("--sets", nargs="*", help="names; default: all")
    parser.add_argument("--new-path", type=Path, help="import vis2img of the new one from this checkout")
    parser.add_argument("--tolerance", type=float, default=0.0, help="largest relative difference that passes")
    options = parser.parse_args()

    archives = sorted(options.folder.resolve().glob("*.ms.tar.xz"))
    names = [archive.name.removesuffix(".ms.tar.xz") for archive in archives]
    failed = False
    if not archives:
        parser.error(f"no NAME.ms.tar.xz in {options.folder}")
    print("| set | made | refused | arrays | images, averages, views |\n|---|---|---|---|---|")
    for name, archive in zip(names, archives, strict=True):
        if options.sets and name not in options.sets:
            continue
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder)
            ms = unpacked(archive, top)
            told = {
                which: results(bin_, ms, SELECTIONS.get(name, {}), top / which, path)
                for which, bin_, path in (
                    ("old", options.old.absolute(), None),
                    ("new", options.new.absolute(), options.new_path),
                )
            }
            count, worst, notes = compare(top / "old", top / "new")
            for what in told["old"].keys() | told["new"].keys():
                before, after = (told[which].get(what, "not tried") for which in ("old", "new"))
                if before != after:
                    notes.append(f"{what}: {before!r} became {after!r}")
        refused = sum(map(bool, told["new"].values()))
        verdict = "same" if not notes else f"largest difference {worst:.2g}"
        print(f"| {name} | {len(told['new']) - refused} | {refused} | {count} | {verdict} |", flush=True)
        for note in notes:
            print(f"  {name}: {note}", file=sys.stderr)
        failed |= worst > options.tolerance or any("differs by" not in note for note in notes)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
