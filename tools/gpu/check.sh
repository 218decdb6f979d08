#!/usr/bin/env bash
# Checks the GPU engine on a machine with a GPU, and times it beside PyTorch:
#
#     tools/gpu/check.sh [--device cuda|host] [--images DIR] BINARY OUT
#
# Needs the binary, this folder with tools/peers beside it, and a Python with PyTorch (PYTHON names it); no network and
# no Rust. Writes a file of JSON lines and a log for each stage into OUT, and a line with its seconds for each here.
# What is wrong comes before what is slow: the first stage that fails ends it. With --device host the processor stands
# in for the GPU, with small sizes: a rehearsal. --images names a folder of images to train on, beside the drawn ones.
set -uo pipefail

device=cuda
images=
while [ $# -gt 2 ]; do
    case $1 in
    --device) device=$2 ;;
    --images) images=$(realpath "$2") ;;
    *) break ;;
    esac
    shift 2
done
if [ $# -ne 2 ]; then
    sed -n '2,10s/^# \{0,1\}//p' "$0"
    exit 2
fi
binary=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
mkdir -p "$2"
out=$(realpath "$2")
python=${PYTHON:-python3}
export PYTHONPATH=$here/../peers PYTHONDONTWRITEBYTECODE=1
cores=$(nproc)

# Sizes on a GPU, and those of a rehearsal.
if [ "$device" = host ]; then
    conv_batch=2 conv_size=32 net_batch=8 net_size=32 size=64 learn_steps=6 repeats=1 warmup=1
    batches="4" wide_batch=4 torch_device=cpu torch_ways=eager patience=20
else
    conv_batch=8 conv_size=224 net_batch=16 net_size=96 size=224 learn_steps=186 repeats=5 warmup=3
    batches="32 128 256 512" wide_batch=256 torch_device=cuda torch_ways=eager,graph patience=1
fi
number=0

# stage NAME SECONDS COMMAND...: runs a command of which each line of output is JSON.
stage() {
    local name=$1 limit=$(($2 * patience)) begin code
    shift 2
    number=$((number + 1))
    local file
    file=$out/$(printf %02d "$number")-$name
    begin=$(date +%s.%N)
    # In a shell of its own: a command may be one of the functions below.
    timeout --kill-after=5 "$limit" bash -c '"$@"' "$name" "$@" >"$file.jsonl" 2>"$file.log"
    code=$?
    local seconds
    seconds=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
    printf '{"stage": "%s", "code": %d, "seconds": %s}\n' "$name" "$code" "$seconds" >>"$out/stages.jsonl"
    if [ "$code" -ne 0 ]; then
        echo "FAILED $name after $seconds s with code $code: $file.jsonl, $file.log"
        grep -h '"holds": *false' "$file.jsonl" | head -5
        tail -n 5 "$file.log"
        exit 1
    fi
    echo "ok $name: $seconds s"
}

# bench MODE DTYPE BATCH...: this program's speed.
bench() {
    local mode=$1 dtype=$2 batch
    shift 2
    for batch in "$@"; do
        "$binary" -q bench model --device "$device" --mode "$mode" --dtype "$dtype" -b "$batch" \
            --image-size "$size" --repeats "$repeats" --warmup "$warmup" --json || return
    done
}

profile() {
    for mode in train eval; do
        "$binary" -q bench model --device "$device" --mode "$mode" --dtype bf16 -b "$wide_batch" \
            --image-size "$size" --repeats "$repeats" --warmup 1 --profile --json || return
    done
}

# The processor alone, with more and more threads.
threads() {
    local n dtype
    for n in 1 2 4 8 16; do
        [ "$n" -le "$cores" ] || continue
        for dtype in f32 bf16; do
            "$binary" -q bench model --device cpu --threads "$n" --dtype "$dtype" -b 32 --image-size "$size" \
                --repeats 2 --warmup 1 --json || return
        done
        "$python" "$here/torch_speed.py" --device cpu --threads "$n" --dtypes f32,bf16 --modes train --batches 32 \
            --image-size "$size" --seconds 1 || return
    done
}

loader() {
    local dir=$out/pictures
    "$binary" -q data demo "$dir" --size 256 --train-per-class 200 --val-per-class 1 >/dev/null &&
        "$binary" -q bench data --data-dir "$dir" --image-size "$size" -j "$cores" --json
}

machine() {
    "$python" "$here/machine.py" --device "$torch_device"
}

export binary here out python cores device size repeats warmup wide_batch torch_device
export -f bench profile threads loader machine
rm -f "$out/stages.jsonl"
stage machine 60 machine
stage doctor 30 "$binary" doctor --json
stage kernels 60 "$binary" -q check-device kernels --device "$device"
stage convolutions 60 "$binary" -q check-device convolutions --device "$device" -b "$conv_batch" --image-size "$conv_size"
stage networks 60 "$binary" -q check-device networks --device "$device" -b "$net_batch" --image-size "$net_size" --out "$out/networks"
stage pytorch 60 "$python" "$here/torch_check.py" --device "$torch_device" "$out/networks"
stage resume 60 "$python" "$here/runs.py" resume --device "$device" "$binary" "$out/runs"
stage learning 60 "$python" "$here/runs.py" learning --device "$device" --steps "$learn_steps" "$binary" "$out/runs"
if [ -n "$images" ]; then
    stage images 60 "$python" "$here/runs.py" learning --device "$device" --steps "$learn_steps" --data-dir "$images" \
        "$binary" "$out/runs"
fi
# shellcheck disable=SC2086 # a list of numbers
stage train-bf16 60 bench train bf16 $batches
stage torch-train-bf16 60 "$python" "$here/torch_speed.py" --device "$torch_device" --modes train --dtypes bf16 \
    --ways $torch_ways --batches "${batches// /,}" --image-size "$size"
# shellcheck disable=SC2086
stage eval-bf16 60 bench eval bf16 $batches
stage torch-eval-bf16 60 "$python" "$here/torch_speed.py" --device "$torch_device" --modes eval --dtypes bf16 \
    --ways $torch_ways --batches "${batches// /,}" --image-size "$size"
stage profile 60 profile
stage train-tf32 60 bench train tf32 "$wide_batch"
stage torch-train-tf32 60 "$python" "$here/torch_speed.py" --device "$torch_device" --modes train --dtypes tf32 \
    --ways $torch_ways --batches "$wide_batch" --image-size "$size"
stage loader 60 loader
if [ "$device" = cuda ]; then
    stage torch-compile 120 "$python" "$here/torch_speed.py" --device cuda --modes train,eval --dtypes bf16 \
        --ways compile --batches "$wide_batch" --image-size "$size"
fi
stage threads 90 threads
echo "all stages hold; results are in $out"
