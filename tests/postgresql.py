"""A PostgreSQL of the test's own, from Debian's package: made, started, and stopped also where a test fails."""

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest


def programs() -> Path | None:
    """The folder of initdb and pg_ctl."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "pg_ctl").exists()), None)


class Server:
    """`folder` holds the cluster and its socket."""

    def __init__(self, folder: Path, programs: Path):
        self._folder, self._programs = folder, programs
        # initdb refuses to run as root.
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def start(self) -> None:
        if self._as_user:
            shutil.chown(self._folder, "postgres")
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
        options = f"-F -c listen_addresses= -k {self._folder}"
        self._run("pg_ctl", "-D", data, "-o", options, "-l", str(self._folder / "log"), "-w", "start")

    def stop(self) -> None:
        if (self._folder / "data" / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"x{uuid.uuid4().hex}"
        self._run("createdb", "-h", str(self._folder), "-U", "postgres", name)
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._programs / program), *arguments]
        # Not through pipes: the server would keep them open.
        with (self._folder.parent / f"{self._folder.name}.out").open("a") as file:
            subprocess.run(command, check=True, stdout=file, stderr=file, cwd="/", timeout=60)


@pytest.fixture(scope="module")
def postgresql():
    pytest.importorskip("psycopg", reason="psycopg, PostgreSQL's driver, is not installed")
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed (no initdb on the PATH or in /usr/lib/postgresql)")
    # Not tmp_path, which is closed to the user that runs the server; and a socket's path must be short.
    home = Path(tempfile.mkdtemp(prefix="vae-"))
    home.chmod(0o755)
    (home / "pg").mkdir()
    server = Server(home / "pg", found)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)
