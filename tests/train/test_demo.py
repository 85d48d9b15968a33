"""The demonstration, small: simulated measurement sets to a page with pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("simms", reason="the demonstration simulates its data")

from train.demo import DemoConfig, run_demo


def test_the_demonstration_ends_in_a_self_contained_report(tmp_path: Path) -> None:
    stages: list[str] = []
    config = DemoConfig(out=tmp_path / "demo", fields=2, sources=20, steps=25)
    path, scores = run_demo(config, lambda stage, *_: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["simulating", "imaging", "training", "evaluating", "report"]
    page = path.read_text()
    assert len(re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]{2000,}"', page)) == 6
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert {(s.name, s.imaging) for s in scores} == {
        (name, how) for name in ("trained", "random weights", "pixels") for how in ("same", "across", "shifted")
    }
    assert all(0 <= value <= 1 for s in scores for value in s.values)
    assert all(f"{s.mean:.3f}" in page for s in scores)
