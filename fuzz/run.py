"""`python -m fuzz.run`: all targets, one after another, within a budget of executions and of time; prints a table.

What is found lies in `fuzz/found` afterwards, and the exit status is 1.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from fuzz.corpora import CORPUS, keep
from fuzz.targets import SHARES

FOUND = Path(__file__).with_name("found")
_LONG_INPUTS = 60


class Outcome(NamedTuple):
    """What came of one target.

    :ivar executions: how often it ran.
    :ivar seconds: how long that took.
    :ivar coverage: edges of the product's code that were reached.
    :ivar findings: files, or what was said.
    :ivar long: what became of its long inputs.
    """

    executions: int
    seconds: float
    coverage: int
    findings: list[str]
    long: str


def main() -> int:
    """Run what the arguments say."""
    arguments = _arguments()
    FOUND.mkdir(exist_ok=True)
    names = arguments.target or list(SHARES)
    whole = sum(SHARES[name] for name in names)
    outcomes: dict[str, Outcome] = {}
    for name in names:
        share = SHARES[name] / whole
        outcomes[name] = _run(
            name, max(int(arguments.runs * share), 1), max(int(arguments.seconds * share), 5), arguments
        )
        _print_row(name, outcomes[name])
    total = sum(one.executions for one in outcomes.values())
    findings = sum(len(one.findings) for one in outcomes.values())
    print(f"{total:,} executions, {findings} findings")
    if total < arguments.runs * 0.99 and not findings:
        print(f"The time was up before {arguments.runs:,} executions: --seconds gives more of it.")
    return 1 if findings else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="executions, over all targets")
    parser.add_argument("--seconds", type=int, default=300, help="time for them, over all targets")
    parser.add_argument("--seed", type=int, default=time.time_ns() % (1 << 31), help="of chance")
    parser.add_argument("--work", type=Path, help="a directory where what is found interesting stays between runs")
    parser.add_argument("--keep", action="store_true", help="take the least of what was interesting into the corpora")
    parser.add_argument("target", nargs="*", choices=[*SHARES, []], help="which; all of them when none is named")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    return arguments


def _run(name: str, runs: int, seconds: int, arguments: argparse.Namespace) -> Outcome:
    # Read from the module's text: to import a target here would import the whole product, not instrumented.
    longest = re.search(r"^LONGEST = (\d+)$", Path(__file__).with_name(f"{name}.py").read_text(), re.MULTILINE)
    assert longest is not None
    # In memory, where there is such a place: the settings are read from a file each time.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as scratch:
        os.environ["TMPDIR"] = scratch
        work = (arguments.work or Path(scratch)) / name
        work.mkdir(parents=True, exist_ok=True)
        words = Path(scratch) / "words"
        made = _python("fuzz.words", name)
        words.write_text(made.stdout)
        before = set(FOUND.iterdir())
        began = time.monotonic()
        child = _python(
            "fuzz.one",
            name,
            f"-runs={runs}",
            f"-max_total_time={seconds}",
            f"-max_len={longest[1]}",
            f"-dict={words}",
            f"-seed={arguments.seed or 1}",
            f"-artifact_prefix={FOUND}/{name}-",
            "-timeout=60",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            str(work),
            str(CORPUS / name),
        )
        took = time.monotonic() - began
        executed = re.search(r"stat::number_of_executed_units: (\d+)", child.stderr)
        coverage = re.findall(r" cov: (\d+) ", child.stderr)
        findings = [str(path) for path in sorted(set(FOUND.iterdir()) - before) if path.name.startswith(f"{name}-")]
        if child.returncode != 0:
            print("\n".join(child.stderr.splitlines()[-40:]), file=sys.stderr)
            findings = findings or [f"status {child.returncode}"]
        long = _python("fuzz.long_inputs", name, str(_LONG_INPUTS), str(arguments.seed))
        if long.returncode != 0:
            print("\n".join((long.stderr + long.stdout).splitlines()[-20:]), file=sys.stderr)
            findings.append("a long input")
        if arguments.keep and not findings:
            merged = Path(scratch) / "merged"
            merged.mkdir()
            _python("fuzz.one", name, "-merge=1", f"-max_len={longest[1]}", str(merged), str(CORPUS / name), str(work))
            keep(name, merged.iterdir())
    return Outcome(
        int(executed[1]) if executed else 0,
        took,
        int(coverage[-1]) if coverage else 0,
        findings,
        long.stdout.strip() if long.returncode == 0 else "too slow, or wrong",
    )


def _python(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=24 * 3600,
    )


def _print_row(name: str, outcome: Outcome) -> None:
    rate = outcome.executions / max(outcome.seconds, 0.001)
    print(
        f"{name:18} {outcome.executions:>11,} executions  {rate:>8,.0f}/s  {outcome.coverage:>5} edges  "
        f"long: {outcome.long:32} findings: {', '.join(outcome.findings) or 'none'}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
