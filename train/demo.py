"""The main job on simulated observations: measurement sets to a trained network and a report.

Sky, noise and flags are simulated; from the measurement sets on everything is what real data go through.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vis2img.coordinates import direction_cosines
from vis2img.dataset import open_ms
from vis2img.draws.field import Field, make_draw
from vis2img.errors import OutputError
from vis2img.loader.config import LoaderConfig
from vis2img.loader.fields import fields_of, patch_angle
from vis2img.ms.metadata import read_metadata
from vis2img.ms.selection import Selection
from vis2img.progress import Progress
from vis2img.simulate.config import SimulateConfig
from vis2img.train.config import ModelConfig, OptimConfig
from vis2img.train.evaluate.encoders import Encoder, NetworkEncoder, pixel_encoder, random_encoders, run_encoders
from vis2img.train.evaluate.field_tasks import QueryWays
from vis2img.train.evaluate.scores import Score, Summary, scores_of, summaries
from vis2img.train.evaluate.simulated import ALIKE, SHIFTED, SourcePatches, field_patches, read_truths
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.run import read_metrics, train
from vis2img.units import ARCSEC
from vis2img.views.crops import ViewConfig

# How the queries of a score are seen, beside a gallery that is centred and imaged in the fixed way.
QUERIES = {ALIKE: "imaged alike", "full": "imaged otherwise", SHIFTED: "off centre"}


@dataclass(frozen=True)
class DemoConfig:
    """Size of the demonstration; the defaults take about four minutes on two cores."""

    out: Path = Path("demo")
    """Folder for measurement sets, run and report; what is there already is used again."""
    fields: int = 4
    """Simulated observations."""
    sources: int = 48
    """Labelled sources in each."""
    steps: int = 400
    """Training steps."""
    seed: int = 0
    """Seed of everything."""


def observation(config: DemoConfig, index: int) -> SimulateConfig:
    """Return the simulation of field ``index``: 64 MeerKAT dishes, a short track, a band of 8 channels."""
    return SimulateConfig(
        out=config.out / "data" / f"field{index}.ms",
        phase_centre=(np.radians(30.0 + 5 * index), np.radians(-30.0 - index)),
        dtime=64.0,
        ntimes=24,
        start_freq=1.0e9,
        chan_width=60e6,
        nchan=8,
        n_sources=config.sources,
        flux_range=(1e-2, 1e-1),
        size_range=(30 * ARCSEC, 90 * ARCSEC),
        fov=1400 * ARCSEC,
        min_separation=40 * ARCSEC,
        flag_fraction=0.05,
        seed=1000 * config.seed + index,
    )


def train_config(config: DemoConfig) -> TrainConfig:
    """Return the run: a micro transformer on 48-pixel views, small enough for two cores."""
    return TrainConfig(
        out=str(config.out / "run"),
        data=LoaderConfig(
            ms=tuple(str(observation(config, i).out) for i in range(config.fields)),
            batch_size=32,
            field_npix=768,
            near_peaks=0.9,
            draws_per_field=6,
            refresh_every=20,
            mode="sync",
            views=ViewConfig(
                global_size=48,
                local_size=24,
                # Small crops of faint fields mostly hold noise, which a short run cannot afford.
                n_local=0,
                global_scale=(0.8, 1.0),
            ),
        ),
        model=ModelConfig(variant="micro", patch=8, drop_path=0.0, out_dim=128, hidden=512, bottleneck=128),
        # Few prototypes and a sharp teacher: with 1,024 of them or a temperature of 0.04 a run this short stays at
        # the uniform answer.
        optim=OptimConfig(
            base_lr=8e-3,
            warmup_steps=config.steps // 10,
            warmup_teacher_temp=0.03,
            teacher_temp=0.03,
            warmup_teacher_temp_steps=0,
            freeze_last_layer_steps=10,
            momentum_teacher=0.99,
            weight_decay_end=0.1,
        ),
        steps=config.steps,
        seed=config.seed,
        checkpoint_every=max(1, config.steps // 4),
    )


def run_demo(config: DemoConfig, report: Progress) -> tuple[Path, list[Score]]:
    """Simulate, train, evaluate and write the report; return its path and the scores.

    Parameters
    ----------
    config : DemoConfig
        Sizes.
    report : callable
        Told of each stage.

    Raises
    ------
    Vis2imgError
        If the folder cannot be written or holds something else.
    """
    _simulate(config, report)
    settings = train_config(config)
    train(settings, progress=report)
    sources = fields_of(settings.data)
    report("evaluating", 0, 1)
    patches, _ = field_patches(settings, read_truths(settings), tuple(QUERIES))
    queries = QueryWays(patches, tuple(QUERIES))
    _, trained = run_encoders([settings.out])
    encoders: list[Encoder] = [*trained, *random_encoders(settings, range(3)), pixel_encoder(patches.seen[ALIKE])]
    scores: list[Score] = []
    for i, encoder in enumerate(encoders):
        scores += scores_of(encoder.name, queries.run(encoder.encode, [encoder.seed]))
        report("evaluating", i + 1, len(encoders))
    report("report", 0, 1)
    path = _write(config, settings, sources, patches, trained[0], scores)
    report("report", 1, 1)
    return path, scores


def _simulate(config: DemoConfig, report: Progress) -> None:
    from vis2img.simulate.run import simulate

    try:
        (config.out / "data").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {config.out}: {error.strerror}") from error
    for i in range(config.fields):
        report("simulating", i, config.fields)
        wanted = observation(config, i)
        if not wanted.out.exists():
            simulate(wanted)
    report("simulating", config.fields, config.fields)


def _write(
    config: DemoConfig,
    settings: TrainConfig,
    sources: list[Field],
    patches: SourcePatches,
    encoder: NetworkEncoder,
    scores: list[Score],
) -> Path:
    from vis2img.train.report import figures
    from vis2img.train.report.page import Section, write_report
    from vis2img.train.report.token_pictures import attention_figure

    ms = open_ms(sources[0].path)
    selection = Selection(field="0")
    image = ms.image(ms.imaging_params(selection, npix=settings.data.field_npix), selection, psf=True)
    draws = [make_draw(sources[0], settings.seed, 0, index) for index in range(12)]
    # The brightest extended source of the first field shows best what imaging does.
    fixed, label = patches.seen[ALIKE], patches.label
    peak = fixed.max(axis=(1, 2, 3)) * ((patches.field == 0) & (label != "compact"))
    first = int(peak.argmax())
    l, m, _ = direction_cosines(patches.position[first, 0], patches.position[first, 1], draws[0].phase_centre)
    side = patch_angle(sources[0], settings.data.views)
    vectors = encoder.encode(fixed)
    examples = [int(np.flatnonzero(label == name)[0]) for name in np.unique(label)]
    rows = summaries(scores)
    table = (
        ("representation", *QUERIES.values()),
        *(
            (name, *(_cell(rows, name, how) for how in QUERIES))
            for name in dict.fromkeys(r.representation for r in rows)
        ),
    )
    meta = read_metadata(sources[0].path)
    sections = [
        Section(
            "A field and its point spread function",
            f"{meta.telescope}, {len(meta.antennas)} antennas, {meta.ntimes} times of {meta.interval:.0f} s, "
            f"{len(meta.spws[0].chan_freq)} channels from {meta.spws[0].chan_freq.min() / 1e6:.0f} MHz: "
            f"{image.nvis:,} visibilities, Briggs 0, noise {image.noise() * 1e6:.0f} uJy/beam, "
            f"{config.sources} sources.",
            figures.field_figure(image),
        ),
        Section(
            "One patch of sky under twelve draws",
            "How an image is made is itself the augmentation: each picture is the same sky, imaged from the "
            "visibilities under other weighting, taper, band, time range, uv sampling and pixel scale.",
            figures.draws_figure(draws, float(l), float(m), side, 96),
        ),
        Section(
            "Training",
            f"DINO on {settings.steps} batches of {settings.data.batch_size} sky patches, "
            f"vision transformer '{settings.model.variant}' with patches of {settings.model.patch} pixels.",
            figures.curves_figure(read_metrics(settings.out), settings.model.out_dim),
        ),
        Section(
            "Does it know what it sees?",
            f"k-NN classification of {len(label)} sources in {len(set(label))} classes; each field is "
            "classified by the others. 'Imaged otherwise': the queries are imaged under random parameters, the "
            "gallery is not. 'Off centre': up to an eighth of the patch. "
            "Random weights: mean of three networks and its 95% interval.",
            figures.queries_figure(rows, QUERIES, 1 / len(set(label))),
            table,
        ),
        Section(
            "Nearest neighbours",
            "A source of each class (left) and the sources of other fields that the network finds most alike; "
            "red: of another class.",
            figures.neighbours_figure(fixed, label, patches.field, vectors, examples),
        ),
        Section(
            "Attention",
            f"Where the class token looks in the last block, head by head: {', '.join(map(str, label[examples]))}.",
            attention_figure(encoder.model, encoder.variables, fixed[examples]),
        ),
    ]
    path = config.out / "report.html"
    summary = (
        f"vis2img demonstration: {config.fields} simulated observations, from measurement sets to a trained network. "
        "Numbers of a run this small show that the parts work together, not what the method is worth."
    )
    write_report(path, "From visibilities to representations", summary, sections)
    return path


def _cell(rows: list[Summary], name: str, way: str) -> str:
    return str(next(row for row in rows if row.representation == name and row.setting.startswith(f"{way},")))
