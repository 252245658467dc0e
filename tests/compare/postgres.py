"""A PostgreSQL of the comparison's own, if this machine has one."""

import os
import pathlib
import shutil
import subprocess
import time

from federation import free_port

# PostgreSQL refuses to run as root; packages of distributions bring this user.
USER = "postgres"


def start(directory):
    """A running server, or None if there is none to be had; then it says why."""
    try:
        import psycopg2  # noqa: F401, PLC0415
    except ImportError:
        return print("No PostgreSQL: psycopg2 is not installed.")
    config = shutil.which("pg_config")
    binaries = config and subprocess.run([config, "--bindir"], capture_output=True, text=True).stdout
    if not binaries or not (pathlib.Path(binaries.strip()) / "initdb").exists():
        return print("No PostgreSQL: there is no pg_config with an initdb beside it.")
    try:
        return Postgres(directory, pathlib.Path(binaries.strip()))
    except (OSError, subprocess.CalledProcessError) as error:
        return print(f"No PostgreSQL: {error}\n{getattr(error, 'stderr', '')}")


class Postgres:
    """A cluster with one database, on a port of this machine; it syncs to the disk as it does by default."""

    def __init__(self, directory, binaries):
        self.binaries, self.port = binaries, free_port()
        self.data = directory / "postgres"
        self.data.mkdir()
        self.who = {}
        if os.geteuid() == 0:
            directory.chmod(0o711)
            shutil.chown(self.data, USER, USER)
            self.who = {"user": USER, "group": USER, "extra_groups": []}
        self.run("initdb", "-D", self.data, "-U", "synapse", "-A", "trust", "-E", "UTF8", "--locale=C")
        command = [self.tool("postgres"), "-D", self.data, "-p", str(self.port), "-h", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "-k", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.who
        )
        self.await_ready()
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "synapse", "synapse")

    def tool(self, name):
        return str(self.binaries / name)

    def run(self, name, *arguments):
        command = [self.tool(name), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, text=True, cwd="/", **self.who)

    def await_ready(self):
        deadline = time.monotonic() + 30
        ready = [self.tool("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise OSError("it does not start")
            time.sleep(0.1)

    def settings(self):
        """Synapse's `database` section."""
        arguments = {"host": "127.0.0.1", "port": self.port, "user": "synapse", "dbname": "synapse"}
        return {"name": "psycopg2", "args": arguments | {"cp_min": 5, "cp_max": 10}}

    def pids(self):
        return [self.process.pid]

    def stop(self):
        self.process.terminate()
        self.process.wait()
