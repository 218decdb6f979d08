#!/bin/sh
# Training over ranks beside PyTorch's DistributedDataParallel on one machine, alternately.
#
#   MPIEXEC=/opt/mpi/bin/mpiexec tools/scale/compare.sh photos
#
# In each round every contender runs once for each image size: this program as one process and as
# ranks, PyTorch as one process and as ranks with DDP and gloo. One process has as many threads as the
# ranks have together. Ratios are taken within a round; the medians over the rounds count.
#
# This program trains on the folder, packed once so that decoding takes next to nothing; PyTorch has
# its images in memory. It needs an idle machine, and a folder of train/CLASS/ and val/CLASS/ with few
# validation images, because a run ends with their evaluation.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
data=${1:?usage: compare.sh FOLDER_OF_IMAGES}

: "${BN:=$root/target/release/bninception}"     # this program
: "${PYTHON:=$root/tools/peers/.venv/bin/python}" # with PyTorch: tools/peers/compare.py --setup
: "${MPIEXEC:=mpiexec}"
: "${ROUNDS:=5}" "${STEPS:=12}" "${WARMUP:=3}" # steps that count, and steps before them
: "${BATCH:=32}" "${SIZES:=224 64}"            # images of each process and step; pixels
: "${RANKS:=2}" "${THREADS:=1}"                # threads of each rank
: "${OUT:=$root/target/scale}"

mkdir -p "$OUT"
work=$(mktemp -d "$OUT/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
results=$OUT/results.jsonl
: >"$results"

"$BN" -q data pack "$data" "$work/packed" >&2
classes=$(find "$data/train" -mindepth 1 -maxdepth 1 -type d | wc -l)
all_threads=$((RANKS * THREADS))

# Adds a line to the results: round, size, contender, and a rate read from a JSON object.
record() {
    "$PYTHON" - "$@" <<'PYTHON' >>"$results"
import json, statistics, sys
number, size, name, kind, warmup, file = sys.argv[1:]
lines = [json.loads(line) for line in open(file)]
if kind == "torch":
    rate = lines[-1]["images_per_second"]
else:
    rows = [row for row in lines if row["kind"] == "train"][int(warmup):]
    rate = statistics.median(row["images_per_second"] for row in rows)
print(json.dumps({"round": int(number), "size": int(size), "name": name, "rate": rate}))
PYTHON
}

# ours ROUND SIZE NAME THREADS [LAUNCHER WORDS]: a short run, whose rates stand in its metrics.
ours() {
    round=$1 size=$2 name=$3 threads=$4
    shift 4
    rm -rf "$work/run"
    "$BN" -q "$@" train --preset bn-x5 --data-dir "$work/packed" --run-dir "$work/run" \
        --image-size "$size" --batch-size "$BATCH" --steps $((WARMUP + STEPS)) \
        --set train.threads="$threads" --set augment.colour=none --set log.every_steps=1 \
        --set log.tensorboard=false >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }
    record "$round" "$size" "$name" ours "$WARMUP" "$work/run/metrics.jsonl"
}

# torch ROUND SIZE NAME RANKS THREADS
torch() {
    "$PYTHON" "$here/ddp.py" --ranks "$4" --threads "$5" --batch-size "$BATCH" \
        --image-size "$2" --classes "$classes" --warmup "$WARMUP" --steps "$STEPS" \
        --tuned-malloc >"$work/torch.json"
    record "$1" "$2" "$3" torch "$WARMUP" "$work/torch.json"
}

one="1 process x $all_threads threads"
many="$RANKS ranks x $THREADS threads"
round=1
while [ "$round" -le "$ROUNDS" ]; do
    for size in $SIZES; do
        echo "round $round of $ROUNDS: $size px" >&2
        ours "$round" "$size" "ours, $one" "$all_threads"
        torch "$round" "$size" "PyTorch, $one" 1 "$all_threads"
        ours "$round" "$size" "ours, $many" "$THREADS" launch -n "$RANKS" --mpiexec "$MPIEXEC" --
        torch "$round" "$size" "PyTorch DDP, $many" "$RANKS" "$THREADS"
    done
    round=$((round + 1))
done

"$PYTHON" - "$results" "$one" "$many" <<'PYTHON' | tee "$OUT/results.md"
import json, os, statistics, sys
file, one, many = sys.argv[1:]
rates = {}
for row in map(json.loads, open(file)):
    rates.setdefault(row["size"], {}).setdefault(row["name"], []).append(row["rate"])
print(f"Images a second, medians of {max(len(r) for s in rates.values() for r in s.values())} rounds; "
      f"load average {os.getloadavg()[0]:.1f} at the end\n")
print("| size | contender | one process | ranks | ranks / one process |\n|---|---|---|---|---|")
def ratio(above, below):
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
for size, found in rates.items():
    for who, ranks in (("ours", "ours"), ("PyTorch", "PyTorch DDP")):
        alone, together = found[f"{who}, {one}"], found[f"{ranks}, {many}"]
        print(f"| {size} px | {who} | {statistics.median(alone):.1f} | "
              f"{statistics.median(together):.1f} | {ratio(together, alone):.2f} |")
    beside = [ratio(found[f"ours, {form}"], found[f"{who}, {form}"])
              for who, form in (("PyTorch", one), ("PyTorch DDP", many))]
    print(f"| {size} px | ours / PyTorch | {beside[0]:.2f} | {beside[1]:.2f} | |")
PYTHON
