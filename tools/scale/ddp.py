"""Times PyTorch's DistributedDataParallel on the network of this project: gloo, on the CPU, f32.

    python tools/scale/ddp.py --ranks 1 --threads 2       the base line: one process without DDP
    python tools/scale/ddp.py --ranks 2 --threads 1       torchrun starts two ranks
    python tools/scale/ddp.py --ranks 2 --threads 1 --kill
                                                          one rank is killed in the middle

Prints one JSON object. Every rank has a batch of fixed random images in memory, so that a step is
forward, loss, backward with the exchange, and the optimizer. Needs the environment of tools/peers.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEERS = Path(__file__).resolve().parents[1] / "peers"
sys.path.insert(0, str(PEERS))


def run_rank(options: argparse.Namespace) -> None:
    """What each rank does; rank 0 writes what it measured."""
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from torch.nn.parallel import DistributedDataParallel

    from bn_inception import BnInception

    torch.set_num_threads(options.threads)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(0)  # the same weights on all ranks, and other images
    network = BnInception(options.classes).to(memory_format=torch.channels_last)
    torch.manual_seed(rank)
    size = options.image_size
    images = torch.randn(options.batch_size, 3, size, size)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(options.classes, (options.batch_size,))
    model = DistributedDataParallel(network) if ranks > 1 else network
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5, fused=True
    )
    is_first_try = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    is_victim = options.kill and is_first_try and rank + 1 == ranks
    seconds = []
    for step in range(options.warmup + options.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels)
        if is_victim and step == options.warmup + options.steps // 2:
            Path(options.worker, "killed").write_text(f"{step} {time.time()}")
            os.kill(os.getpid(), signal.SIGKILL)
        loss.backward()
        optimizer.step()
        if not torch.isfinite(loss):
            raise SystemExit(f"the loss is {loss.item()}: this is not a run to time")
        seconds.append(time.perf_counter() - start)
    if ranks > 1:
        check_same_weights(network)
        dist.destroy_process_group()
    if rank == 0:
        found = {"engine": f"torch {torch.__version__}", "step_seconds": seconds[options.warmup :]}
        Path(options.worker, "measured").write_text(json.dumps(found))


def check_same_weights(network) -> None:
    """Ranks that did not exchange their gradients would be fast, and wrong."""
    import torch
    import torch.distributed as dist

    total = torch.stack([value.double().sum() for value in network.parameters()]).sum()
    totals = [torch.zeros_like(total) for _ in range(dist.get_world_size())]
    dist.all_gather(totals, total)
    if any(other != total for other in totals):
        raise SystemExit("the ranks have different weights")


def launch(options: argparse.Namespace, folder: str) -> tuple[subprocess.CompletedProcess, float]:
    """Runs all ranks; what they said, and when the last of them was gone."""
    command = [sys.executable]
    if options.ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nnodes", "1"]
        command += ["--nproc-per-node", str(options.ranks)]
        command += ["--max-restarts", str(options.max_restarts)]
    command += [str(Path(__file__).resolve()), "--worker", folder]
    for name in ("threads", "batch_size", "image_size", "classes", "warmup", "steps"):
        command += ["--" + name.replace("_", "-"), str(getattr(options, name))]
    command += ["--kill"] if options.kill else []
    environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine
    if options.tuned_malloc:
        from compare import TUNED_MALLOC

        environment["GLIBC_TUNABLES"] = TUNED_MALLOC
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    return done, time.time()


def what_a_kill_does(
    options: argparse.Namespace, done: subprocess.CompletedProcess, end: float, folder: Path
) -> dict[str, object]:
    killed = folder / "killed"
    if not killed.exists():
        sys.exit(f"no rank was killed:\n{done.stderr[-2000:]}")
    step, moment = killed.read_text().split()
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {
        "killed_in_step": int(step),
        "seconds_until_the_end": end - float(moment),
        "exit_code": done.returncode,
        "finished_after_a_restart": "measured" in left,
        "files_left": sorted(left - {"killed", "measured"}),  # these two are this script's own
        "said": [line.strip() for line in done.stderr.splitlines() if "Signal" in line],
    }


def measure(options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done, end = launch(options, name)
        report = {
            "ranks": options.ranks,
            "threads": options.threads,
            "batch_size": options.batch_size,
            "image_size": options.image_size,
            "classes": options.classes,
            "tuned_malloc": options.tuned_malloc,
        }
        if options.kill:
            return report | what_a_kill_does(options, done, end, folder)
        if done.returncode != 0:
            sys.exit(f"exit code {done.returncode}:\n{done.stderr[-2000:]}")
        report |= json.loads((folder / "measured").read_text())
    median = statistics.median(report["step_seconds"])
    rate = options.ranks * options.batch_size / median
    return report | {"step_seconds_median": median, "images_per_second": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--batch-size", type=int, default=32, help="of each rank")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--warmup", type=int, default=2, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=10, help="timed steps; their median counts")
    parser.add_argument("--tuned-malloc", action="store_true", help="as tools/peers/compare.py")
    parser.add_argument("--kill", action="store_true", help="SIGKILL for the last rank, halfway")
    parser.add_argument("--max-restarts", type=int, default=0, help="torchrun's own")
    parser.add_argument("--worker", metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_rank(options)
        return
    if options.kill and options.ranks < 2:
        parser.error("--kill needs two ranks at least")
    print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
