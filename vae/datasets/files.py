"""Find the pictures below a folder: links are followed, and what is passed over is counted by its kind."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
# Pictures that nothing here decodes: cameras' raw files, and formats of phones and drawing programs.
UNREAD = (
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".xcf", ".svg", ".eps", ".exr", ".hdr", ".tga", ".ico", ".dcm",
    ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw",
)  # fmt: skip
HIDDEN, BROKEN, TWICE, SPECIAL = "hidden", "broken link", "link to what was read already", "no plain file"


class Found(NamedTuple):
    """Pictures sorted by path, how many of each kind were passed over, and how many links were followed."""

    pictures: list[Path]
    passed_over: Counter[str]
    links: int


def find(folder: Path) -> Found:
    """The pictures of `folder` and of the folders in it, as their names tell.

    What a link leads to is read once: not if it lies in `folder` itself, and not if it holds `folder`. So no loop of
    links is followed.
    """
    pictures: list[Path] = []
    passed_over: Counter[str] = Counter()
    real = folder.resolve()
    seen = {_identity(path) for path in (real, *real.parents)}
    folders, linked, followed = [folder], [], 0
    while folders or linked:
        if not folders:  # links come last: what lies in the folder keeps its own place
            path = linked.pop(0)
            if not path.exists():
                passed_over[BROKEN] += 1
            elif (identity := _identity(path)) in seen:
                passed_over[TWICE] += 1
            elif path.is_dir():
                seen.add(identity)
                followed += 1
                folders.append(path)
            else:
                kind = _kind(path)
                seen.add(identity)
                followed += kind is None
                _add(path, kind, pictures, passed_over)
            continue
        for path in sorted(folders.pop().iterdir()):
            if path.name.startswith("."):
                passed_over[HIDDEN] += 1
            elif path.is_symlink():
                linked.append(path)
            else:
                seen.add(_identity(path))
                if path.is_dir():
                    folders.append(path)
                else:
                    _add(path, _kind(path), pictures, passed_over)
    return Found(sorted(pictures), passed_over, followed)


def told(passed_over: Counter[str]) -> str:
    """What was passed over, in words; empty if nothing was."""
    kinds = [f"{count} {kind}" for kind, count in sorted(passed_over.items(), key=lambda one: (-one[1], one[0]))]
    unread = [kind for kind in passed_over if kind in UNREAD]
    return ", ".join(kinds) + (f" (no reader for {', '.join(sorted(unread))}: save as .png or .jpg)" if unread else "")


def _add(path: Path, kind: str | None, pictures: list[Path], passed_over: Counter[str]) -> None:
    if kind is None:
        pictures.append(path)
    else:
        passed_over[kind] += 1


def _kind(path: Path) -> str | None:
    """Why a file is passed over; None of a picture."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return SPECIAL
    return None if suffix in SUFFIXES else suffix or "without a suffix"


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
