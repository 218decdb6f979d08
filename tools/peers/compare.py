"""Times this project's binary beside PyTorch on the CPU, alternately and in one run.

    python tools/peers/compare.py --setup     once: makes tools/peers/.venv with PyTorch
    cargo build --release
    python tools/peers/compare.py             training and evaluation, whole steps
    python tools/peers/compare.py --ops       the convolutions one by one

Each measurement is a process of its own with the same number of threads. A round runs every
contender once on every workload, so that whatever else the machine does falls on all alike; ratios
are taken within a round and the median over the rounds counts.

PyTorch runs channels last, in eager mode, with glibc's malloc as it is and as tuned by
GLIBC_TUNABLES to keep freed memory in huge pages instead of handing it back to the kernel, which
costs eager PyTorch page faults in every step. Evaluation is also run with batch norm folded into
the convolutions. Needs nothing but Python itself; PyTorch lives in the environment beside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENT = HERE / ".venv"
OURS = "ours"
BUSY_LOAD_AVERAGE = 0.5  # with as many OpenMP threads as cores, any other work stalls PyTorch
TUNED_SUFFIX = ", tuned malloc"
TUNED_MALLOC = (
    "glibc.malloc.hugetlb=1"  # ask for transparent huge pages
    ":glibc.malloc.mmap_max=0"  # take large blocks from the heap, where they can be used again
    ":glibc.malloc.trim_threshold=17179869184"  # do not give the top of the heap back
    ":glibc.malloc.top_pad=1073741824"  # grow it by 1 GiB at a time
)


class NoMeasurement(Exception):
    """A process failed or printed no result; the message says which and why."""


@dataclass(frozen=True)
class Workload:
    mode: str
    dtype: str
    image_size: int

    def __str__(self) -> str:
        return f"{self.mode} {self.dtype} {self.image_size} px"


@dataclass(frozen=True)
class Contender:
    """A program to time: its name and command, and whether its malloc is tuned."""

    name: str
    command: list[str]
    tuned: bool = False
    modes: tuple[str, ...] = ("train", "eval")

    def run(self, arguments: list[str]) -> dict:
        """Runs the command and returns the JSON object that it prints last."""
        environment = os.environ | ({"GLIBC_TUNABLES": TUNED_MALLOC} if self.tuned else {})
        command = self.command + arguments
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise NoMeasurement(f"{self.name}: cannot start {command[0]}: {error}") from error
        if done.returncode != 0:
            reason = done.stderr.strip()[-500:] or "no message"
            raise NoMeasurement(f"{self.name}: exit code {done.returncode}: {reason}")
        try:
            return json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, json.JSONDecodeError) as error:
            raise NoMeasurement(f"{self.name}: no JSON object on stdout: {error}") from error


@dataclass
class Samples:
    """The results by round, or why there are none. A failed contender is not run again."""

    results: list[dict] = field(default_factory=list)
    failure: str | None = None

    def measure(self, contender: Contender, arguments: list[str]) -> None:
        if self.failure:
            return
        try:
            self.results.append(contender.run(arguments))
        except NoMeasurement as error:
            self.failure = str(error)
            self.results = []
            log(str(error))

    def values(self, key: str) -> list[float]:
        return [result[key] for result in self.results]

    def median(self, key: str) -> float:
        return statistics.median(self.values(key))


Table = dict[str, Samples]


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def set_up() -> None:
    """Makes the environment beside this file and installs what PyTorch's side needs."""
    venv.create(ENVIRONMENT, with_pip=True)
    requirements = str(HERE / "requirements.txt")
    python = str(ENVIRONMENT / "bin/python")
    subprocess.run([python, "-m", "pip", "install", "-r", requirements], check=True)


def contenders(options: argparse.Namespace) -> list[Contender]:
    torch_step = [str(options.python), str(HERE / "torch_step.py")]
    torch_step += ["--warmup", str(options.warmup), "--steps", str(options.steps)]
    found = [Contender(OURS, [str(options.ours), "bench", "model", "--json"])]
    for tuned in (False, True):
        suffix = TUNED_SUFFIX if tuned else ""
        found.append(Contender(f"torch eager{suffix}", torch_step, tuned))
        folded = [*torch_step, "--fold"]
        found.append(Contender(f"torch eager folded{suffix}", folded, tuned, ("eval",)))
        if options.compiled:
            compiled = [*torch_step, "--compile"]
            found.append(Contender(f"torch compiled{suffix}", compiled, tuned))
            folded = [*compiled, "--fold"]
            found.append(Contender(f"torch compiled folded{suffix}", folded, tuned, ("eval",)))
        if options.public:
            public = [*torch_step, "--network", "public"]
            found.append(Contender(f"torch pretrainedmodels{suffix}", public, tuned))
    return found


