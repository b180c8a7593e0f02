"""A run as one file: packed from its folder, and unpacked into one again."""

from __future__ import annotations

from pathlib import Path

from vae.runs import archive, checkpoint, packs
from vae.runs.config import read_config
from vae.runs.files import RunError, read_bytes
from vae.runs.folder import CHECKPOINTS, CONFIG, METRICS
from vae.runs.metrics import lines, read_evaluation, read_metrics
from vae.training import start
from vae.training.record import FAILURE


def pack(workdir: Path, path: Path, which: str | int | None = None) -> tuple[str, list[str]]:
    """Write the run in `workdir`, at one of its checkpoints, as the file `path`; its sha256, and its files of a run.

    It has the whole state of training, so that the run can be resumed once it is unpacked; all rows of metrics, which
    say whether it is finished; and the evaluations of that checkpoint. The run is only read. Raises RunError or
    CheckpointError.
    """
    if archive.is_packed(workdir):
        raise RunError(f"{workdir} is a packed run already; copy the file")
    _, state = start.saved_state(workdir, which)
    step = int(state.step)
    score = checkpoint.score(workdir / CHECKPOINTS, step)
    files = {
        CONFIG: read_bytes(workdir / CONFIG),
        METRICS: lines(read_metrics(workdir)),
    }
    for found in sorted(workdir.glob("evaluation*.json")):
        if archive.NAMES.fullmatch(found.name) and read_evaluation(found)["checkpoint"] == step:
            of_each_image = found.with_suffix(".npz")
            files |= {one.name: read_bytes(one) for one in (found, of_each_image) if one.exists()}
    if (workdir / FAILURE).exists():
        files[FAILURE] = read_bytes(workdir / FAILURE)
    return packs.write(path, files, step, score, state), sorted(files)


def unpack(path: Path, to: Path | None = None) -> Path:
    """The run folder that a packed run is unpacked into: `to`, or the one beside the file, NAME.unpacked.

    A folder that is there is used if it is of this very file, and was not trained since. Raises RunError otherwise, and
    CheckpointError. Call it once jax is set up: orbax, which writes the checkpoint, uses it.
    """
    to = packs.unpacked_folder(path) if to is None else to
    if not to.exists():
        packs.unpack(path, to, start.abstract_state(read_config(path)))
    elif not packs.is_of(to, path):
        raise RunError(
            f"{path} cannot be unpacked into {to}, which holds something else, or was trained since; use that folder "
            "itself, or move it away"
        )
    return to
