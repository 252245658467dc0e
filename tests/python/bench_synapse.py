"""Measures what other servers send, on Parlour and on a Synapse, one after the other, in one run.

`make bench-federation` runs it: `benches/federation.rs`, first with a Parlour that it starts, then with
a Synapse that is started here; then one table of both, and joins of a large room by both (`bench_join.py`).
EVENTS says how many events each scenario has (default 3000; Synapse takes minutes), BENCH and
BENCH_PARLOUR are others than what cargo has built, BENCH_OUT is where the lines of JSON go (default
target/bench-federation).
"""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import bench_join
from federation import Authority, Synapse

ROOT = pathlib.Path(__file__).resolve().parents[2]
EVENTS = "3000"
BUILD = "cargo bench --workspace --locked --bench federation --no-run --message-format=json"


def built():
    """The benchmark and the server that it measures; cargo makes what isn't there, and says where it is."""
    lines = subprocess.run(BUILD.split(), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in lines.stdout.splitlines()]
    made = {one["target"]["name"]: one["executable"] for one in messages if one.get("executable")}
    return [made["federation"]], made["parlour"]


def measure(name, command, out, env):
    """The scenarios' results, by name."""
    file = out / f"{name.lower()}.jsonl"
    file.unlink(missing_ok=True)
    print(f"\n{name}", flush=True)
    env = {"EVENTS": EVENTS} | os.environ | {"BENCH_JSON": str(file)} | env
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    results = [json.loads(line) for line in file.read_text().splitlines()]
    return {result["scenario"]: result for result in results}


def of_synapse(command, out):
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        synapse = Synapse(directory / "synapse", Authority(directory))
        # The benchmark signs its certificate by itself. The log's level is Parlour's: it costs, too.
        synapse.configure(
            "WARNING", federation_verify_certificates=False, presence={"enabled": False}
        )
        synapse.start()
        try:
            env = {
                "OTHER_NAME": synapse.name,
                "OTHER_ADDRESS": synapse.url.removeprefix("http://"),
                "OTHER_PID": str(synapse.process.pid),
            }
            return measure("Synapse", command, out, env)
        finally:
            synapse.stop()


def table(parlour, synapse):
    head = "scenario", "Parlour", "Synapse", "CPU per event", "", "ratio"
    rows = [head, ("", "events/s", "events/s", "Parlour", "Synapse", "")]
    for name, ours in parlour.items():
        theirs = synapse[name]
        rows.append((
            name,
            f"{ours['per_second']:,.0f}",
            f"{theirs['per_second']:,.0f}",
            f"{ours['cpu_us']:,.0f} us",
            f"{theirs['cpu_us']:,.0f} us",
            f"{theirs['cpu_us'] / max(ours['cpu_us'], 0.1):,.1f} times less",
        ))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(map(str.rjust, row, widths)).rstrip() for row in rows]
    lines += ["", "Where the time of an event goes inside Parlour, in us (parlour_stage_seconds;"]
    lines += ["time and not CPU: stages wait, and some serve several events at once):"]
    for name, ours in parlour.items():
        spent = sorted(ours["stages_us"].items(), key=lambda stage: -stage[1])
        lines.append(f"{name}: " + ", ".join(f"{stage} {us:.0f}" for stage, us in spent))
    return "\n".join(lines) + "\n"


def main():
    out = pathlib.Path(os.environ.get("BENCH_OUT", ROOT / "target" / "bench-federation"))
    out.mkdir(parents=True, exist_ok=True)
    command, binary = shlex.split(os.environ.get("BENCH", "")), os.environ.get("BENCH_PARLOUR")
    if not (command and binary):
        command, binary = built()
    told = table(measure("Parlour", command, out, {}), of_synapse(command, out))
    told += f"\n{bench_join.run(binary)}"
    (out / "report.txt").write_text(told)
    print(f"\n{told}\nIn {out / 'report.txt'}.")


if __name__ == "__main__":
    sys.exit(main())