def shared_arguments(dtype: str, image_size: int, options: argparse.Namespace) -> list[str]:
    values = {
        "--dtype": dtype,
        "--image-size": image_size,
        "--batch-size": options.batch_size,
        "--threads": options.threads,
    }
    return [str(word) for pair in values.items() for word in pair]


def compare_steps(options: argparse.Namespace) -> dict[Workload, Table]:
    """Runs the rounds: every contender once per round and workload."""
    workloads = [
        Workload(mode, dtype, size)
        for mode in options.modes
        for dtype in options.dtypes
        for size in options.image_sizes
    ]
    tables: dict[Workload, Table] = {workload: {} for workload in workloads}
    for round_number in range(1, options.rounds + 1):
        for workload, table in tables.items():
            log(f"round {round_number} of {options.rounds}: {workload}")
            arguments = ["--mode", workload.mode]
            arguments += shared_arguments(workload.dtype, workload.image_size, options)
            for contender in contenders(options):
                if workload.mode in contender.modes:
                    table.setdefault(contender.name, Samples()).measure(contender, arguments)
    return tables


def fastest(table: Table, *, tuned: bool) -> Samples:
    """The fastest of PyTorch's contenders with malloc tuned or not; empty if all have failed."""
    theirs = [
        samples
        for name, samples in table.items()
        if samples.results and name != OURS and name.endswith(TUNED_SUFFIX) == tuned
    ]
    return max(theirs, key=lambda s: s.median("images_per_second"), default=Samples())


def ratio(ours: Samples, theirs: Samples) -> str:
    """Our speed over theirs, taken round by round: the median."""
    if not ours.results or not theirs.results:
        return "-"
    speeds = (samples.values("images_per_second") for samples in (ours, theirs))
    return f"{statistics.median(mine / other for mine, other in zip(*speeds, strict=True)):.2f}"


def speed(samples: Samples) -> str:
    return f"{samples.median('images_per_second'):.1f}" if samples.results else "-"


