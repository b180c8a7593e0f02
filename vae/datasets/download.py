"""Download one file over HTTP; gives up quickly if the server does not answer."""

import queue
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from vae.datasets.progress import bar

FIRST_BYTE_SECONDS = 2.0  # name lookup, connection, redirects and the first byte together
STALL_SECONDS = 30.0
MOST = 200_000_000  # bytes


class DownloadError(OSError):
    """Why a source gave nothing, in a few words."""


def download(url: str, path: Path, size: int | None, progress: bool = False) -> None:
    """Writes what `url` serves to `path`, stopping past `size` bytes, or past `MOST` if no size is known.

    Raises DownloadError; checks no checksum.
    """
    most = MOST if size is None else size
    chunks: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    abandoned = threading.Event()
    # A name lookup can hang for a minute and cannot be interrupted. So it runs in a daemon thread.
    threading.Thread(target=_read, args=(url, chunks, abandoned), daemon=True).start()
    deadline = time.monotonic() + FIRST_BYTE_SECONDS
    received = 0
    try:
        with path.open("wb") as file, bar(url.rpartition("/")[2], size, "B", progress) as progress_bar:
            while chunk := _next(chunks, deadline, url):
                received += len(chunk)
                if received > most:
                    raise DownloadError(f"{url} serves more than the {most} bytes of the published file")
                file.write(chunk)
                progress_bar.update(len(chunk))
                deadline = time.monotonic() + STALL_SECONDS
    finally:
        abandoned.set()


def _next(chunks: queue.SimpleQueue, deadline: float, url: str) -> bytes:
    """The next piece of the file, empty at its end."""
    try:
        chunk = chunks.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise DownloadError(f"{url} does not answer") from None
    if isinstance(chunk, Exception):
        reason = chunk.reason if isinstance(chunk, urllib.error.URLError) else chunk
        raise DownloadError(f"{url}: {reason or type(chunk).__name__}") from chunk
    return chunk


def _read(url: str, chunks: queue.SimpleQueue, abandoned: threading.Event) -> None:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "vae"})
        with urllib.request.urlopen(request, timeout=STALL_SECONDS) as response:
            while not abandoned.is_set() and (chunk := response.read1(1 << 16)):
                chunks.put(chunk)
        chunks.put(b"")
    except Exception as error:  # whatever it is, the waiting thread reports it
        chunks.put(error)
