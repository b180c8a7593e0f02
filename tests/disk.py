"""A disk that loses power: what is left of a folder if only that is kept which was synced."""

import os
import threading
from pathlib import Path
from typing import NamedTuple

from vae.runs import checkpoint


class State(NamedTuple):
    """What is on the disk, by inodes: the names in each folder (inode, is it a folder), the content of each file."""

    names: dict[int, dict[str, tuple[int, bool]]]
    contents: dict[int, bytes]


class Disk:
    """Sees each os.fsync and rename below `root`, while `patch` (a MonkeyPatch) lasts.

    `states` are what was on the disk after each of them, if a rename or a new file is lost until its folder is synced,
    and a file is empty or old until it is. `faults` are renames of what was not synced, which another file system keeps
    first; and checkpoints that go before their successor is kept.
    """

    def __init__(self, patch, root: Path):
        self._root, self._lock, self._open = root, threading.RLock(), []
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self._contents: dict[int, bytes] = {}
        self.states: list[State] = []
        self.faults: list[str] = []
        self._see(root)
        fsync, rename, replace = os.fsync, os.rename, os.replace

        def synced(descriptor):
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_relative_to(root):
                with self._lock:
                    self._see(path)
                    self.states.append(State(dict(self._names), dict(self._contents)))
            return fsync(descriptor)

        def renamed(original):
            def wrapper(source, target, **options):
                with self._lock:
                    if Path(target).is_relative_to(root):
                        self._check(Path(source))
                        self._check_replaced(Path(source), Path(target))
                    return original(source, target, **options)

            return wrapper

        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "rename", renamed(rename))
        patch.setattr(os, "replace", renamed(replace))

    def _see(self, path: Path) -> None:
        # Kept open, so that its inode is not that of another file later.
        self._open.append(os.open(path, os.O_RDONLY))
        inode = os.fstat(self._open[-1]).st_ino
        if path.is_dir():
            self._names[inode] = {e.name: (e.inode(), e.is_dir()) for e in os.scandir(path)}
        else:
            self._contents[inode] = path.read_bytes()

    def _check(self, path: Path) -> None:
        for one in (path, *path.rglob("*")):
            inode = one.stat().st_ino
            if one.is_dir():
                kept = self._names.get(inode, {}).keys() >= {entry.name for entry in os.scandir(one)}
            else:
                kept = self._contents.get(inode) == one.read_bytes()
            if not kept and not self._is_of_orbax(one):
                self.faults.append(str(one.relative_to(self._root)))

    def _check_replaced(self, source: Path, target: Path) -> None:
        """A checkpoint goes once the folder that names a newer one is on the disk, or both may be lost."""
        if target.name.startswith(checkpoint.DELETED):
            kept = self._names.get(source.parent.stat().st_ino, {})
            if not any(name.isdigit() and int(name) > int(source.name) for name in kept):
                self.faults.append(f"{source.relative_to(self._root)} goes before its successor is kept")

    @staticmethod
    def _is_of_orbax(path: Path) -> bool:
        """It renames within a checkpoint that has no name yet."""
        return any(part.endswith(".orbax-checkpoint-tmp") for part in path.parts)

    def survivors(self, state: State, to: Path) -> Path:
        """The root as it is after a power cut in `state`, in the new folder `to`."""

        def build(inode: int, folder: Path) -> None:
            folder.mkdir()
            for name, (below, is_folder) in state.names.get(inode, {}).items():
                if is_folder:
                    build(below, folder / name)
                else:
                    (folder / name).write_bytes(state.contents.get(below, b""))

        build(self._root.stat().st_ino, to)
        return to

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
