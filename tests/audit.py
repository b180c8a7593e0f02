"""What Python does behind a call, seen by an audit hook: modules imported, programs started, code that is unpickled."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_seen: list[list[tuple[str, str]]] = []  # a hook cannot be taken away again


def _hook(event: str, arguments: tuple) -> None:
    if _seen and (event in ("import", "pickle.find_class") or event in PROGRAMS):
        # Of find_class the module and the name; of the others the first argument alone says what it is.
        shown = arguments[:2] if event == "pickle.find_class" else arguments[:1]
        _seen[-1].append((event, ".".join(map(str, shown))))


sys.addaudithook(_hook)


@contextlib.contextmanager
def audited() -> Iterator[list[tuple[str, str]]]:
    """The events (kind, what) while this lasts."""
    found: list[tuple[str, str]] = []
    _seen.append(found)
    try:
        yield found
    finally:
        _seen.remove(found)


def imported(found: list[tuple[str, str]]) -> list[str]:
    return [what for event, what in found if event == "import"]


def programs(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [one for one in found if one[0] in PROGRAMS]
