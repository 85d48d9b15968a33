"""The work of a study: data, runs, scores and the report, each part kept and not done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from vis2img import __version__
from vis2img.dataset import open_ms
from vis2img.errors import Vis2imgError
from vis2img.files import write_text
from vis2img.locks import claimed
from vis2img.machine import cores
from vis2img.products.clean import clean_image
from vis2img.progress import Progress, renamed
from vis2img.simulate.campaign import simulate_many
from vis2img.simulate.truth.truth import Truth
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
from vis2img.train.study.config import CLEAN, STRONG, StudyConfig, clean_path
from vis2img.train.study.figure import differences_figure
from vis2img.train.study.folder import scores_path, settle

BASE = "image-only"  # what the others are compared with
SUPERVISED = "supervised"
TASKS = tuple(task for task in ALL_TASKS if task != "anomaly")  # rare sources need more sources than a study has
SHARES = (0.1, 1.0)  # of the labels
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
        config = self.config
        settle(config)
        keep_compiled(config.out)  # by the first run, for all of them
        while not self._prepared():
            self.report("data", 0, 1, "another process makes them")
            time.sleep(_PATIENCE)
        jobs = [(arm, seed) for seed in range(config.seeds) for arm in (*config.arms, RANDOM)]
        for i, (arm, seed) in enumerate(jobs):
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

    def _prepared(self) -> bool:
        """Make the data, unless another process is at it; return whether they are there."""
        with claimed(self.config.out / "data") as free:
            if free:
                self.prepare()
        return free

    def prepare(self) -> None:
        """Simulate the fields, and make CLEAN images where an arm needs them."""
        config = self.config
        observations = [config.observation(i, False) for i in range(config.fields)]
        observations += [config.observation(i, True) for i in range(config.test_fields)]
        result = simulate_many(observations, progress=self.report)
        if result.failed:
            path, why = next(iter(result.failed.items()))
            raise Vis2imgError(f"{len(result.failed)} observations failed; the first, {path}: {why}")
        if config.has_clean:
            paths = [*config.measurement_sets(False), *config.measurement_sets(True)]
            for i, ms in enumerate(paths):
                self.report("CLEAN images", i, len(paths))
                if not clean_path(ms).exists():
                    opened = open_ms(ms)
                    params = opened.imaging_params(npix=config.field_npix)
                    noise = opened.image(params).noise()
                    clean_image(ms, params, clean_path(ms), multiscale=True, noise=noise, nthreads=cores())
            self.report("CLEAN images", len(paths), len(paths))

    def do(self, arm: str, seed: int) -> bool:
        """Train an arm with a seed, where it trains at all, and score it; return whether it came to its end."""
        if arm == RANDOM:
            scores = list(self._baselines(seed))
        else:
            settings = self.config.run_config(arm, seed)
            done = train(settings, progress=renamed(self.report, f"{arm}, seed {seed}: {{}}"))
            if not done.finished:
                return False
            _, encoders = run_encoders([settings.out])
            of_clean = arm.removesuffix(STRONG) == CLEAN
            scores = scores_of(arm, self.tasks(of_clean).run(encoders[0], [seed]))
            if self.config.has_clean and arm in (CLEAN, BASE, "full"):
                name = f"{arm}, asked of {'dirty' if of_clean else 'CLEAN'} images"
                scores += scores_of(name, self.tasks(not of_clean).run(encoders[0], [seed]))
        write_text(scores_path(self.config, arm, seed), to_csv(scores))
        return True

    def _baselines(self, seed: int) -> Iterator[Score]:
        """Yield the scores of what was not trained, or was trained with labels."""
        network = random_encoders(self.config.run_config(BASE, 0), [seed])[0]
        for clean in (False, True) if self.config.has_clean else (False,):
            tasks, note = self.tasks(clean), ", CLEAN images" if clean else ""
            yield from scores_of(f"{RANDOM}{note}", tasks.run(network, [seed]))
            for pixels in component_encoders(tasks.pixels):
                yield from scores_of(f"{pixels.name}{note}", tasks.run(pixels, [seed]))
            if self.config.supervised_steps:
                settings = FineTuneConfig(steps=self.config.supervised_steps).from_scratch()
                folds = min(self.config.folds, self.config.test_fields)
                tuning = FineTuning(network.model, [network.variables], folds=folds, config=settings)
                yield from scores_of(f"{SUPERVISED}{note}", tuning.run(tasks.train, seeds=[seed]))

    @cached_property
    def _truths(self) -> list[Truth]:
        return [Truth.read(ms) for ms in self.config.measurement_sets(True)]

    def tasks(self, clean: bool) -> FieldTasks:
        """Return the tasks on the test sources as CLEAN images show them, or as dirty ones do."""
        return self._of_clean if clean else self._of_dirty

    @cached_property
    def _of_dirty(self) -> FieldTasks:
        return self._tasks(BASE, wanted_ways(TASKS))

    @cached_property
    def _of_clean(self) -> FieldTasks:
        return self._tasks(CLEAN, (ALIKE, SHIFTED))  # they are imaged in one way

    def _tasks(self, arm: str, ways: tuple[str, ...]) -> FieldTasks:
        config = replace(self.config.run_config(arm, 0), data=self.config.data_config(arm, test=True))
        tell = renamed(self.report, f"test images ({arm})")
        sources, tiles = field_patches(config, self._truths, ways, tell, tiles=True)
        sources = sources.of_classes(self.config.classes)
        return FieldTasks(sources, tiles, tasks=TASKS, shares=SHARES, folds=self.config.folds)

    def write(self) -> Path:
        """Write the report of all scores, and return its path."""
        scores: list[Score] = []
        for arm in (*self.config.arms, RANDOM):
            for seed in range(self.config.seeds):
                scores += from_csv(scores_path(self.config, arm, seed).read_text())
        bases = [base for base in (BASE, f"{BASE}{STRONG}") if base in self.config.arms]
        for base in bases:
            others = [arm for arm in self.config.arms if arm != base]
            scores += [score for arm in others for score in differences(scores, arm, base)]
        picture = ("Against augmentation of images", differences_figure(summaries(scores), bases))
        return write_report(
            self.config.out / "report",
            scores,
            title="Which augmentation gives the better representation?",
            facts=_facts(self.config),
            pictures=[picture] if bases else [],
            overwrite=True,
        )


def _facts(config: StudyConfig) -> dict[str, str]:
    return {
        "training": f"{config.fields} fields, {config.steps} steps of {config.batch_size} samples for each of "
        f"{len(config.arms)} arms and {config.seeds} seeds; {config.model.variant}/{config.model.patch}",
        "test": f"{config.test_fields} other fields of {config.sources} labelled sources "
        f"({', '.join(config.classes)}); intervals are over seeds of network, draws, views, folds and labels",
        "differences": "NAME minus OTHER: seed by seed",
        "vis2img": __version__,
    }
