"""Processes that open one study at the same moment."""

import multiprocessing
from typing import Any

from tests.script_runs import HEAVY
from vae.sweeps import storage, study


def join_at_once(where: str, num_workers: int, asked: list[dict[str, Any]]) -> list[str]:
    """What `num_workers` processes get of the study "s" in the storage `where`: its number, or an error."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    barrier, answers = context.Barrier(num_workers), context.Queue()
    started = [
        context.Process(target=_join, args=(where, asked[i % len(asked)], barrier, answers)) for i in range(num_workers)
    ]
    for process in started:
        process.start()
    found = [answers.get(timeout=60) for _ in started]
    for process in started:
        process.join(60)
    return found


def _join(where: str, asked: dict[str, Any], barrier, answers) -> None:
    barrier.wait(60)
    try:
        opened = storage.open_storage(where)
        study.join(opened, "s", asked)
        study_id = opened.get_study_id_from_name("s")
        number = opened.get_trial(opened.create_new_trial(study_id)).number
        answers.put(f"study {study_id}, trial {number}")
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")
