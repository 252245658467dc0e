"""Where the server's CPU time goes under load, as an SVG.

`make flamegraph` runs it. Settings come from the environment: FLAMEGRAPH_LOAD (what `parlour load` is
to do, default "send --senders 16 --duration 15s"), FLAMEGRAPH_BINARY (the parlour binary),
FLAMEGRAPH_OUT (default target/flamegraph.svg). Tools of inferno are looked for in target/tools.
"""

import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# How often a second it is looked where each thread is; not a round number, so as not to march in
# step with anything.
FREQUENCY = 499

# Bytes of each stack that are kept: as much as perf allows, for stacks of futures are deep.
STACK = 32_768

SECRET = "for the length of a profile"

CONFIG = """
[server]
name = "localhost"
data_dir = "{data}"

[[listeners]]
address = "127.0.0.1"
port = {port}
apis = ["client", "admin"]

[registration]
shared_secret = "{secret}"

[federation]
enabled = false

[log]
level = "warn"
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def await_listener(server, port):
    """Waits until the server has opened its port."""
    while server.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
    sys.exit("the server ended; it has said why")


def record(binary, home, load):
    """Puts load on a server, and gives what perf has recorded of it."""
    port = free_port()
    config = home / "parlour.toml"
    config.write_text(CONFIG.format(data=home / "data", port=port, secret=SECRET))
    base = f"http://127.0.0.1:{port}"
    samples = home / "perf.data"
    server = subprocess.Popen([binary, "serve", "--test-mode", "--config", config])
    try:
        await_listener(server, port)
        perf = subprocess.Popen(
            ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", str(FREQUENCY)]
            + ["--call-graph", f"dwarf,{STACK}", "--pid", str(server.pid), "--output", samples]
        )
        generator = [binary, "load", *shlex.split(load), "--target", base]
        done = subprocess.run([*generator, "--bulk", "--shared-secret", SECRET], check=False)
        perf.send_signal(signal.SIGINT)
        perf.wait()
    finally:
        server.terminate()
        server.wait()
    if done.returncode != 0:
        sys.exit("the load did not end well, so neither would a picture of it")
    if not samples.exists():
        sys.exit("perf has recorded nothing; may you? sysctl kernel.perf_event_paranoid=1")
    return samples


def draw(samples, title, out):
    """Folds the stacks and draws them."""
    tools = ROOT / "target" / "tools" / "bin"
    out.parent.mkdir(parents=True, exist_ok=True)
    read = ["perf", "script", "--no-inline", "--input", samples]
    picture = [tools / "inferno-flamegraph", "--title", title]
    with open(out, "wb") as svg:
        script = subprocess.Popen(read, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        folding = [tools / "inferno-collapse-perf"]
        fold = subprocess.Popen(folding, stdin=script.stdout, stdout=subprocess.PIPE)
        subprocess.run(picture, stdin=fold.stdout, stdout=svg, check=True)


def main():
    binary = os.environ.get("FLAMEGRAPH_BINARY", str(ROOT / "target" / "release" / "parlour"))
    load = os.environ.get("FLAMEGRAPH_LOAD", "send --senders 16 --duration 15s")
    out = pathlib.Path(os.environ.get("FLAMEGRAPH_OUT", ROOT / "target" / "flamegraph.svg"))
    with tempfile.TemporaryDirectory() as home:
        samples = record(binary, pathlib.Path(home), load)
        draw(samples, f"parlour load {load}", out)
    print(out)


if __name__ == "__main__":
    main()
