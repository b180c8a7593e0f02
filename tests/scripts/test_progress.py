"""Who watches a script through a pipe, as in the log of a job, sees each line when it is written."""

import math
import os
import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.command import progress
from experiments.command.boards import SearchBoard, SweepBoard

ROOT = Path(__file__).resolve().parents[2]


def test_a_line_goes_through_a_pipe_before_the_script_ends():
    main = "lambda stop: print('begun') or len(sys.stdin.read())"
    code = f"import sys; from experiments.command import script; script.run(lambda: None, {main})"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], 30)
        process.communicate()
    assert readable
    assert process.returncode == 0


def test_without_a_terminal_a_long_epoch_is_not_silent(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with progress.LiveLine() as line:
        for now[0], stays in ((20.0, None), (40.0, None), (60.0, None), (65.0, "epoch 1"), (90.0, None), (96.0, None)):
            line.show(f"second {now[0]:.0f}", stays)
    assert capsys.readouterr().out == "second 40\nepoch 1\nsecond 96\n"


@pytest.mark.parametrize("board", [SweepBoard({}), SearchBoard(SimpleNamespace(trials=list, num_trials=3))], ids=type)
def test_without_a_terminal_a_board_within_an_epoch_is_shown_after_a_silence(monkeypatch, capsys, board):
    monkeypatch.setattr(progress, "SILENCE", -1.0)
    numbers = {"epoch": 0.5, "num_epochs": 2, "finished": 0, "num_runs": 1, "diverged": 0, "best": {}}
    with board:
        for training in (2, 1, 0):
            board.update(SimpleNamespace(**numbers, training=training, epoch_ended=False, seconds_left=math.nan))
    shown = capsys.readouterr().out.splitlines()
    ways = (" of 2 runs", " of 1 run", ", all ended early")
    assert all(line.startswith(f"epoch 0.50/2{way}") for line, way in zip(shown, ways, strict=True))
