"""The work of a study: data, runs, scores and the report, each part kept and not done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vis2img import __version__
from vis2img.dataset import open_ms
from vis2img.errors import Vis2imgError
from vis2img.files import write_text
from vis2img.loader.config import LoaderConfig
from vis2img.locks import claimed
from vis2img.machine import cores
from vis2img.products.clean import clean_image
from vis2img.progress import Progress, renamed
from vis2img.simulate.campaign import simulate_many
from vis2img.simulate.truth.truth import Truth
from vis2img.train.config import ModelConfig
from vis2img.train.evaluate.config import TASKS as ALL_TASKS
from vis2img.train.evaluate.encoders import RANDOM, component_encoders, random_encoders, run_encoders
from vis2img.train.evaluate.field_tasks import FieldTasks, wanted_ways
from vis2img.train.evaluate.finetune import FineTuning
from vis2img.train.evaluate.scores import Score, differences, from_csv, scores_of, summaries, to_csv
from vis2img.train.evaluate.simulated import ALIKE, SHIFTED, field_patches
from vis2img.train.evaluate.tune_config import FineTuneConfig
from vis2img.train.report.scores_page import write_report
from vis2img.train.run.folder import keep_compiled
from vis2img.train.run.run import train
from vis2img.train.study.budget import Pace, measure
from vis2img.train.study.config import CLEAN, FULL, IMAGE_ONLY, StudyConfig, is_clean
from vis2img.train.study.figure import differences_figure
from vis2img.train.study.folder import budget_path, scores_path, settle
from vis2img.train.study.skies import EACH, clean_path
from vis2img.train.study.tables import compared_pairs, study_tables

SUPERVISED = "supervised"
TASKS = tuple(task for task in ALL_TASKS if task != "anomaly")  # rare sources need more sources than a study has
SHARES = (0.1, 1.0)  # of the labels
# Settings of a network that change nothing of an untrained one's vectors.
_OF_HEADS = (
    "drop_path", "out_dim", "hidden", "bottleneck", "head_layers", "projector_layers", "use_bn_in_head",
    "norm_last_layer", "remat",
)  # fmt: skip
_PATIENCE = 2.0  # s between two looks at whether data are there


class Study:
    """A study in its folder.

    Parameters
    ----------
    config : StudyConfig
    report : callable
        Told of each stage.
    """

    def __init__(self, config: StudyConfig, report: Progress) -> None:
        self.config, self.report = config, report
        self.stopped = False
        self._seen: dict[tuple[LoaderConfig, bool], FieldTasks] = {}

    def run(self) -> Path | None:
        """Do what is missing, and return the path of the report.

        Several processes may work on one study: each takes what nobody has begun, and the last one writes the report.

        Returns
        -------
        Path or None
            None where other processes are still at work, or this one was asked to stop (``stopped``).

        Raises
        ------
        Vis2imgError
            If the folder holds another study, data cannot be made, or a run fails; what is done is kept.
        """
        config = self.config = settle(self.config)
        keep_compiled(config.out)  # by the first run, for all of them
        jobs = [(arm, seed) for seed in range(config.seeds) for arm in (*config.compared, *self._baselines())]
        seed_there = -1
        for i, (arm, seed) in enumerate(jobs):
            if seed > seed_there and not self._ready(seed):
                self.stopped = True
                return None
            seed_there = seed
            self.report("arms and seeds", i, len(jobs), f"{arm}, seed {seed}")
            path = scores_path(config, arm, seed)
            with claimed(path) as free:
                if free and not path.exists() and not self.do(arm, seed):
                    self.stopped = True
                    return None
        self.report("arms and seeds", len(jobs), len(jobs))
        if not all(scores_path(config, arm, seed).exists() for arm, seed in jobs):
            return None
        with claimed(self.config.out / "report") as free:  # else another process is about to write the same
            return self.write() if free else None

    def _ready(self, seed: int) -> bool:
        """Wait for the data of a seed and for the budgets, or make what is missing; return False if asked to stop."""
        self._seen.clear()  # of other skies
        while True:
            with claimed(self.config.out / "data") as free:
                if free:
                    self.prepare(seed)
                    return self._measure_budgets()
            self.report("data", 0, 1, "another process makes them")
            time.sleep(_PATIENCE)

    def prepare(self, seed: int) -> None:
        """Simulate the fields of a seed, and make CLEAN images where an arm needs them."""
        config = self.config
        observations = [config.observation(i, False, seed) for i in range(config.fields)]
        observations += [config.observation(i, True, seed) for i in range(config.test_fields)]
        result = simulate_many(observations, progress=self.report)
        if result.failed:
            path, why = next(iter(result.failed.items()))
            raise Vis2imgError(f"{len(result.failed)} observations failed; the first, {path}: {why}")
        if config.has_clean:
            paths = [*config.measurement_sets(False, seed), *config.measurement_sets(True, seed)]
            for i, ms in enumerate(paths):
                self.report("CLEAN images", i, len(paths))
                if not clean_path(ms).exists():
                    opened = open_ms(ms)
                    params = opened.imaging_params(npix=config.field_npix)
                    noise = opened.image(params).noise()
                    clean_image(ms, params, clean_path(ms), multiscale=True, noise=noise, nthreads=cores())
            self.report("CLEAN images", len(paths), len(paths))

    def _measure_budgets(self) -> bool:
        """Measure how many steps each arm gets in the budget, where that is not known; return False if asked to stop.

        All arms in a row, before anything trains: others that share the study wait meanwhile.
        """
        config = self.config
        for arm in config.compared if config.budget else ():
            path = budget_path(config, arm)
            if not path.exists():
                timed = replace(config.run_config(arm, 0), out=str(path.with_suffix("")))
                pace = measure(timed, config.budget, renamed(self.report, f"{arm}: {{}}"))
                if pace is None:
                    return False
                pace.write(path)
        return True

    def steps(self, arm: str) -> int:
        """Return the steps of the runs of an arm."""
        return Pace.read(budget_path(self.config, arm)).steps if self.config.budget else self.config.steps

    def do(self, arm: str, seed: int) -> bool:
        """Train an arm with a seed, where it trains at all, and score it; return whether it came to its end."""
        config = self.config
        if arm in self._baselines():
            scores = list(self._untrained(self._baselines()[arm], seed))
        else:
            settings = config.run_config(arm, seed, self.steps(arm))
            done = train(settings, progress=renamed(self.report, f"{arm}, seed {seed}: {{}}"))
            if not done.finished:
                return False
            _, encoders = run_encoders([settings.out])
            scores = scores_of(arm, self.tasks(arm, seed).run(encoders[0], [seed]))
            if config.has_clean and arm in (CLEAN, IMAGE_ONLY, FULL):
                name = f"{arm}, asked of {'dirty' if is_clean(arm) else 'CLEAN'} images"
                other = self.tasks(IMAGE_ONLY if is_clean(arm) else CLEAN, seed)
                scores += scores_of(name, other.run(encoders[0], [seed]))
        write_text(scores_path(config, arm, seed), to_csv(scores))
        return True

    def _baselines(self) -> dict[str, str | None]:
        """Return the arm whose network each baseline is, by name; None: that of the study.

        A variant with another network, or whose views are cut otherwise, has its own; of variants that are alike in
        both, the first.
        """
        there, names = {self._untrained_key(None)}, dict[str, str | None]({RANDOM: None})
        for arm in self.config.variants:
            key = self._untrained_key(arm)
            if arm in self.config.compared and key not in there:
                there.add(key)
                names[f"{RANDOM}, {arm}"] = arm
        return names

    def _untrained_key(self, arm: str | None) -> tuple[ModelConfig, LoaderConfig]:
        run = self.config.run_config(arm or IMAGE_ONLY, 0)
        usual = ModelConfig()
        heads = {name: getattr(usual, name) for name in _OF_HEADS}
        return replace(run.model, **heads), self.config.test_data(arm or IMAGE_ONLY, 0)

    def _untrained(self, arm: str | None, seed: int) -> Iterator[Score]:
        """Yield the scores of what was not trained, or was trained with labels."""
        config, note = self.config, "" if arm is None else f", {arm}"
        own_pixels = arm is None or config.test_data(arm, seed) != config.test_data(IMAGE_ONLY, seed)
        network = random_encoders(config.run_config(arm or IMAGE_ONLY, 0), [seed])[0]
        for clean in (False, True) if config.has_clean and arm is None else (False,):
            tasks = self.tasks(CLEAN if clean else arm or IMAGE_ONLY, seed)
            note = ", CLEAN images" if clean else note
            yield from scores_of(f"{RANDOM}{note}", tasks.run(network, [seed]))
            for pixels in component_encoders(tasks.pixels) if own_pixels else ():
                yield from scores_of(f"{pixels.name}{note}", tasks.run(pixels, [seed]))
            if config.supervised_steps:
                settings = FineTuneConfig(steps=config.supervised_steps).from_scratch()
                folds = min(config.folds, config.test_fields)
                tuning = FineTuning(network.model, [network.variables], folds=folds, config=settings)
                yield from scores_of(f"{SUPERVISED}{note}", tuning.run(tasks.train, seeds=[seed]))

    def tasks(self, arm: str, seed: int) -> FieldTasks:
        """Return the tasks on the test sources of a seed as an arm sees them."""
        data = self.config.test_data(arm, seed)
        key = data, is_clean(arm)
        if key not in self._seen:
            ways = (ALIKE, SHIFTED) if is_clean(arm) else wanted_ways(TASKS)  # CLEAN images are imaged in one way
            run = replace(self.config.run_config(arm, seed), data=data)
            truths = [Truth.read(ms) for ms in self.config.measurement_sets(True, seed)]
            tell = renamed(self.report, f"test images ({arm}, seed {seed})")
            sources, tiles = field_patches(run, truths, ways, tell, tiles=True)
            sources = sources.of_classes(self.config.classes)
            self._seen[key] = FieldTasks(sources, tiles, tasks=TASKS, shares=SHARES, folds=self.config.folds)
        return self._seen[key]

    def write(self) -> Path:
        """Write the report of all scores, and return its path."""
        config = self.config
        scores: list[Score] = []
        for arm in (*config.compared, *self._baselines()):
            for seed in range(config.seeds):
                scores += from_csv(scores_path(config, arm, seed).read_text())
        for arm, base in compared_pairs(config):
            scores += differences(scores, arm, base)
        means = summaries(scores)
        against = f"Against {' and '.join(config.bases)}"
        others = len(config.compared) > 1
        return write_report(
            config.out / "report",
            scores,
            title="What gives the better representation?",
            facts=_facts(config),
            tables=study_tables(config, means, {arm: self.steps(arm) for arm in config.compared}),
            pictures=[(against, differences_figure(means, config.bases))] if others else [],
            overwrite=True,
        )


def _facts(config: StudyConfig) -> dict[str, str]:
    skies = "of network, skies, draws" if config.skies == EACH else "of network, draws"
    each = " for each seed" if config.skies == EACH else ""
    return {
        "training": f"{config.fields} fields{each}, {config.length} with {config.batch_size} samples a step for each "
        f"of {len(config.compared)} arms and {config.seeds} seeds; {config.model.variant}, {config.optim.objective}",
        "test": f"{config.test_fields} other fields{each} of {config.sources} labelled sources "
        f"({', '.join(config.classes)}); intervals are over seeds {skies}, views, folds and labels",
        "differences": "NAME minus OTHER: seed by seed",
        "vis2img": __version__,
    }
