"""Says which operations of the client-server API the last test run has seen, and how."""

import collections
import csv
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    seen = collections.defaultdict(collections.Counter)
    for file in (ROOT / "target" / "spec-coverage").glob("*.tsv"):
        for line in file.read_text().splitlines():
            method, path, status, count = line.split("\t")
            seen[method, path][status] += int(count)
    with (ROOT / "tests" / "spec" / "endpoints.tsv").open() as table:
        rows = [row for row in csv.DictReader(table, delimiter="\t") if row["api"] == "client-server"]
    for row in sorted(rows, key=lambda row: (row["importance"], row["path"], row["method"])):
        counts = seen.get((row["method"], row["path"]), {})
        statuses = " ".join(f"{status}:{count}" for status, count in sorted(counts.items())) or "-"
        print(f"{row['importance']:7} {row['method']:6} {row['path']}  {statuses}")
    good = sum(any(status.startswith("2") for status in counts) for counts in seen.values())
    print(f"{good} of {len(rows)} operations answered with success, every answer valid")


if __name__ == "__main__":
    main()
