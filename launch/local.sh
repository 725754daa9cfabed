#!/usr/bin/env bash
# Trains on this machine, in one process or, as on a pod, in several:
#
#   launch/local.sh --config=configs/tiny.py
#   launch/local.sh --devices=8 --config=configs/tiny.py --config.mesh.tensor=2
#   launch/local.sh --processes=2 --devices=4 --config=configs/tiny.py
#
# --devices=M splits the CPU into M simulated devices, for each process, to try a mesh
# without having one. --processes=N starts N processes that find each other over the
# loopback, on the same path as the hosts of a pod; each line they write begins with
# which of them it is from. If one fails, all are stopped, and the exit status is its own.
# Ctrl-C and SIGTERM go to all; they save and stop after the same update, with 130 or 143.
#
# All other flags go to musilingo_jax.train, or to the program that PROGRAM names, such as
# musilingo_jax.cache. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

positive() {
  if ! [[ "${1#*=}" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: $1: must be a positive whole number" >&2
    exit 2
  fi
}

processes=1
flags=()
for flag in "$@"; do
  case "$flag" in
    --devices=*)
      positive "$flag"
      export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="${flag#--devices=}"
      ;;
    --processes=*)
      positive "$flag"
      processes="${flag#--processes=}"
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
command=("$python" -m "${PROGRAM:-musilingo_jax.train}" "${flags[@]}")
if ((processes == 1)); then exec "${command[@]}"; fi

port="$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
# Makes lines of what a progress bar writes over and over; without the chatter of gloo,
# by which processes exchange arrays.
prefix='
import sys
for line in open(0, errors="replace"):
    if line.strip() and not line.startswith("[Gloo] Rank "):
        sys.stdout.write(f"[{sys.argv[1]}] {line.rstrip()}\n")  # Whole, or they mix.
        sys.stdout.flush()
'
started=()
# Each in a process group of its own, so that a Ctrl-C comes once, by way of `tell`.
set -m
for ((i = 0; i < processes; i++)); do
  "${command[@]}" --coordinator="127.0.0.1:$port" --processes="$processes" \
    --process="$i" </dev/null \
    > >(trap '' INT TERM && exec "$python" -c "$prefix" "$i") \
    2> >(trap '' INT TERM && exec "$python" -c "$prefix" "$i" >&2) &
  started+=("$!")
done
set +m

# A process that has ended is not there to be told.
tell() { kill "-$1" "${started[@]}" 2>/dev/null || true; }
trap 'tell INT' INT
trap 'tell TERM' TERM

status=0 alive="$processes"
while ((alive > 0)); do
  sleep 0.2 || true
  alive=0
  for i in "${!started[@]}"; do
    if kill -0 "${started[i]}" 2>/dev/null; then
      alive=$((alive + 1))
      continue
    fi
    code=0
    { wait "${started[i]}" || code=$?; } 2>/dev/null
    unset "started[i]"
    if ((code != 0 && status == 0)); then
      status="$code" failed="$SECONDS"
      echo "process $i ended with status $code; so do the others" >&2
    fi
  done
  # The others learn of it from each other; this is for one that does not.
  if ((alive > 0 && status != 0 && SECONDS - failed > 10)); then tell KILL; fi
done
exit "$status"
