"""Says what the last test run has seen of the client-server API, test by test, and what it hasn't.

An operation is covered when tests have seen a success and each error status that its definition
lists; a line of the checklist when a comment `Checklist 3.6, 4.1` stands above a test. What is out
of scope, and why, stands in `scope.tsv`. With `--strict` a gap is a failure, and nothing else is said.
"""

import collections
import contextlib
import csv
import io
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPEC = ROOT / "tests" / "spec"
SHOWN = 3  # tests for each status


def table(name):
    with (SPEC / name).open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def seen_by():
    """Tests by method, path and status. Garbage proves that nothing breaks, and nothing else."""
    seen = collections.defaultdict(lambda: collections.defaultdict(set))
    for file in (ROOT / "target" / "spec-coverage").glob("*.tsv"):
        for line in file.read_text().splitlines():
            method, path, status, test, _ = line.split("\t")
            if "::garbage::" not in test:
                seen[method, path][status].add(test)
    return seen


class Scope:
    """What nobody expects yet, with the reason."""

    def __init__(self):
        self.rows = table("scope.tsv")

    def why_not_operation(self, method, path):
        for row in self.of("operation"):
            verb, prefix = row["what"].split(" ")
            if verb in ("*", method) and path.startswith(prefix):
                return row["why"]

    def why_not_status(self, method, path, status):
        wanted = f"{method} {path} {status}"
        return next((row["why"] for row in self.of("status") if row["what"] == wanted), None)

    def why_not_line(self, number):
        for row in self.of("checklist"):
            if number == row["what"] or row["what"].endswith(".") and number.startswith(row["what"]):
                return row["why"]

    def of(self, kind):
        return (row for row in self.rows if row["kind"] == kind)


def operations(scope):
    """Prints each operation in scope; gives what is missing."""
    document = json.loads((SPEC / "client-server.json").read_text())["paths"]
    seen, gaps, left_out = seen_by(), [], []
    rows = {(row["method"], row["path"]): row for row in table("endpoints.tsv") if row["api"] == "client-server"}
    order = {"core": 0, "modern": 1, "rare": 2}
    for (method, path), row in sorted(rows.items(), key=lambda item: (order[item[1]["importance"]], item[0][1])):
        name = f"{method} {path}"
        if why := scope.why_not_operation(method, path):
            left_out.append(f"{name}: {why}")
            continue
        print(f"{row['importance']:7}{name}")
        for status, tests in sorted(seen[method, path].items()):
            tests = sorted(tests)
            more = f" and {len(tests) - SHOWN} more" if len(tests) > SHOWN else ""
            print(f"         {status}  {', '.join(tests[:SHOWN])}{more}")
        for status in sorted(document[path][method.lower()]["responses"]):
            if status in seen[method, path]:
                continue
            if why := scope.why_not_status(method, path, status):
                left_out.append(f"{name} {status}: {why}")
            else:
                print(f"         {status}  no test")
                gaps.append(f"{name} {status}")
    return gaps, left_out


def checklist(scope):
    """The lines about what clients and servers see that no test names."""
    named = set()
    for file in [*ROOT.rglob("*.rs"), *ROOT.glob("tests/python/*.py"), *ROOT.glob("tests/js/*.mjs")]:
        if "target" not in file.relative_to(ROOT).parts:
            for listed in re.findall(r"(?://|#) Checklist ([\d., ]+)", file.read_text()):
                named.update(re.findall(r"\d+\.\d+", listed))
    gaps, left_out, about = [], [], ""
    for line in (SPEC / "checklist.md").read_text().splitlines():
        if not (found := re.match(r"- (\d+\.\d+) (.*)", line)):
            continue
        number, text = found.groups()
        about = about if "Same section" in text else text
        if not re.search(r"\b(CS|SS|RV|AP)\b", about) or number in named:
            continue
        if why := scope.why_not_line(number):
            left_out.append(f"Checklist {number}: {why}")
        else:
            gaps.append(f"Checklist {number}: {text[:90]}")
    return gaps, left_out


def main():
    strict, scope = "--strict" in sys.argv, Scope()
    with contextlib.redirect_stdout(io.StringIO() if strict else sys.stdout):
        gaps, left_out = operations(scope)
        line_gaps, line_left_out = checklist(scope)
        print("\nOut of scope:", *left_out, *line_left_out, sep="\n  ")
    print("\nWithout a test:", *(gaps + line_gaps or ["nothing"]), sep="\n  ")
    print(f"\n{len(gaps)} statuses and {len(line_gaps)} lines of the checklist without a test; every answer valid")
    return 1 if strict and gaps + line_gaps else 0


if __name__ == "__main__":
    sys.exit(main())
