"""Trains with `bninception` on a device and on the processor, and compares what the runs leave, as JSON lines.

    runs.py resume BINARY OUT      a run that stops and goes on, on the device and from one to the other
    runs.py learning BINARY OUT    runs of equal steps, by loss and accuracy
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import tensors

# Losses of a few steps on another device: both round otherwise. With ReLUs, whose inputs may land on the other side of
# 0, the differences grow tenfold with each step; with sigmoids they stay.
LOSS_LIMIT = 1e-3
# Accuracies of a short run differ between seeds by more than between devices.
ACCURACY_LIMIT = 0.1
# So small that a few updates do not enlarge what rounding leaves.
SMALL_RATE = 1e-4
# Updates of the short runs, in three parts.
STEPS = (4, 8, 12)


class Runs:
    """Runs of one binary in one folder."""

    def __init__(self, binary: Path, out: Path) -> None:
        self.binary = binary
        self.out = out
        self.holds = True

    def call(self, *arguments: object) -> dict:
        """Runs a command, and returns the JSON object that it prints."""
        command = [str(self.binary), "-q", *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: code {done.returncode}\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def tell(self, name: str, **about: object) -> None:
        self.holds &= bool(about["holds"])
        print(json.dumps({"name": name, **about}), flush=True)

    def train(self, name: str, device: str, *arguments: object) -> dict:
        run = self.out / name
        shutil.rmtree(run, ignore_errors=True)
        return self.call("train", "--run-dir", run, "--device", device, *arguments)

    def small(self, name: str, device: str, steps: int) -> None:
        """A run whose steps do not depend on its length."""
        sets = [
            "schedule.kind=constant",
            "log.every_steps=1",
            "log.tensorboard=false",
            "network.activation=sigmoid",
            f"optimizer.lr={SMALL_RATE}",
        ]
        flags = [word for setting in sets for word in ("--set", setting)]
        self.train(name, device, "--preset", "smoke", "--steps", steps, *flags)

    def resume(self, name: str, device: str, steps: int) -> None:
        self.call("resume", self.out / name, "--device", device, "--steps", steps)

    def losses(self, name: str) -> list[float]:
        rows = (self.out / name / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(row) for row in rows]
        return [row["loss"] for row in rows if row["kind"] == "train"]

    def data(self, name: str) -> dict[str, bytes]:
        path = self.out / name / "last.safetensors"
        return {name: tensor.data for name, tensor in tensors.read(path).items()}


def resume(runs: Runs, device: str) -> None:
    first, second, last = STEPS
    runs.small("whole", device, last)
    runs.small("again", device, last)
    same = runs.data("again") == runs.data("whole")
    runs.tell("a run repeats its bits", device=device, holds=same)

    runs.small("stopped", device, first)
    runs.resume("stopped", device, last)
    same = runs.data("stopped") == runs.data("whole")
    runs.tell("a run that goes on ends with the bits of one that never stopped", device=device, holds=same)

    runs.small("cpu", "cpu", last)
    runs.small("moved", "cpu", first)
    runs.resume("moved", device, second)
    runs.resume("moved", "cpu", last)
    pairs = list(zip(runs.losses("moved"), runs.losses("cpu"), strict=True))
    error = max(abs(found - expected) / abs(expected) for found, expected in pairs)
    history = tensors.metadata(runs.out / "moved" / "last.safetensors")["progress"]["devices"]
    places = [entry["step"] for entry in history]
    runs.tell(
        "losses of a run from the processor to the device and back",
        error=error,
        limit=LOSS_LIMIT,
        losses=pairs,
        history=history,
        holds=error <= LOSS_LIMIT and places == [first, second],
    )


def learning(runs: Runs, device: str, steps: int, data_dir: Path | None) -> None:
    recipe: list[object] = ["--steps", steps]
    if data_dir is None:
        recipe += ["--preset", "demo"]
    else:
        recipe += ["--data-dir", data_dir]
    results = {}
    for name, place, dtype in (("cpu", "cpu", "f32"), ("f32", device, "f32"), ("bf16", device, "bf16")):
        results[name] = runs.train(f"learnt-{name}", place, "--dtype", dtype, *recipe)
    expected = results["cpu"]
    for name in ("f32", "bf16"):
        found = results[name]
        runs.tell(
            f"learning in {name}",
            steps=steps,
            top1=found["top1"],
            top1_of_cpu=expected["top1"],
            loss=found["loss"],
            loss_of_cpu=expected["loss"],
            seconds=found["seconds"],
            seconds_of_cpu=expected["seconds"],
            holds=found["top1"] >= expected["top1"] - ACCURACY_LIMIT,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["resume", "learning"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=186, help="updates of a run that learns")
    parser.add_argument("--data-dir", type=Path, help="images in place of the drawn ones")
    parser.add_argument("binary", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    runs = Runs(options.binary, options.out)
    match options.what:
        case "resume":
            resume(runs, options.device)
        case "learning":
            learning(runs, options.device, options.steps, options.data_dir)
    if not runs.holds:
        sys.exit("not all holds: see the lines above")


if __name__ == "__main__":
    main()
