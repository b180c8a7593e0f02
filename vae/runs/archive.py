"""The file of a packed run: a zip archive of stored members that ends with the sha256 of all before it.

The checksum stands where a zip archive has its comment, so that any unzip program opens the file. Equal members make
equal bytes. Nothing is compressed: what is read is never larger than the file.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

from vae import untrusted

SUFFIX = ".pack"
NAMES = re.compile(  # of the members that a packed run can have
    r"pack\.json|arrays\.bin|config\.json|metrics\.jsonl|failure\.json|evaluation(_[a-z]+_\d+)?\.(json|npz)"
)
NEEDED = {"pack.json", "arrays.bin", "config.json", "metrics.jsonl"}
DIGEST = hashlib.sha256().digest_size * 2  # characters


def is_packed(path: Path) -> bool:
    """Whether `path` is the file of a packed run, by its name."""
    return path.suffix == SUFFIX and path.is_file()


def encoded(members: Mapping[str, bytes]) -> bytes:
    """The bytes of the file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name)  # with a date that is always the same
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, members[name])
        archive.comment = b"0" * DIGEST
    body = content.getvalue()[:-DIGEST]
    return body + hashlib.sha256(body).hexdigest().encode()


def sha256_of(content: bytes) -> str:
    """The checksum in a file that was read by `decoded`: it names the packed run."""
    return content[-DIGEST:].decode()


def decoded(content: bytes) -> dict[str, bytes]:
    """The inverse of `encoded`; raises ValueError, in a few words, for any other bytes."""
    body = memoryview(content)[:-DIGEST]
    if hashlib.sha256(body).hexdigest().encode() != content[-DIGEST:]:
        raise ValueError("it was cut or changed, or is no packed run: its end is not the checksum of its content")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {info.filename: archive.read(info) for info in _checked(archive.infolist(), len(content))}
    except Exception as error:  # zipfile raises a dozen kinds
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _checked(infos: list[zipfile.ZipInfo], size: int) -> list[zipfile.ZipInfo]:
    """The members of an archive of `size` bytes; ValueError if they are not as `encoded` makes them."""
    names = [info.filename for info in infos]
    if wrong := [name for name in names if not NAMES.fullmatch(name)]:
        raise ValueError(f"it holds {wrong[0][:80]!r}, which is no part of a run")
    if missing := NEEDED.difference(names):
        raise ValueError(f"it lacks {min(missing)}")
    if len(set(names)) < len(names):
        raise ValueError("it holds a file twice")
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 for info in infos):
        raise ValueError("it is compressed or encrypted")
    if any(info.file_size != info.compress_size for info in infos) or sum(info.file_size for info in infos) > size:
        raise ValueError("its files claim more bytes than it has")
    return infos


def read(path: Path) -> bytes:
    """The bytes of the file, as long as there is memory for them; raises ValueError or OSError."""
    untrusted.check_memory(2 * path.stat().st_size)
    return path.read_bytes()
