"""Reading against a loop over casacore cells: tiny measurement sets made here, one trouble at a time."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from casacore.tables import default_ms, makearrcoldesc, maketabdesc, table

from vis2img.cli.info import describe
from vis2img.dataset import MeasurementSet, open_ms
from vis2img.errors import MeasurementSetError, ParameterError
from vis2img.ms import metadata, reading
from vis2img.ms.metadata import read_metadata
from vis2img.ms.reading import PartReader
from vis2img.ms.selection import Selection
from vis2img.ms.tables import row_sample
from vis2img.visibilities import Visibilities

LINEAR, CIRCULAR = (9, 10, 11, 12), (5, 6, 7, 8)  # Stokes codes of casacore: XX XY YX YY, RR RL LR LL
XX, XY, YX, YY, RR, LL, STOKES_I = 9, 10, 11, 12, 5, 8, 1
CENTRES = [(0.4, -0.6), (1.9, 0.2), (5.5, -1.1)]


@dataclass
class Rows:
    """Main-table rows of one field and spectral window; the last axes are [row, chan, corr]."""

    time: np.ndarray
    ant1: np.ndarray
    ant2: np.ndarray
    uvw: np.ndarray
    data: np.ndarray
    flag: np.ndarray
    flag_row: np.ndarray
    weight: np.ndarray
    weight_spectrum: np.ndarray | None
    field_id: int = 0
    ddid: int = 0

    def __len__(self) -> int:
        return len(self.time)


def random_rows(nchan=5, ncorr=4, *, seed=0, nant=4, ntime=3, spectrum=True, field_id=0, ddid=0) -> Rows:
    """Unflagged rows, autocorrelations among them, times in order; every sample and weight differs."""
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(nant)
    nrow = ntime * len(first)
    shape = (nrow, nchan, ncorr)
    return Rows(
        time=np.repeat(5e9 + 10.0 * np.arange(ntime), len(first)),
        ant1=np.tile(first, ntime),
        ant2=np.tile(second, ntime),
        uvw=rng.normal(size=(nrow, 3)) * 300,
        data=(rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64),
        flag=np.zeros(shape, bool),
        flag_row=np.zeros(nrow, bool),
        weight=rng.uniform(0.5, 9, (nrow, ncorr)).astype(np.float32),
        weight_spectrum=rng.uniform(0.5, 9, shape).astype(np.float32) if spectrum else None,
        field_id=field_id,
        ddid=ddid,
    )


@dataclass
class Setup:
    """Sub-tables: frequencies per spectral window, one polarisation set-up, antennas and fields."""

    freqs: list[np.ndarray] = field(default_factory=lambda: [1e9 + 2e6 * np.arange(5)])
    corr_types: tuple[int, ...] = LINEAR
    nant: int = 4
    nfield: int = 1


def write_ms(path: Path, groups: list[Rows], setup: Setup, *, columns=(), order=None) -> Path:
    """Write the rows of ``groups`` in ``order`` (a permutation of all of them) as a measurement set.

    ``columns`` names further columns to define; WEIGHT_SPECTRUM is defined when a group has one.
    """
    wanted = {"DATA": 0j, **dict.fromkeys(columns, 0j)}
    if any(g.weight_spectrum is not None for g in groups):
        wanted["WEIGHT_SPECTRUM"] = 0.0
    wanted = {
        n: (0.0 if n == "WEIGHT_SPECTRUM" else v, "float" if n == "WEIGHT_SPECTRUM" else "complex")
        for n, v in wanted.items()
    }
    description = maketabdesc([makearrcoldesc(n, v, ndim=2, valuetype=kind) for n, (v, kind) in wanted.items()])
    default_ms(str(path), description).close()
    _write_subtables(path, setup)
    cells = [(g, i) for g in groups for i in range(len(g))]
    with table(str(path), readonly=False, ack=False) as main:
        main.addrows(len(cells))
        for row, which in enumerate(range(len(cells)) if order is None else order):
            group, i = cells[which]
            values = {
                "TIME": group.time[i], "ANTENNA1": group.ant1[i], "ANTENNA2": group.ant2[i],
                "UVW": group.uvw[i], "DATA": group.data[i], "FLAG": group.flag[i],
                "FLAG_ROW": group.flag_row[i], "WEIGHT": group.weight[i], "SIGMA": group.weight[i] ** -0.5,
                "FIELD_ID": group.field_id, "DATA_DESC_ID": group.ddid, "INTERVAL": 10.0,
            }  # fmt: skip
            if group.weight_spectrum is not None:
                values["WEIGHT_SPECTRUM"] = group.weight_spectrum[i]
            for name, value in values.items():
                scalar = np.ndim(value) == 0
                main.putcell(name, row, np.asarray(value).item() if scalar else value)
    return path


def _write_subtables(path: Path, setup: Setup) -> None:
    def fill(name: str, rows: list[dict]) -> None:
        with table(f"{path}/{name}", readonly=False, ack=False) as t:
            t.addrows(len(rows))
            for i, row in enumerate(rows):
                for column, value in row.items():
                    t.putcell(column, i, value)

    fill("SPECTRAL_WINDOW", [
        {"CHAN_FREQ": f, "CHAN_WIDTH": np.full(len(f), 2e6), "NUM_CHAN": len(f), "NAME": f"spw{i}"}
        for i, f in enumerate(setup.freqs)
    ])  # fmt: skip
    n = len(setup.corr_types)
    product = np.zeros((n, 2), np.int32)
    fill(
        "POLARIZATION",
        [{"CORR_TYPE": np.array(setup.corr_types, np.int32), "NUM_CORR": n, "CORR_PRODUCT": product}],
    )
    fill("DATA_DESCRIPTION", [{"SPECTRAL_WINDOW_ID": i, "POLARIZATION_ID": 0} for i in range(len(setup.freqs))])
    fill("ANTENNA", [{"NAME": f"m{i:03d}", "DISH_DIAMETER": 13.5} for i in range(setup.nant)])
    fill("FIELD", [{"NAME": f"target{i}", "PHASE_DIR": np.array([CENTRES[i]])} for i in range(setup.nfield)])
    fill("OBSERVATION", [{"TELESCOPE_NAME": "TESTKAT"}])


def stokes_i(rows: Rows, hands: tuple[int, ...], freq: np.ndarray, weights="spectrum") -> dict:
    """Loop over samples: {(time, ant1, ant2): (uvw, vis [chan], weight [chan])}, frequencies increasing."""
    result = {}
    for i in range(len(rows)):
        if rows.ant1[i] == rows.ant2[i]:
            continue
        vis, weight = np.zeros(len(freq), complex), np.zeros(len(freq))
        for out, chan in enumerate(sorted(range(len(freq)), key=lambda c: freq[c])):
            values = [complex(rows.data[i, chan, h]) for h in hands]
            if weights == "spectrum":
                own = [float(rows.weight_spectrum[i, chan, h]) for h in hands]
            else:
                own = [float(rows.weight[i, h]) if weights == "weight" else 1.0 for h in hands]
            bad = rows.flag_row[i] or any(rows.flag[i, chan, h] for h in hands)
            bad = bad or not all(math.isfinite(v.real) and math.isfinite(v.imag) for v in values)
            if bad or not all(math.isfinite(w) and w > 0 for w in own):
                continue
            vis[out] = sum(values) / len(values)
            weight[out] = own[0] if len(own) == 1 else 2 * min(own)
        result[float(rows.time[i]), int(rows.ant1[i]), int(rows.ant2[i])] = (rows.uvw[i], vis, weight)
    return result


def assert_equals(vis: Visibilities, expected: dict) -> None:
    """Every row of ``expected``, and no other, is in ``vis`` with its uvw, values and weights."""
    keys = list(zip(vis.time.tolist(), vis.antenna1.tolist(), vis.antenna2.tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    assert set(keys) == set(expected)
    for row, key in enumerate(keys):
        uvw, value, weight = expected[key]
        np.testing.assert_allclose(vis.uvw[row], uvw, rtol=1e-12)
        np.testing.assert_allclose(vis.vis[row], value, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(vis.weight[row], weight, rtol=1e-5)


def read(path: Path, **selection) -> Visibilities:
    return open_ms(path).read(Selection(**selection))


@pytest.fixture
def rows() -> Rows:
    return random_rows()


FREQ = Setup().freqs[0]
WEIGHTS = ("spectrum", "weight")


def test_plain_set(tmp_path, rows):
    vis = read(write_ms(tmp_path / "a.ms", [rows], Setup()))
    assert vis.nrow == 18  # 6 baselines, 3 times; the 12 autocorrelations are gone
    np.testing.assert_array_equal(vis.chan_freq, FREQ)
    assert vis.phase_centre == pytest.approx(CENTRES[0])
    assert vis.origin.telescope == "TESTKAT" and vis.origin.field == "target0"
    assert vis.origin.column == "DATA" and vis.origin.stokes_from == "XX+YY"
    assert vis.weight.all()
    assert_equals(vis, stokes_i(rows, (0, 3), FREQ))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_descending_channels_are_flipped_with_all_that_belongs_to_them(tmp_path, weights):
    rows = random_rows(spectrum=weights == "spectrum")
    rows.flag[:, 0, 0] = True  # the highest frequency
    rows.flag[3, 2] = True
    rows.data[5, 1] = np.nan
    freq = FREQ[::-1].copy()
    vis = read(write_ms(tmp_path / "a.ms", [rows], Setup([freq])))
    np.testing.assert_array_equal(vis.chan_freq, FREQ)
    assert not vis.weight[:, -1].any() and vis.weight[:, 0].all()
    assert_equals(vis, stokes_i(rows, (0, 3), freq, weights))
    part = read(tmp_path / "a.ms", channels=(1, 3))
    np.testing.assert_array_equal(part.chan_freq, FREQ[1:3])
    np.testing.assert_array_equal(part.vis, vis.vis[:, 1:3])
    np.testing.assert_array_equal(part.weight, vis.weight[:, 1:3])


def test_channels_in_no_order_are_sorted(tmp_path, rows):
    freq = FREQ[[2, 0, 4, 1, 3]]
    vis = read(write_ms(tmp_path / "a.ms", [rows], Setup([freq])))
    np.testing.assert_array_equal(vis.chan_freq, FREQ)
    assert_equals(vis, stokes_i(rows, (0, 3), freq))


def test_flags_of_rows_samples_and_either_hand(tmp_path, rows):
    rng = np.random.default_rng(3)
    rows.flag_row[[1, 7]] = True
    for hand in (0, 3):
        rows.flag[..., hand] = rng.random(rows.flag.shape[:2]) < 0.2
    vis = read(write_ms(tmp_path / "a.ms", [rows], Setup()))
    expected = stokes_i(rows, (0, 3), FREQ)
    assert_equals(vis, expected)
    row = [(t, a, b) for t, a, b in zip(vis.time, vis.antenna1, vis.antenna2, strict=True)].index((5e9, 0, 1))
    assert not vis.weight[row].any() and not vis.vis[row].any()
    only_one = rows.flag[..., 0] ^ rows.flag[..., 3]
    assert only_one.sum() > 20, "flags of one hand alone must occur here"


def test_flags_and_values_of_the_cross_hands_do_not_matter(tmp_path, rows):
    expected = stokes_i(rows, (0, 3), FREQ)
    rows.flag[..., 1:3] = True
    rows.data[..., 1:3] = np.nan
    rows.weight_spectrum[..., 1:3] = 0
    assert_equals(read(write_ms(tmp_path / "a.ms", [rows], Setup())), expected)


def test_samples_that_are_not_finite_get_no_weight_and_no_value(tmp_path, rows):
    rows.data[1, 0, 0] = np.nan
    rows.data[2, 1, 3] = complex(np.inf, 0)
    rows.data[3, 2, 0] = complex(0, -np.inf)
    rows.data[5, 3, 0], rows.data[5, 3, 3] = complex(np.inf, 1), complex(-np.inf, 1)
    rows.data[6, 4, :] = complex(3e38, 0)  # finite, but the sum of the hands is not
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        vis = read(write_ms(tmp_path / "a.ms", [rows], Setup()))
    assert np.isfinite(vis.vis).all() and np.isfinite(vis.weight).all()
    rows.data[6, 4] = np.nan
    assert_equals(vis, stokes_i(rows, (0, 3), FREQ))
    assert (vis.weight == 0).sum() == 5
    assert not vis.vis[vis.weight == 0].any()


@pytest.mark.parametrize("useless", [0.0, -1e12, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("hand", [0, 3])
def test_useless_weights_of_either_hand_drop_the_sample(tmp_path, rows, useless, hand):
    rows.weight_spectrum[2, 1, hand] = useless
    rows.weight_spectrum[5] = useless
    vis = read(write_ms(tmp_path / "a.ms", [rows], Setup()))
    assert_equals(vis, stokes_i(rows, (0, 3), FREQ))
    assert (vis.weight == 0).sum() == 6


@pytest.mark.parametrize(
    ("types", "hands", "label"),
    [
        ((XX, YY, XY, YX), (0, 1), "XX+YY"),
        ((YY, YX, XY, XX), (3, 0), "XX+YY"),
        ((XX, YY), (0, 1), "XX+YY"),
        (CIRCULAR, (0, 3), "RR+LL"),
        ((RR, LL), (0, 1), "RR+LL"),
        ((LL, RR), (1, 0), "RR+LL"),
        ((XX,), (0,), "XX"),
        ((YY,), (0,), "YY"),
        ((LL,), (0,), "LL"),
        ((STOKES_I,), (0,), "I"),
    ],
)
def test_correlations(tmp_path, types, hands, label):
    rows = random_rows(ncorr=len(types))
    rows.flag[np.random.default_rng(1).random(rows.flag.shape) < 0.1] = True
    vis = read(write_ms(tmp_path / "a.ms", [rows], Setup(corr_types=types)))
    assert vis.origin.stokes_from == label
    assert_equals(vis, stokes_i(rows, hands, FREQ))


@pytest.mark.parametrize("types", [(XY, YX), (XY,)])
def test_cross_hands_alone_are_refused(tmp_path, types):
    rows = random_rows(ncorr=len(types))
    path = write_ms(tmp_path / "a.ms", [rows], Setup(corr_types=types))
    with pytest.raises(MeasurementSetError, match=r"XY.*needs XX and YY, or RR and LL"):
        read(path)


def test_weight_columns(tmp_path, rows):
    path = write_ms(tmp_path / "a.ms", [rows], Setup())
    assert_equals(read(path, weight_column="auto"), stokes_i(rows, (0, 3), FREQ, "spectrum"))
    assert_equals(read(path, weight_column="WEIGHT_SPECTRUM"), stokes_i(rows, (0, 3), FREQ, "spectrum"))
    assert_equals(read(path, weight_column="WEIGHT"), stokes_i(rows, (0, 3), FREQ, "weight"))
    unit = read(path, weight_column="none")
    assert_equals(unit, stokes_i(rows, (0, 3), FREQ, "one"))
    assert np.unique(unit.weight).tolist() == [2.0]


def test_weight_without_weight_spectrum(tmp_path):
    rows = random_rows(spectrum=False)
    path = write_ms(tmp_path / "a.ms", [rows], Setup())
    assert_equals(read(path), stokes_i(rows, (0, 3), FREQ, "weight"))
    with pytest.raises(MeasurementSetError, match="no column WEIGHT_SPECTRUM"):
        read(path, weight_column="WEIGHT_SPECTRUM")


def test_weight_spectrum_that_is_defined_but_has_no_values(tmp_path):
    rows = random_rows(spectrum=False)
    path = write_ms(tmp_path / "a.ms", [rows], Setup(), columns=("WEIGHT_SPECTRUM",))
    with table(str(path), ack=False) as t:
        assert "WEIGHT_SPECTRUM" in t.colnames() and not t.iscelldefined("WEIGHT_SPECTRUM", 0)
    assert_equals(read(path), stokes_i(rows, (0, 3), FREQ, "weight"))
    with pytest.raises(MeasurementSetError, match="WEIGHT_SPECTRUM has no values"):
        read(path, weight_column="WEIGHT_SPECTRUM")


def several(tmp_path, nfield=2) -> tuple[Path, dict[tuple[int, int], Rows], list[np.ndarray]]:
    """Two spectral windows (5 and 3 channels, the second descending) and fields, all rows shuffled."""
    freqs = [FREQ, 1.4e9 - 1e6 * np.arange(3)]
    groups = {
        (f, s): random_rows(len(freqs[s]), seed=10 * f + s, field_id=f, ddid=s) for f in range(nfield) for s in range(2)
    }
    total = sum(len(g) for g in groups.values())
    order = np.random.default_rng(9).permutation(total)
    setup = Setup(freqs, nfield=nfield)
    return write_ms(tmp_path / "a.ms", list(groups.values()), setup, order=order), groups, freqs


def test_several_fields_and_spectral_windows_with_rows_in_no_order(tmp_path):
    path, groups, freqs = several(tmp_path)
    for (f, s), rows in groups.items():
        for name in (str(f), f"target{f}"):
            vis = read(path, field=name, spw=s)
            np.testing.assert_array_equal(vis.chan_freq, np.sort(freqs[s]))
            assert vis.phase_centre == pytest.approx(CENTRES[f])
            assert vis.origin.spw == (s,) and vis.origin.field == f"target{f}"
            assert_equals(vis, stokes_i(rows, (0, 3), freqs[s]))
    parts = open_ms(path).read_parts()
    assert [part.origin.spw for part in parts] == sorted([(0,), (1,)], key=lambda spw: freqs[spw[0]].min())
    for part in parts:
        (spw,) = part.origin.spw
        assert_equals(part, stokes_i(groups[0, spw], (0, 3), freqs[spw]))
    with pytest.raises(ParameterError, match="spectral window 2"):
        read(path, spw=2)
    with pytest.raises(ParameterError, match="target1"):
        read(path, field="target7")


def test_a_field_and_window_of_a_few_rows_are_found_in_sets_of_many(tmp_path, monkeypatch):
    """Beyond the row budget metadata see a sample; what is asked for is looked up in all rows, ``info`` looks not."""
    first, second = np.array([1e9, 1.002e9]), np.array([1.1e9, 1.102e9])
    long = random_rows(2, 2, nant=3, ntime=130, spectrum=False)
    brief = [
        random_rows(2, 2, nant=3, ntime=1, seed=1, spectrum=False, field_id=1, ddid=0),
        random_rows(2, 2, nant=3, ntime=1, seed=2, spectrum=False, field_id=0, ddid=1),
    ]
    nrow = len(long) + sum(map(len, brief))
    seen = row_sample(nrow, 64)
    order = list(range(len(long)))
    for group, at in ((0, seen[20] + 1), (1, seen[40] + 1)):
        start = len(long) + sum(map(len, brief[:group]))
        order[at:at] = range(start, start + len(brief[group]))
    setup = Setup(freqs=[first, second], corr_types=(XX, YY), nant=3, nfield=2)
    path = write_ms(tmp_path / "a.ms", [long, *brief], setup, order=order)
    monkeypatch.setattr(metadata, "_ROW_BUDGET", 64)
    monkeypatch.setattr(metadata, "_ROWS_AT_ONCE", 100)
    meta = read_metadata(path)
    assert not meta.exact and [(p.field, p.spw) for p in meta.partitions] == [(0, 0)]
    describe(meta)
    assert "all_partitions" not in vars(meta)  # not looked at so far
    assert [(p.field, p.spw, p.nrow) for p in meta.all_partitions] == [(0, 0, 780), (0, 1, 6), (1, 0, 6)]
    for selection, rows, freq in (
        ({"field": "target1"}, brief[0], first),
        ({"field": "1"}, brief[0], first),
        ({"spw": 1}, brief[1], second),
    ):
        assert_equals(read(path, **selection), stokes_i(rows, (0, 1), freq, "weight"))
    parts = MeasurementSet(meta).read_parts(Selection(spw="all"))
    assert [part.nrow for part in parts] == [390, 3]
    with pytest.raises(ParameterError, match="no data for field 'target2'"):
        read(path, field="target2")


def test_a_data_description_need_not_number_its_spectral_window(tmp_path):
    """DATA_DESC_ID 0 points to window 1 and the other way round."""
    path, groups, freqs = several(tmp_path, nfield=1)
    with table(f"{path}/DATA_DESCRIPTION", readonly=False, ack=False) as t:
        t.putcol("SPECTRAL_WINDOW_ID", np.array([1, 0], np.int32))
    with table(f"{path}/SPECTRAL_WINDOW", readonly=False, ack=False) as t:
        for i in (0, 1):
            t.putcell("CHAN_FREQ", i, freqs[1 - i])
            t.putcell("CHAN_WIDTH", i, np.full(len(freqs[1 - i]), 1e6))
    assert_equals(read(path, spw=1), stokes_i(groups[0, 0], (0, 3), freqs[0]))
    assert_equals(read(path, spw=0), stokes_i(groups[0, 1], (0, 3), freqs[1]))


@pytest.mark.parametrize("bounds", [(0, 1), (1, 4), (2, None), (None, 3), (4, 5)])
def test_channel_selection(tmp_path, rows, bounds):
    path = write_ms(tmp_path / "a.ms", [rows], Setup())
    whole, part = read(path), read(path, channels=bounds)
    np.testing.assert_array_equal(part.chan_freq, FREQ[slice(*bounds)])
    np.testing.assert_array_equal(part.vis, whole.vis[:, slice(*bounds)])
    np.testing.assert_array_equal(part.weight, whole.weight[:, slice(*bounds)])
    np.testing.assert_array_equal(part.uvw, whole.uvw)


@pytest.mark.parametrize("bounds", [(0, 1), (1, 3), (1, None), (None, 2)])
def test_time_selection(tmp_path, bounds):
    path, groups, freqs = several(tmp_path)
    chosen = np.unique(groups[1, 1].time)[slice(*bounds)]
    expected = {k: v for k, v in stokes_i(groups[1, 1], (0, 3), freqs[1]).items() if k[0] in chosen}
    assert len(expected) == 6 * len(chosen)
    assert_equals(read(path, field="1", spw=1, times=bounds), expected)


@pytest.mark.parametrize("names", [("m000", "m002"), ("0", "2", "3"), ("m003", "1")])
def test_antenna_selection(tmp_path, names):
    path, groups, freqs = several(tmp_path)
    numbers = {int(name.lstrip("m")) for name in names}
    expected = {k: v for k, v in stokes_i(groups[0, 1], (0, 3), freqs[1]).items() if {k[1], k[2]} <= numbers}
    assert_equals(read(path, spw=1, antennas=names), expected)


def test_selections_together(tmp_path):
    path, groups, freqs = several(tmp_path)
    vis = read(path, field="1", antennas=("0", "1", "3"), times=(1, 2), channels=(1, 3))
    expected = {
        k: (uvw, value[1:3], weight[1:3])
        for k, (uvw, value, weight) in stokes_i(groups[1, 0], (0, 3), freqs[0]).items()
        if 2 not in k[1:] and k[0] == 5e9 + 10
    }
    assert len(expected) == 3
    assert_equals(vis, expected)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"channels": (3, 6)}, "channels 3:6.*has 5"),
        ({"channels": (5, None)}, "channels"),
        ({"times": (3, 4)}, "times 3:4.*has 3"),
        ({"antennas": ("m009",)}, "no antenna 'm009'.*m000"),
        ({"antennas": ("m001",)}, "no baseline"),
        ({"antennas": ("17", "18")}, "no antenna '17'"),
    ],
)
def test_selections_outside_the_data_are_refused(tmp_path, rows, selection, message):
    path = write_ms(tmp_path / "a.ms", [rows], Setup())
    with pytest.raises(ParameterError, match=message):
        read(path, **selection)


@pytest.mark.parametrize("chunk_rows", [1, 3, 7])
def test_reading_in_chunks_equals_reading_at_once(tmp_path, monkeypatch, chunk_rows):
    path, groups, freqs = several(tmp_path)
    selections = [
        {"spw": 0},
        {"field": "1", "spw": 1},
        {"spw": 0, "times": (1, 2), "antennas": ("0", "2", "3"), "channels": (1, 4)},
    ]
    whole = [read(path, **s) for s in selections]
    monkeypatch.setattr(reading, "_CHUNK_BYTES", 8 * 5 * 4 * chunk_rows)
    reduced = []
    reduce = PartReader._reduce
    monkeypatch.setattr(PartReader, "_reduce", lambda *args: (reduced.append(args[-1]), reduce(*args))[1])
    for selection, expected in zip(selections, whole, strict=True):
        reduced.clear()
        part = read(path, **selection)
        assert len(reduced) >= 2
        for name in ("uvw", "chan_freq", "vis", "weight", "time", "antenna1", "antenna2"):
            np.testing.assert_array_equal(getattr(part, name), getattr(expected, name), err_msg=name)
    assert_equals(whole[1], stokes_i(groups[1, 1], (0, 3), freqs[1]))


def test_progress_ends_at_all_rows(tmp_path, monkeypatch, rows):
    path = write_ms(tmp_path / "a.ms", [rows], Setup())
    monkeypatch.setattr(reading, "_CHUNK_BYTES", 8 * 5 * 4 * 4)
    calls: list[tuple[int, int]] = []
    open_ms(path).read_parts(nthreads=1, progress=lambda stage, done, total: calls.append((done, total)))
    assert len(calls) > 3 and {total for _, total in calls} == {18}
    assert [done for done, _ in calls] == sorted(done for done, _ in calls) and calls[-1][0] == 18


def test_columns(tmp_path, rows):
    path = write_ms(tmp_path / "a.ms", [rows], Setup(), columns=("CORRECTED_DATA", "MODEL_DATA"))
    with table(str(path), readonly=False, ack=False) as t:
        t.putcol("CORRECTED_DATA", 2 * t.getcol("DATA"))
        t.putcol("MODEL_DATA", -t.getcol("DATA"))
    expected = stokes_i(rows, (0, 3), FREQ)
    factors = {None: 2, "CORRECTED_DATA": 2, "DATA": 1, "MODEL_DATA": -1}
    for column, factor in factors.items():
        vis = read(path, column=column)
        assert_equals(vis, {k: (uvw, factor * v, w) for k, (uvw, v, w) in expected.items()})
    with pytest.raises(MeasurementSetError, match=r"no SUBTRACTED_DATA.*CORRECTED_DATA"):
        read(path, column="SUBTRACTED_DATA")


def test_rows_with_uvw_that_is_no_number_are_dropped(tmp_path, rows):
    rows.uvw[2, 1] = np.nan
    vis = read(write_ms(tmp_path / "a.ms", [rows], Setup()))
    expected = stokes_i(rows, (0, 3), FREQ)
    del expected[float(rows.time[2]), int(rows.ant1[2]), int(rows.ant2[2])]
    assert_equals(vis, expected)


def _all_flagged(rows: Rows) -> None:
    rows.flag[...] = True


def _all_nan(rows: Rows) -> None:
    rows.data[...] = np.nan


def _no_weights(rows: Rows) -> None:
    rows.weight_spectrum[...] = -1


def _zeros(rows: Rows) -> None:
    rows.data[...] = 0


def _uvw_zero(rows: Rows) -> None:
    rows.uvw[...] = 0


def _autocorrelations(rows: Rows) -> None:
    rows.ant2[...] = rows.ant1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_all_flagged, "100% flagged"),
        (_all_nan, "100% NaN or infinite in DATA"),
        (_no_weights, "100% without a positive finite WEIGHT_SPECTRUM.*--weight-column none"),
        (_zeros, "zeros only"),
        (_uvw_zero, "UVW"),
        (_autocorrelations, "autocorrelations only"),
    ],
)
def test_nothing_to_image_is_an_error_with_the_reason(tmp_path, rows, spoil, message):
    spoil(rows)
    path = write_ms(tmp_path / "a.ms", [rows], Setup())
    with pytest.raises(MeasurementSetError, match=message):
        read(path)


def test_reading_leaves_the_measurement_set_as_it_was(tmp_path, rows):
    path = write_ms(tmp_path / "a.ms", [rows], Setup())
    before = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in path.rglob("*") if f.is_file()}
    read(path)
    after = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in path.rglob("*") if f.is_file()}
    assert before == after
