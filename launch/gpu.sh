#!/usr/bin/env bash
# Trains on all GPUs of this machine, or runs another program there.
#
#   launch/gpu.sh --config=configs/finetune_music_instruct.py:long
#   launch/gpu.sh --program=cache --config=configs/features/mert_330m.py:corpora/musiccaps
#
#   --program=NAME  train (the default), cache, generate, evaluate or caption
#
# All other flags go to the program; `python -m musilingo_jax.train --help` lists them.
#
# Environment:
#   PYTHON     the interpreter; default: .venv/bin/python, if there is one
#   XLA_FLAGS  comes after the flags that this script sets, and so takes precedence
#   XLA_PYTHON_CLIENT_MEM_FRACTION, NCCL_DEBUG  are kept if they are set
set -euo pipefail
for flag; do
  case "$flag" in
    -h | --help)
      sed -n -e '/^set -e/q' -e '1d' -e 's/^# \{0,1\}//p' "$0"
      exit
      ;;
  esac
done
cd "$(dirname "$0")/.."

program=train flags=()
for flag in "$@"; do
  case "$flag" in
    --program=*) program="${flag#*=}" ;;
    *) flags+=("$flag") ;;
  esac
done
case "$program" in
  train | cache | generate | evaluate | caption) ;;
  *)
    echo "error: --program=$program: choose train, cache, generate, evaluate or caption;" \
      "annotate and instruct are shared out by launch/share.sh" >&2
    exit 2
    ;;
esac

python="${PYTHON:-python}"
if [[ -z "${PYTHON:-}" && -x .venv/bin/python ]]; then python=.venv/bin/python; fi

# GPUs exchange weights and activations while they compute what does not depend on them.
tuning="--xla_gpu_enable_latency_hiding_scheduler=true"
export XLA_FLAGS="$tuning${XLA_FLAGS:+ $XLA_FLAGS}"
# JAX reserves three quarters of the memory by default. What is not reserved here is for
# NCCL and for other libraries, whose memory JAX does not count.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
# Without it a failure of NCCL looks like a hang.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"

# JAX falls back to the CPU with a mere warning, and the work would take weeks.
found=$(XLA_PYTHON_CLIENT_PREALLOCATE=false "$python" -c \
  'import jax; print(jax.default_backend(), jax.local_device_count())') || {
  echo "error: $python cannot start JAX; install it with: pip install -e '.[cuda]'" >&2
  exit 1
}
if [[ "$found" != gpu\ * ]]; then
  echo "error: JAX sees no GPU, only: $found. Check that nvidia-smi lists one, and install" \
    "JAX for GPUs with: pip install -e '.[cuda]'" >&2
  exit 1
fi
echo "JAX sees ${found#gpu } GPU(s)" >&2
exec "$python" -m "musilingo_jax.$program" "${flags[@]}"
