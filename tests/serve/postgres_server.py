"""A Postgres of one's own: made in a temporary folder, listening at 127.0.0.1 and a free port, with fsync on, gone at the end.

It is Debian's: /usr/lib/postgresql/*/bin, or what is on the path. Root starts it as another user, since Postgres refuses root.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

USERS = ("postgres", "nobody")
PASSWORD = "not%40secret"  # as it stands in a URL: not@secret


def programs():
    """The folder with initdb and postgres, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class PostgresServer:
    """Started when made. `url(name)` is that of a database, made if it is missing; `stop`, `start`, `kill` as one would think."""

    def __init__(self):
        self.bin = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="everlearn-postgres-"))
        self.user = None
        if os.geteuid() == 0:
            self.user = next(name for name in USERS if _known(name))
            shutil.chown(self.folder, self.user)
        self.data = self.folder / "data"
        self.port = free_port()
        self.process = None
        secret = self.folder / "secret"
        secret.write_text("not@secret\n")
        if self.user:
            shutil.chown(secret, self.user)
        self._run(
            "initdb", "-D", self.data, "-U", "everlearn", "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip
        self.start()

    def _as_user(self):
        if self.user is None:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _run(self, program, *arguments):
        done = subprocess.run(
            [self.bin / program, *map(str, arguments)], capture_output=True, text=True, cwd=self.folder, **self._as_user()
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        """Start the server, and wait until it answers."""
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    self.bin / "postgres", "-D", self.data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                    "-c", f"unix_socket_directories={self.folder}", "-c", "shared_buffers=16MB", "-c", "max_connections=60",
                ],
                stdout=log, stderr=log, cwd=self.folder, **self._as_user(),
            )  # fmt: skip
        end = time.monotonic() + 30
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "server.log").read_text()
            time.sleep(0.02)

    def answers(self):
        import psycopg

        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url()):
            return True
        return False

    def url(self, database="postgres", password=PASSWORD, user="everlearn"):
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql, database="postgres"):
        """Run one statement by itself, and give its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def stop(self, how="INT"):
        """INT: connections are ended and the server stops; QUIT: at once, as in a crash."""
        import signal

        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(getattr(signal, f"SIG{how}"))
            self.process.wait(30)

    def restart(self, how="INT"):
        self.stop(how)
        self.start()

    def close(self):
        self.stop("QUIT")
        shutil.rmtree(self.folder, ignore_errors=True)


def _known(name):
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


@pytest.fixture(scope="module")
def server():
    """One server for the tests of a module; they are skipped where Postgres is not installed."""
    if programs() is None:
        pytest.skip("Postgres is not installed here; apt-get install postgresql brings it")
    running = PostgresServer()
    yield running
    running.close()
