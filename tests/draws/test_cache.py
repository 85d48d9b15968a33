"""Draws on disk: read to the last bit, made again when damaged, foreign or of other contents, few enough."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vis2img.dataset import open_ms
from vis2img.dataset.contents import version_of
from vis2img.draws.cache import DrawCache, check_cache
from vis2img.draws.draw import Draw
from vis2img.draws.field import make_draw
from vis2img.draws.observed_field import ObservedField
from vis2img.draws.prior import ImagingPrior
from vis2img.errors import ParameterError
from vis2img.ms.selection import Selection


@pytest.fixture
def field(make_ms) -> ObservedField:
    path = make_ms(antennas=8, times=4, channels=8, sources=((1.0, 0.001, -0.002),)).path
    selection = Selection()
    prior = ImagingPrior.for_ms(open_ms(path), selection, npix=64)
    return ObservedField(str(path), selection, prior, subbands=2, version=version_of(path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "draws"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was imaged."""
    images: list[Any] = []
    image = ObservedField.draw

    def counting(self: ObservedField, params: Any, nthreads: int = 1) -> Draw:
        images.append(params)
        return image(self, params, nthreads)

    monkeypatch.setattr(ObservedField, "draw", counting)
    return images


def same(a: Draw, b: Draw) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("data", "noise", "peaks", "usable"))
    return (
        arrays
        and a.record() == b.record()
        and (a.phase_centre, a.turn, a.beam_area) == (b.phase_centre, b.turn, b.beam_area)
    )


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_draw_is_made_once_and_read_to_the_last_bit(field, made, folder: Path) -> None:
    cache = DrawCache(str(folder), 1e9)
    fresh = make_draw(field, 5, 2, 3)
    first, again = (make_draw(field, 5, 2, 3, 1, cache.draw) for _ in range(2))
    assert len(made) == 2 and len(files(folder)) == 1
    assert same(fresh, first) and same(fresh, again) and again.data.dtype == np.float32 and len(fresh.peaks)

    # The same parameters as another draw of another run; but no other contents, threads or selection.
    params = field.prior.draw(np.random.default_rng(1))
    image = cache.draw(field, params, 1)
    assert same(cache.draw(replace(field, name="another name"), params, 1), image) and len(made) == 3
    others = (replace(field, version="other"), replace(field, subbands=1), replace(field, memory=1e5))
    for other in others:
        cache.draw(other, params, 1)
    cache.draw(field, params, 2)
    assert len(made) == 7 and len(files(folder)) == 6
    cache.draw(replace(field, version=""), params, 1)  # who does not know the contents keeps nothing
    assert len(made) == 8 and len(files(folder)) == 6


def test_what_is_damaged_or_foreign_is_made_again(field, made, folder: Path) -> None:
    cache = DrawCache(str(folder), 1e9)
    fresh, other = (make_draw(field, 0, 0, index, 1, cache.draw) for index in range(2))
    path = max(files(folder), key=lambda file: same_place(cache, field, file, 0))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    foreign = next(file for file in files(folder) if file != path).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], bytes(flipped), b"PK" + os.urandom(100), foreign):
        path.write_bytes(damaged)
        count = len(made)
        assert same(make_draw(field, 0, 0, 0, 1, cache.draw), fresh) and len(made) == count + 1
        assert path.read_bytes() != damaged
        assert same(make_draw(field, 0, 0, 0, 1, cache.draw), fresh) and len(made) == count + 1
    assert same(make_draw(field, 0, 0, 1, 1, cache.draw), other)


def same_place(cache: DrawCache, field: ObservedField, file: Path, index: int) -> bool:
    """Return whether reading draw ``index`` touches a file."""
    os.utime(file, (1, 1))
    make_draw(field, 0, 0, index, 1, cache.draw)
    return file.stat().st_mtime > 1


def test_the_draws_that_were_not_used_for_longest_leave_a_full_folder(field, made, folder: Path) -> None:
    cache = DrawCache(str(folder), 1e9)
    make_draw(field, 0, 0, 0, 1, cache.draw)
    size = files(folder)[0].stat().st_size
    cache = DrawCache(str(folder), 3.5 * size)
    for index in (1, 2, 0, 3):  # the first is used again
        make_draw(field, 0, 0, index, 1, cache.draw)
        for number, file in enumerate(sorted(files(folder), key=lambda file: file.stat().st_mtime_ns)):
            os.utime(file, (1000 + number, 1000 + number))
    assert sum(file.stat().st_size for file in files(folder)) <= 3.5 * size
    count = len(made)
    for index in (0, 3):
        make_draw(field, 0, 0, index, 1, cache.draw)
    assert len(made) == count
    make_draw(field, 0, 0, 1, 1, cache.draw)
    assert len(made) == count + 1


def test_a_folder_that_cannot_be_used_is_told(field, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_cache(str(tmp_path / "new" / "folder"), 1e6, 2e6)
    assert "the draws take 2MB, and draw_cache_size is 1MB" in caplog.text
    (tmp_path / "file").write_text("")
    with pytest.raises(ParameterError, match=r"draw_cache .*file/x cannot be made: Not a directory"):
        check_cache(str(tmp_path / "file" / "x"), 1e9, 0)
    # A disk that goes away meanwhile costs the cache alone.
    cache = DrawCache(str(tmp_path / "new"), 1e9)
    shutil.rmtree(tmp_path / "new")
    (tmp_path / "new").write_text("")
    assert same(make_draw(field, 0, 0, 0, 1, cache.draw), make_draw(field, 0, 0, 0))
    assert "draws are not kept" in caplog.text
