"""A model of a training step over many ranks: how much of the time is left for computing.

    python tools/scale/model.py                               the table of efficiencies
    python tools/scale/model.py --local-bench local.json      with measured times of exchanges
    python tools/scale/model.py --compute 64=0.30 --ranks-per-host 4 --check 2=0.33 4=0.38

Every rank computes on images of its own, so a perfect network leaves the time of a step as it is on
one rank. Efficiency is that time over the time of the step with the exchange.

The exchange adds up the gradients in buckets. Each rank sends a segment of the bucket to every other
rank, adds what it gets in the order of ranks, and sends its sums to every other rank. With N ranks
that is 2 (N - 1) messages and 2 (N - 1) / N times the bytes for each rank. Ranks of one host share
its network card. A bucket travels while the backward pass goes on; the last one cannot, because its
gradients are the last to be ready.

What the model leaves out: ranks that are slower than others, other traffic, congestion inside the
network, and the time that a core spends on messages while it should compute. It takes messages one
after the other, which is too slow where a library sends several at once. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

GIGABIT = 1e9 / 8  # bytes a second
LINKS = (1, 10, 25, 100)  # Gbit/s
RANKS = (2, 4, 8, 16, 32, 64, 128, 256)

# Seconds of a step of 32 images at each size: f32, 2 threads of Zen 4 (docs/speed.md).
COMPUTE = {224: 1.33, 64: 0.161}


@dataclass(frozen=True)
class Wire:
    """How messages travel: seconds for the smallest one, and bytes a second of one rank."""

    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Settings:
    """What a step does and where it runs. Bytes, seconds, and bytes a second."""

    gradient_bytes: float = 45e6  # 11,194,984 values of 4 bytes: 1,000 classes
    bucket_bytes: float = 4 * 2**20
    backward: float = 2 / 3  # part of the computing that is the backward pass
    hideable: float = 0.9  # part of the backward pass that the exchange can go on beside
    overlap: bool = True
    ranks_per_host: int = 1
    network_latency: float = 30e-6
    network_bandwidth: float = math.inf  # of the sender's core; the card's comes beside it
    local_latency: float = 5e-6
    local_bandwidth: float = 1e9
    usable: float = 0.9  # part of a card's rate that is left for our bytes
    add_rate: float = 10e9  # received bytes that a rank adds up in a second

    @property
    def network(self) -> Wire:
        return Wire(self.network_latency, self.network_bandwidth)

    @property
    def local(self) -> Wire:
        return Wire(self.local_latency, self.local_bandwidth)


def bucket_seconds(settings: Settings, ranks: int, size: float, link: float) -> float:
    """The time of the exchange of one bucket, if hosts have cards of `link` bytes a second."""
    beside = min(settings.ranks_per_host, ranks)  # ranks of a host
    card = settings.usable * link / beside
    network = replace(settings.network, bandwidth=min(card, settings.network.bandwidth))
    seconds = 0.0
    for wire, others in ((settings.local, beside - 1), (network, ranks - beside)):
        if others:
            seconds += 2 * others * (wire.latency + size / ranks / wire.bandwidth)
    return seconds + (size / settings.add_rate if ranks > 1 else 0.0)


def buckets(settings: Settings) -> list[float]:
    """Bytes of the buckets in the order in which they are sent; the last may be smaller."""
    n = math.ceil(settings.gradient_bytes / settings.bucket_bytes)
    rest = settings.gradient_bytes - (n - 1) * settings.bucket_bytes
    return [settings.bucket_bytes] * (n - 1) + [rest] if n else []


def visible_seconds(settings: Settings, compute: float, ranks: int, link: float) -> float:
    """What the exchange adds to a step that computes for `compute` seconds."""
    times = [bucket_seconds(settings, ranks, size, link) for size in buckets(settings)]
    if not times:
        return 0.0
    window = compute * settings.backward * settings.hideable if settings.overlap else 0.0
    return max(sum(times) - window, times[-1])


def step_seconds(settings: Settings, compute: float, ranks: int, link: float) -> float:
    return compute + visible_seconds(settings, compute, ranks, link)


def efficiency(settings: Settings, compute: float, ranks: int, link: float) -> float:
    step = step_seconds(settings, compute, ranks, link)
    return compute / step if step else 1.0


def sum_points(text: str) -> tuple[int, list[tuple[float, float]]]:
    """Ranks, and bytes with seconds, of the sums that `bninception bench collective --json` timed."""
    found = json.loads(text)
    rows = [row for row in found["calls"] if row["call"] == "sum"]
    return found["ranks"], [(row["bytes"], row["seconds_median"]) for row in rows]


def fit(
    points: list[tuple[float, float]], ranks: int, bucket_bytes: float, add_rate: float
) -> Wire:
    """The wire over which sums of `ranks` ranks take these times.

    The smallest sum gives the latency and the one nearest to a bucket the bandwidth, which depends
    on the size: small sums stay in a core's cache.
    """
    small = min(points, default=(0.0, 0.0))
    bucket = min(points, default=small, key=lambda p: abs(math.log(max(p[0], 1) / bucket_bytes)))
    if ranks < 2 or small[0] == bucket[0]:
        raise ValueError("sums of two sizes over two ranks at least are needed")
    slope = (bucket[1] - small[1]) / (bucket[0] - small[0])
    per_byte = slope - 1 / add_rate
    if per_byte <= 0:
        raise ValueError("larger sums take no longer: no bandwidth follows from these times")
    latency = max(small[1] - slope * small[0], 0.0) / (2 * (ranks - 1))
    return Wire(latency, 2 * (ranks - 1) / ranks / per_byte)


def table(settings: Settings, compute: float, links: list[float], ranks: list[int]) -> str:
    head = "| ranks | " + " | ".join(f"{link:g} Gbit/s" for link in links) + " |"
    lines = [head, "|---|" + "---|" * len(links)]
    for n in ranks:
        values = (efficiency(settings, compute, n, link * GIGABIT) for link in links)
        lines.append(f"| {n} | " + " | ".join(f"{100 * value:.0f} %" for value in values) + " |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Measured:
    """The time of a step of ranks on one host, and the time of its computing if that is known."""

    ranks: int
    step: float
    compute: float | None


def measured(text: str) -> Measured:
    ranks, _, rest = text.partition("=")
    step, _, compute = rest.partition("/")
    return Measured(int(ranks), float(step), float(compute) if compute else None)


def check(settings: Settings, compute: float, steps: list[Measured]) -> str:
    """Predictions for ranks of one host beside measured steps."""
    lines = ["| ranks | computing s | predicted s | measured s | measured / predicted |"]
    lines.append("|---|---|---|---|---|")
    for found in steps:
        alone = compute if found.compute is None else found.compute
        local = replace(settings, ranks_per_host=found.ranks)
        predicted = step_seconds(local, alone, found.ranks, math.inf)
        cells = f"{alone:.3f} | {predicted:.3f} | {found.step:.3f} | {found.step / predicted:.2f}"
        lines.append(f"| {found.ranks} | {cells} |")
    return "\n".join(lines)


def compute_of(text: str) -> tuple[int, float]:
    size, _, seconds = text.partition("=")
    return int(size), float(seconds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=Path, help="a JSON object with names of Settings")
    for name, value in vars(Settings()).items():
        if name != "overlap":
            flag = "--" + name.replace("_", "-")
            parser.add_argument(flag, type=type(value), help=f"{value:g} by default")
    parser.add_argument("--no-overlap", action="store_true", help="the exchange waits for the end")
    parser.add_argument(
        "--compute",
        type=compute_of,
        nargs="+",
        metavar="SIZE=SECONDS",
        help="a step of 32 images of that size on one rank, with as many threads as a rank has",
    )
    parser.add_argument("--links", type=float, nargs="+", default=LINKS, metavar="GBIT")
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS)
    bench = "what `bench collective --json` printed on "
    parser.add_argument("--local-bench", type=Path, metavar="FILE", help=bench + "one host")
    parser.add_argument(
        "--network-bench", type=Path, metavar="FILE", help=bench + "hosts with one rank each"
    )
    parser.add_argument(
        "--check",
        type=measured,
        nargs="+",
        metavar="RANKS=STEP[/COMPUTING]",
        help="compare with steps of so many ranks on one host, in seconds; the computing is that of "
        "as many ranks at once that tell each other nothing",
    )
    options = parser.parse_args()
    if options.check and len(options.compute or ()) != 1:
        parser.error("--check needs one --compute SIZE=SECONDS")
    return options


def settings_of(options: argparse.Namespace) -> Settings:
    """Defaults, then the file, then what benches say, then flags."""
    settings = Settings()
    if options.settings:
        settings = replace(settings, **json.loads(options.settings.read_text()))
    flags = {name: getattr(options, name, None) for name in vars(settings)}
    flags = {name: value for name, value in flags.items() if value is not None}
    size = flags.get("bucket_bytes", settings.bucket_bytes)
    add_rate = flags.get("add_rate", settings.add_rate)
    for kind in ("local", "network"):
        file = getattr(options, f"{kind}_bench")
        if file:
            ranks, points = sum_points(file.read_text())
            wire = fit(points, ranks, size, add_rate)
            found = {f"{kind}_latency": wire.latency, f"{kind}_bandwidth": wire.bandwidth}
            settings = replace(settings, **found)
    settings = replace(settings, **flags)
    return replace(settings, overlap=False) if options.no_overlap else settings


def main() -> None:
    options = arguments()
    try:
        settings = settings_of(options)
    except (ValueError, KeyError, TypeError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(", ".join(f"{name} {value:g}" for name, value in vars(settings).items()))
    computes = dict(options.compute) if options.compute else COMPUTE
    if options.check:
        (compute,) = computes.values()
        print("\n" + check(settings, compute, options.check))
        return
    for size, compute in computes.items():
        print(f"\n{size} px, {compute:g} s a step on one rank\n")
        print(table(settings, compute, list(options.links), list(options.ranks)))


if __name__ == "__main__":
    main()
