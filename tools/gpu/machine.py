"""Tells what this machine and its PyTorch are, as one line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess

import torch


def nvidia_smi() -> str | None:
    """What the driver says of its GPUs."""
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit,mig.mode.current"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    print(
        json.dumps(
            {
                "system": platform.platform(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
                "gpu": torch.cuda.get_device_name() if on_gpu else None,
                "nvidia_smi": nvidia_smi(),
            }
        )
    )


if __name__ == "__main__":
    main()
