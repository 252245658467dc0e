"""Has the benchmark of what other servers send (`benches/federation.rs`) measure a Synapse.

Run with the Python of the tests: `target/venv/bin/python tests/python/bench_synapse.py`.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import yaml

from federation import Authority, Synapse

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        synapse = Synapse(directory / "synapse", Authority(directory))
        # The benchmark signs its certificate by itself.
        settings = yaml.safe_load(synapse.config.read_text())
        settings |= {"federation_verify_certificates": False, "presence": {"enabled": False}}
        synapse.config.write_text(yaml.safe_dump(settings))
        synapse.start()
        try:
            env = os.environ | {
                "OTHER_NAME": synapse.name,
                "OTHER_ADDRESS": synapse.url.removeprefix("http://"),
                "OTHER_PID": str(synapse.process.pid),
            }
            command = os.environ.get("BENCH", "cargo bench --workspace --locked --bench federation")
            return subprocess.run(command.split(), cwd=ROOT, env=env, check=False).returncode
        finally:
            synapse.stop()


if __name__ == "__main__":
    sys.exit(main())
