#!/usr/bin/env bash
# Train nano from nothing with its recipe. Stages that do not depend on each other run at the same time.
#
#     scripts/train_nano.sh runs/nano [options of slime train, such as --set stages.encoder.steps=100]
#
# Ctrl-C leaves checkpoints, and a second call resumes from them. On a GPU, worker processes draw the pages; on a CPU, each of the
# two training processes uses one core. Relative folders start at the repository.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?which folder to train in, such as runs/nano}
shift
options=("$@")
slime=$(command -v slime) || { echo "slime is not on the PATH: activate the environment that it is installed in" >&2; exit 2; }
python=$(dirname "$slime")/python3
[ -x "$python" ] || python=$(command -v python3)
read -r gpus cores < <("$python" -c 'import os, torch; print(torch.cuda.device_count(), os.cpu_count())')
export OMP_NUM_THREADS=1

stages() { # WORKERS STAGE...
    train=(train nano --out "$out" --resume)
    for stage in "${@:2}"; do train+=(--stage "$stage" --set "stages.$stage.data.workers=$1"); done
    train+=(${options[@]+"${options[@]}"})
}

lines() { # Print lines instead of two bars on one terminal, until a training that Ctrl-C interrupted has stopped.
    trap "" INT
    exec cat >&2
}

if [ "$gpus" -gt 0 ]; then
    # Trainer would split a batch over all visible GPUs.
    visible=${CUDA_VISIBLE_DEVICES:-0}
    export CUDA_VISIBLE_DEVICES=${visible%%,*}
    together=("$slime")
    # Drawing a page takes ten times as long as labelling it.
    workers=($((cores * 5 / 8)) $((cores / 4)) $((cores * 7 / 8)))
else
    together=("$python" -m torch.distributed.run --nproc-per-node 2 --standalone "$slime")
    workers=(0 0 0)
fi

# Job control gives each process a group of its own, so that Ctrl-C reaches it once, from here.
set -m
running=()
trap 'kill -INT ${running[@]+"${running[@]}"} 2> /dev/null || true; wait; exit 130' INT TERM HUP
stages "${workers[0]}" encoder encoder-pages encoder-shapes 1b
"$slime" "${train[@]}" 2> >(lines) &
running+=($!)
stages "${workers[1]}" copy find-small find find-exact
"$slime" "${train[@]}" 2> >(lines) &
running+=($!)
for process in "${running[@]}"; do wait "$process" || failed=1; done
[ -z "${failed:-}" ] || exit 1
trap - INT TERM HUP
set +m
stages "${workers[2]}" 2 3
exec "${together[@]}" "${train[@]}"
