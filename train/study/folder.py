"""The folder of a study: which study it holds, and where each part of it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from vis2img import __version__
from vis2img.configs.load import draft, read_config
from vis2img.configs.overlay import nested
from vis2img.configs.records import differences, to_record
from vis2img.errors import OutputError
from vis2img.files import write_text
from vis2img.locks import claimed
from vis2img.train.study.config import StudyConfig
from vis2img.train.study.skies import EACH, SHARED

# What may change from one start to the next: it adds work, or leaves results as they are.
_FREE = ("out", "arms", "base", "seeds", "workers")


def settle(config: StudyConfig) -> StudyConfig:
    """Make the folder of a study, or check that it holds this one; return the study with what it left to the folder.

    Variants may be added, and are kept in its record.

    Raises
    ------
    OutputError
        If it holds another study, whose scores these cannot stand beside, or cannot be written.
    """
    path = config.out / "study.yaml"
    try:
        scores_path(config, "arm", 0).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{config.out} cannot be written: {error.strerror}") from error
    with claimed(path) as free:
        if free and not path.exists():
            config = replace(config, skies=config.skies or EACH)
            write_text(path, _text(_record(config)), overwrite=False)
    if path.exists():
        record = read_config(path)
        # Before they could be chosen all seeds had the same skies.
        config = replace(config, skies=config.skies or (EACH if record.get("skies") == EACH else SHARED))
        _check_same(config, record, path)
        _add_variants(config, record, path)
    return config


def _record(config: StudyConfig) -> dict[str, Any]:
    record = {key: value for key, value in to_record(config).items() if key not in _FREE}
    # Scores that are there were made with CLEAN images to ask, or without.
    return {**record, **_overlays(record), "clean": config.has_clean, "vis2img": __version__}


def _overlays(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a record holds of any keys, in one spelling."""
    plain = {name: nested(record.get(name, {}), name) for name in ("simulate", "data")}
    variants = {name: nested(settings or {}, name) for name, settings in record.get("variants", {}).items()}
    return {**plain, "variants": variants}


def _check_same(config: StudyConfig, record: dict[str, Any], path: Path) -> None:
    made = ("clean", "vis2img")
    settings = {key: value for key, value in record.items() if key not in made}
    saved = to_record(draft(StudyConfig, {"skies": SHARED, **settings}, path, saved=True))
    there = {**saved, **_overlays(saved), **{key: record.get(key) for key in made}}
    here = _record(config)
    new = [f"variants.{name}" for name in here["variants"] if name not in there["variants"]]
    gone = [f"variants.{name}" for name in there["variants"] if name not in here["variants"]]
    for difference in differences(there, here, (*_FREE, *new, *gone)):
        raise OutputError(
            f"{config.out} holds a study with another {difference}; choose another out, or the settings of {path}"
        )


def _add_variants(config: StudyConfig, record: dict[str, Any], path: Path) -> None:
    there, here = (_overlays(each)["variants"] for each in (record, to_record(config)))
    if {*here} <= {*there}:
        return
    with claimed(path) as free:
        if free:
            write_text(path, _text({**record, "variants": {**there, **here}}))


def _text(record: dict[str, Any]) -> str:
    return str(yaml.safe_dump(record, sort_keys=False))


def scores_path(config: StudyConfig, arm: str, seed: int) -> Path:
    """Return where the scores of an arm and seed are kept."""
    return config.out / "scores" / f"{arm.lower().replace(' ', '-')}-{seed}.csv"


def budget_path(config: StudyConfig, arm: str) -> Path:
    """Return where it is kept how many steps an arm gets."""
    return config.out / "budget" / f"{arm.lower()}.yaml"
