#!/usr/bin/env bash
# Trains on this machine:
#
#   launch/local.sh --config=configs/tiny.py
#   launch/local.sh --devices=8 --config=configs/tiny.py --config.mesh.tensor=2
#
# --devices=N splits the CPU into N simulated devices, to try a mesh without having one.
# All other flags go to musilingo_jax.train. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

flags=()
for flag in "$@"; do
  case "$flag" in
    --devices=*)
      devices="${flag#--devices=}"
      if ! [[ "$devices" =~ ^[1-9][0-9]*$ ]]; then
        echo "error: $flag: the number of devices must be a positive whole number" >&2
        exit 2
      fi
      export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$devices"
      ;;
    *) flags+=("$flag") ;;
  esac
done

# Keeps glibc from handing large arrays back to the system and fetching them again,
# which costs a CPU up to a fifth of its time.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000
export MALLOC_TOP_PAD_=67108864 MALLOC_ARENA_MAX=1

python="${PYTHON:-python}"
if [[ -z "${PYTHON:-}" && -x .venv/bin/python ]]; then python=.venv/bin/python; fi
exec "$python" -m musilingo_jax.train "${flags[@]}"
