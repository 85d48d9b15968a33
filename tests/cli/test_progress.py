"""What people see of long work: lines where there is no terminal, nothing of what is brief or quiet."""

from __future__ import annotations

import pytest

from vis2img.cli.progress import Bars
from vis2img.progress import no_progress, renamed


def test_lines_are_few_and_the_last_is_always_there(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        for done in range(1, 5):
            bars("imaging", done, 4, "slow")
        renamed(bars, "again: {}")("imaging", 2, 2)
    err = capsys.readouterr().err
    assert err == "imaging: 1/4 slow\nimaging: 4/4 slow\nagain: imaging: 2/2\n"


@pytest.mark.parametrize("options", [{"quiet": True}, {"brief": True}])
def test_nothing_is_written_of_quiet_and_of_brief_work(capsys: pytest.CaptureFixture[str], options) -> None:
    with Bars(**options) as bars:
        bars("imaging", 4, 4)
    no_progress("imaging", 4, 4)
    assert capsys.readouterr() == ("", "")
