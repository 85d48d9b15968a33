"""The main job on simulated observations: measurement sets to a trained network and a report.

Sky, noise and flags are simulated; from the measurement sets on everything is what real data go through.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vis2img.coordinates import direction_cosines
from vis2img.dataset import open_ms
from vis2img.draws.field import Field, make_draw
from vis2img.errors import OutputError
from vis2img.loader.fields import fields_of, patch_angle
from vis2img.ms.metadata import read_metadata
from vis2img.ms.selection import Selection
from vis2img.progress import Progress
from vis2img.simulate.run import simulate
from vis2img.train.demo_config import DemoConfig, observation, train_config
from vis2img.train.evaluate.encoders import Encoder, NetworkEncoder, pixel_encoder, random_encoders, run_encoders
from vis2img.train.evaluate.field_tasks import QueryWays
from vis2img.train.evaluate.scores import Score, Summary, scores_of, summaries
from vis2img.train.evaluate.simulated import ALIKE, SHIFTED, SourcePatches, field_patches, read_truths
from vis2img.train.report import figures
from vis2img.train.report.page import Section, write_report
from vis2img.train.report.token_pictures import attention_figure
from vis2img.train.run.config import TrainConfig
from vis2img.train.run.run import read_metrics, train
from vis2img.train.run.stopping import Stopped

# How the queries of a score are seen, beside a gallery that is centred and imaged in the fixed way.
QUERIES = {ALIKE: "imaged alike", "full": "imaged otherwise", SHIFTED: "off centre"}


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
    Stopped
        If the training was asked to stop; the same call goes on.
    """
    _simulate(config, report)
    settings = train_config(config)
    if not train(settings, progress=report).finished:
        raise Stopped

    report("evaluating", 0, 1)
    patches, _ = field_patches(settings, read_truths(settings), tuple(QUERIES))
    queries = QueryWays(patches, tuple(QUERIES))
    _, trained = run_encoders([settings.out])
    encoders: list[Encoder] = [*trained, *random_encoders(settings, range(3)), pixel_encoder(patches.seen[ALIKE])]
    scores: list[Score] = []
    for i, encoder in enumerate(encoders):
        scores += scores_of(encoder.name, queries.run(encoder, [encoder.seed]))
        report("evaluating", i + 1, len(encoders))

    report("report", 0, 1)
    path = _write(config, settings, fields_of(settings.data), patches, trained[0], scores)
    report("report", 1, 1)
    return path, scores


def _simulate(config: DemoConfig, report: Progress) -> None:
    try:
        (config.out / "data").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {config.out}: {error.strerror}") from error
    for i in range(config.fields):
        report("simulating", i, config.fields)
        field = observation(config, i)
        if not field.out.exists():
            simulate(field)
    report("simulating", config.fields, config.fields)


def _write(
    config: DemoConfig,
    settings: TrainConfig,
    fields: list[Field],
    patches: SourcePatches,
    encoder: NetworkEncoder,
    scores: list[Score],
) -> Path:
    """Write the page, and return its path."""
    images, label = patches.seen[ALIKE], patches.label
    examples = [int(np.flatnonzero(label == name)[0]) for name in np.unique(label)]
    sections = [
        _field_section(config, settings, fields[0]),
        _draws_section(settings, fields[0], patches),
        Section(
            "Training",
            f"Objective '{settings.optim.objective}' on {settings.steps} batches of {settings.data.batch_size} sky "
            f"patches, network '{settings.model.variant}'.",
            figures.curves_figure(read_metrics(settings.out), settings.model.out_dim),
        ),
        _accuracy_section(summaries(scores), label),
        Section(
            "Nearest neighbours",
            "A source of each class (left) and the sources of other fields that the network finds most alike; "
            "red: of another class.",
            figures.neighbours_figure(images, label, patches.field, encoder.encode(images), examples),
        ),
    ]
    if not settings.model.is_resnet:
        shown = ", ".join(map(str, label[examples]))
        picture = attention_figure(encoder.model, encoder.variables, images[examples])
        sections.append(
            Section("Attention", f"Where the class token looks in the last block, head by head: {shown}.", picture)
        )
    path = config.out / "report.html"
    summary = (
        f"vis2img demonstration: {config.fields} simulated observations, from measurement sets to a trained network. "
        "Numbers of a run this small show that the parts work together, not what the method is worth."
    )
    write_report(path, "From visibilities to representations", summary, sections)
    return path


def _field_section(config: DemoConfig, settings: TrainConfig, field: Field) -> Section:
    ms = open_ms(field.path)
    selection = Selection(field="0")
    image = ms.image(ms.imaging_params(selection, npix=settings.data.field_npix), selection, psf=True)
    meta = read_metadata(field.path)
    freq = meta.spws[0].chan_freq
    return Section(
        "A field and its point spread function",
        f"{meta.telescope}, {len(meta.antennas)} antennas, {meta.ntimes} times of {meta.interval:.0f} s, "
        f"{len(freq)} channels from {freq.min() / 1e6:.0f} MHz: {image.nvis:,} visibilities, Briggs 0, "
        f"noise {image.noise() * 1e6:.0f} uJy/beam, {config.sources} sources.",
        figures.field_figure(image),
    )


def _draws_section(settings: TrainConfig, field: Field, patches: SourcePatches) -> Section:
    draws = [make_draw(field, settings.seed, 0, index) for index in range(12)]
    # The brightest extended source of the first field shows best what imaging does.
    extended = (patches.field == 0) & (patches.label != "compact")
    ra, dec = patches.position[int((patches.seen[ALIKE].max(axis=(1, 2, 3)) * extended).argmax())]
    l, m, _ = direction_cosines(ra, dec, draws[0].phase_centre)
    side = patch_angle(field, settings.data.views)
    return Section(
        "One patch of sky under twelve draws",
        "How an image is made is itself the augmentation: each picture is the same sky, imaged from the "
        "visibilities under other weighting, taper, band, time range, uv sampling and pixel scale.",
        figures.draws_figure(draws, float(l), float(m), side, 96),
    )


def _accuracy_section(rows: list[Summary], label: np.ndarray) -> Section:
    cells = {(row.representation, row.setting.partition(",")[0]): str(row) for row in rows}
    names = dict.fromkeys(row.representation for row in rows)
    table = [("representation", *QUERIES.values()), *((name, *(cells[name, way] for way in QUERIES)) for name in names)]
    classes = len(np.unique(label))
    return Section(
        "Does it know what it sees?",
        f"k-NN classification of {len(label)} sources in {classes} classes; each field is "
        "classified by the others. 'Imaged otherwise': the queries are imaged under random parameters, the "
        "gallery is not. 'Off centre': up to an eighth of the patch. "
        "Random weights: mean of three networks, and each of them.",
        figures.queries_figure(rows, QUERIES, 1 / classes),
        tuple(table),
    )
