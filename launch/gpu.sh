#!/usr/bin/env bash
# Trains on all GPUs of this machine:
#
#   launch/gpu.sh --config=configs/finetune_music_instruct.py:long
#
# All flags go to musilingo_jax.train. PYTHON names the interpreter. What is set in the
# environment already (XLA_FLAGS, …) is kept and comes last, so that it wins.
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-python}"
if [[ -z "${PYTHON:-}" && -x .venv/bin/python ]]; then python=.venv/bin/python; fi

# Lets GPUs exchange weights and activations while they compute what does not need them.
flags="--xla_gpu_enable_latency_hiding_scheduler=true"
export XLA_FLAGS="$flags${XLA_FLAGS:+ $XLA_FLAGS}"
# JAX takes three quarters of the memory unless it is told otherwise; the rest that is
# left here is for NCCL and for libraries that JAX does not know of.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
# Says so when NCCL fails, which else only hangs.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"

# JAX falls back to the CPU with no more than a warning, and would compute for weeks.
found=$(XLA_PYTHON_CLIENT_PREALLOCATE=false "$python" -c \
  'import jax; print(jax.default_backend(), jax.local_device_count())') || {
  echo "error: $python cannot start JAX; install it with: pip install -e '.[cuda]'" >&2
  exit 1
}
if [[ "$found" != gpu\ * ]]; then
  echo "error: JAX sees no GPU here, only: $found. Look whether nvidia-smi shows one," \
    "and install JAX for it with: pip install -e '.[cuda]'" >&2
  exit 1
fi
echo "JAX sees ${found#gpu } GPU(s)" >&2
exec "$python" -m musilingo_jax.train "$@"
