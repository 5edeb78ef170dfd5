"""How long `tokenspace --help` takes, as a whole process, beside Python's own start.

python benchmarks/bench_start.py
"""

import statistics
import subprocess
import sys
import time

REPETITIONS = 11
COMMANDS = {
    "`tokenspace --help`": [sys.executable, "-m", "tokenspace", "--help"],
    "`python -c pass`": [sys.executable, "-c", "pass"],
}


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    runs: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPETITIONS):
        for name, command in COMMANDS.items():
            runs[name].append(seconds(command))
    print("| command | median, s | least, s |")
    print("|---|---|---|")
    for name, taken in runs.items():
        print(f"| {name} | {statistics.median(taken):.3f} | {min(taken):.3f} |")


if __name__ == "__main__":
    main()
