"""Measures Parlour and Synapse by the same scenarios, in turn, in one run of the machine.

`make compare` runs it. Settings come from the environment: COMPARE_SECONDS (each scenario, default
15), COMPARE_SCENARIOS (some of those below, separated by commas), COMPARE_BINARY (the parlour binary),
COMPARE_OUT (default target/compare).
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))

import postgres  # noqa: E402
from federation import Authority, Synapse, await_answer, free_port  # noqa: E402

# What is measured. `{seconds}` is how long; operations of some scenarios are counted instead.
SCENARIOS = {
    "send-1": "send --duration {seconds}s",
    "send-16": "send --senders 16 --duration {seconds}s",
    "send-100": "send --senders 100 --rooms 100 --duration {seconds}s",
    "open-loop": "send --senders 16 --rooms 16 --rate 10 --duration {seconds}s",
    "fanout": "fanout --receivers 200 --rate 1 --duration {seconds}s",
    "create": "create --users 4 --duration {seconds}s",
    "join-storm": "join-storm --users 200",
    "initial-sync": "initial-sync --duration {seconds}s",
    "incremental-sync": "incremental-sync --rooms 20 --duration {seconds}s",
    "paginate": "paginate --messages 1000 --duration {seconds}s",
    "idle": "idle --parked 1000 --duration {seconds}s",
    "mixed": "mixed --users 50 --speed 5 --duration {seconds}s",
}

PARLOUR = """
[server]
name = "localhost"
data_dir = "{data}"
# Rate limits off, and passwords that are cheap to check; nothing else differs.
test_mode = true

[[listeners]]
address = "127.0.0.1"
port = {port}
apis = ["client", "federation"]

[registration]
mode = "open"

[log]
level = "warn"

[federation]
enabled = false
"""


class Parlour:
    label = "Parlour"

    def __init__(self, directory, binary):
        directory.mkdir()
        port = free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", directory / "server.log"
        config = directory / "parlour.toml"
        config.write_text(PARLOUR.format(data=directory / "data", port=port))
        self.command = [str(binary), "serve", "--config", str(config)]
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        await_answer(self.process, f"{self.url}/_matrix/client/versions", self.log)

    def pids(self):
        return [self.process.pid]

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


class Compared(Synapse):
    """A Synapse without limits that logs as little as Parlour."""

    def __init__(self, directory, authority, database=None):
        self.label = "Synapse, PostgreSQL" if database else "Synapse, SQLite"
        self.database = database
        super().__init__(directory, authority)

    def settings(self, directory, secure, plain):
        settings = super().settings(directory, secure, plain)
        logging = pathlib.Path(settings["log_config"])
        logging.write_text(logging.read_text().replace("INFO", "WARNING"))
        unlimited = settings["rc_message"]
        settings |= {
            "bcrypt_rounds": 4,
            "rc_joins_per_room": unlimited,
            "rc_presence": {"per_user": unlimited},
            "rc_room_creation": unlimited,
        }
        if self.database:
            settings["database"] = self.database.settings()
        return settings

    def pids(self):
        return [self.process.pid] + (self.database.pids() if self.database else [])


def load(binary, *arguments):
    print("parlour load", *arguments, flush=True)
    return subprocess.run([str(binary), "load", *arguments], check=False).returncode


def measure(binary, server, names, seconds, out):
    """Runs the scenarios against a server that has nothing else to do. Whether all is well."""
    well = True
    for name in names:
        arguments = SCENARIOS[name].format(seconds=seconds).split()
        pids = [f"--server-pid={pid}" for pid in server.pids()]
        file = out / f"{name}.{server.label.split(',')[-1].strip().lower()}.jsonl"
        code = load(
            binary, *arguments, *pids, "--target", server.url, "--label", server.label,
            "--warm-up", "2s", "--json", str(file),
        )
        well &= code == 0
    return well & survives_a_kill(binary, server, out)


def survives_a_kill(binary, server, out):
    """SIGKILL while eight senders send: what was acknowledged is there after the next start."""
    manifest = out / "manifest.json"
    arguments = ["send", "--senders", "8", "--rooms", "4", "--duration", "10s", "--no-verify"]
    command = [str(binary), "load", *arguments, "--target", server.url, "--manifest", str(manifest)]
    sender = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(4)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    server.start()
    well = sender.wait() == 0 and load(binary, "verify", str(manifest)) == 0
    print(f"{server.label}: killed while it was written to:", "nothing lost" if well else "FAILED")
    return well


def main():
    binary = pathlib.Path(os.environ.get("COMPARE_BINARY", ROOT / "target/release/parlour")).resolve()
    out = pathlib.Path(os.environ.get("COMPARE_OUT", ROOT / "target/compare")).resolve()
    seconds = os.environ.get("COMPARE_SECONDS", "15")
    names = os.environ.get("COMPARE_SCENARIOS", ",".join(SCENARIOS)).split(",")
    unknown = set(names) - set(SCENARIOS)
    if unknown:
        sys.exit(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    # On the same disk as everything else: a temporary directory may be in memory.
    directory = pathlib.Path(tempfile.mkdtemp(dir=out))
    database = postgres.start(directory)
    authority = Authority(directory)
    servers = [Parlour(directory / "parlour", binary), Compared(directory / "synapse", authority)]
    if database:
        servers.append(Compared(directory / "synapse-postgres", authority, database))
    well = True
    try:
        for server in servers:
            server.start()
            try:
                well &= measure(binary, server, names, seconds, out)
            finally:
                server.stop()
    finally:
        if database:
            database.stop()
    shutil.rmtree(directory, ignore_errors=True)
    report(binary, names, out)
    sys.exit(0 if well else "something went wrong: see above")


def report(binary, names, out):
    files = [str(file) for name in names for file in sorted(out.glob(f"{name}.*.jsonl"))]
    command = [str(binary), "load", "report", *files, "--html", str(out / "report.html")]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (out / "report.txt").write_text(table)
    print(table)
    print(f"written to {out}: report.txt, report.html, and a file of JSON lines for each run")


if __name__ == "__main__":
    main()