def memory(samples: Samples) -> str:
    return f"{samples.median('peak_rss_bytes') / 2**20:.0f}" if samples.results else "-"


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def report_steps(tables: dict[Workload, Table]) -> str:
    """Two Markdown tables: ours against PyTorch's fastest, and every contender."""
    summary = [
        "| workload | ours, img/s | PyTorch, img/s | with tuned malloc | ratio | ratio, tuned |"
        " ours, MiB | PyTorch, MiB | with tuned malloc, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    details = [
        "| workload | contender | img/s | lowest to highest | step, s | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for workload, table in tables.items():
        ours = table[OURS]
        plain, tuned = fastest(table, tuned=False), fastest(table, tuned=True)
        speeds = (speed(samples) for samples in (ours, plain, tuned))
        memories = (memory(samples) for samples in (ours, plain, tuned))
        summary.append(row(workload, *speeds, ratio(ours, plain), ratio(ours, tuned), *memories))
        for name, samples in table.items():
            if samples.failure:
                details.append(row(workload, name, "not measured", "-", "-", "-"))
                continue
            speeds_of_rounds = samples.values("images_per_second")
            spread = f"{min(speeds_of_rounds):.1f} to {max(speeds_of_rounds):.1f}"
            seconds = f"{samples.median('step_seconds_median'):.4f}"
            details.append(row(workload, name, speed(samples), spread, seconds, memory(samples)))
    return "\n".join([*summary, "", *details])


def compare_ops(options: argparse.Namespace) -> dict[str, Table]:
    """Every convolution shape of the network, in rounds; malloc is tuned for PyTorch, because page
    faults would otherwise be taken for slow kernels."""
    torch_ops = [str(options.python), str(HERE / "torch_ops.py")]
    both = [
        Contender(OURS, [str(options.ours), "bench", "ops", "--json"]),
        Contender("torch", torch_ops, tuned=True),
    ]
    tables: dict[str, Table] = {}
    for round_number in range(1, options.rounds + 1):
        for dtype in options.dtypes:
            for size in options.image_sizes:
                log(f"round {round_number} of {options.rounds}: operations, {dtype} {size} px")
                table = tables.setdefault(f"{dtype} {size} px", {})
                arguments = shared_arguments(dtype, size, options)
                for contender in both:
                    table.setdefault(contender.name, Samples()).measure(contender, arguments)
    return tables


def op_medians(samples: Samples, key: str) -> dict[tuple[str, str], float]:
    """The median over the rounds by operation and direction."""
    values: dict[tuple[str, str], list[float]] = {}
    for result in samples.results:
        for op in result["ops"]:
            values.setdefault((op["name"], op["direction"]), []).append(op[key])
    return {op: statistics.median(of_op) for op, of_op in values.items()}


def report_ops(tables: dict[str, Table]) -> str:
    lines = []
    for title, table in tables.items():
        ours, theirs = (op_medians(table[name], "gflops") for name in (OURS, "torch"))
        lines += [f"## {title}, GFLOP/s", "", "| operation | direction | ours | PyTorch | ratio |"]
        lines.append("|---|---|---|---|---|")
        for op, other in theirs.items():
            mine = ours.get(op)
            if mine is None:
                lines.append(row(*op, "-", f"{other:.0f}", "-"))
            else:
                lines.append(row(*op, f"{mine:.0f}", f"{other:.0f}", f"{mine / other:.2f}"))
        if ours and not ours.keys() & theirs.keys():
            lines.append("\nNo operation of ours bears a name of PyTorch's side.")
        lines.append("")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    processor = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    return {
        "processor": processor,
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "load_average_at_start": os.getloadavg()[0],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--setup", action="store_true", help="make the environment, then end")
    parser.add_argument("--ops", action="store_true", help="time the convolutions one by one")
    parser.add_argument("--modes", nargs="+", choices=["train", "eval"], default=["train", "eval"])
    parser.add_argument("--dtypes", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"])
    parser.add_argument("--image-sizes", nargs="+", type=int, default=[224, 64], metavar="PX")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=cores, help="of both sides: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=2, help="PyTorch's untimed steps")
    parser.add_argument("--steps", type=int, default=5, help="PyTorch's timed steps per round")
    parser.add_argument("--compiled", action="store_true", help="also time torch.compile")
    parser.add_argument(
        "--public",
        action="store_true",
        help="also time pretrainedmodels.bninception, wider by 64 channels; 224 px only",
    )
    parser.add_argument("--ours", type=Path, default=ROOT / "target/release/bninception")
    parser.add_argument("--python", type=Path, default=ENVIRONMENT / "bin/python")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "target/peers", help="folder: %(default)s"
    )
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.setup:
        set_up()
        return
    if not options.python.exists():
        sys.exit(f"no Python with PyTorch at {options.python}: run with --setup first")
    facts = machine()
    if facts["load_average_at_start"] > BUSY_LOAD_AVERAGE:
        log("This machine is busy: the figures, the ratios too, are not fit to quote.")
    if options.ops:
        name, op_tables = "ops", compare_ops(options)
        report, tables = report_ops(op_tables), op_tables
    else:
        name, step_tables = "steps", compare_steps(options)
        report = report_steps(step_tables)
        tables = {str(workload): table for workload, table in step_tables.items()}
    report = (
        f"{facts['processor']}, {options.threads} threads, batch {options.batch_size}, "
        f"median of {options.rounds} rounds, load average {facts['load_average_at_start']:.1f} at "
        f"the start\n\n{report}\n"
    )
    results = {
        "machine": facts,
        "options": {key: str(value) for key, value in vars(options).items()},
        "results": {
            title: {
                contender: {"failure": samples.failure, "rounds": samples.results}
                for contender, samples in table.items()
            }
            for title, table in tables.items()
        },
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.output / f"{name}.md").write_text(report)
    print(report, end="")
    failures = {s.failure for table in tables.values() for s in table.values() if s.failure}
    if failures:
        log("Not measured:\n" + "\n".join(sorted(failures)))
        if any(failure.startswith(f"{OURS}:") for failure in failures):
            log("Ours needs `cargo build --release` and a binary that offers `bench ... --json`.")
        sys.exit(1)


if __name__ == "__main__":
    main()
