#!/usr/bin/env bash
# Trains on this machine, or runs another program, in one process or, as on a pod, in
# several.
#
#   launch/local.sh --config=configs/tiny.py
#   launch/local.sh --devices=8 --config=configs/tiny.py --config.mesh.tensor=2
#   launch/local.sh --processes=2 --devices=4 --config=configs/tiny.py
#
#   --program=NAME runs another program than train, such as cache
#   --devices=M    splits the CPU into M simulated devices per process, to try a mesh
#   --processes=N  starts N processes, which connect over the loopback as the hosts of a
#                  pod do over their network
#
# All other flags go to the program; `python -m musilingo_jax.train --help` lists them.
#
# With several processes, each line of output begins with the number of its process. If
# one fails, all are stopped, and the exit status is that of the one that failed. Ctrl-C
# and SIGTERM are passed on to all; they save and stop after the same update, with exit
# status 130 or 143.
#
# Environment:
#   PROGRAM  the module of a program of your own
#   PYTHON   the interpreter; default: .venv/bin/python, if there is one
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

# Bash counts in 64 bits, and reads 08 as a number to the base 8.
positive() {
  if ! [[ "${1#*=}" =~ ^[1-9][0-9]{0,4}$ ]]; then
    echo "error: $1: must be a positive whole number below 100,000, without zeros" \
      "before it" >&2
    exit 2
  fi
}

[[ "${GRACE_SECONDS:=10}" == 0 ]] || positive "GRACE_SECONDS=$GRACE_SECONDS"
readonly GRACE_SECONDS
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
    --program=*)
      case "${flag#*=}" in
        train | cache | generate | evaluate) PROGRAM="musilingo_jax.${flag#*=}" ;;
        *)
          echo "error: $flag: choose train, cache, generate or evaluate" >&2
          exit 2
          ;;
      esac
      ;;
    *) flags+=("$flag") ;;
  esac
done

# Exports what the file assigns.
set -a
# shellcheck source=/dev/null
source launch/malloc.env
set +a

python="${PYTHON:-python}"
if [[ -z "${PYTHON:-}" && -x .venv/bin/python ]]; then python=.venv/bin/python; fi
command=("$python" -m "${PROGRAM:-musilingo_jax.train}" "${flags[@]}")
if ((processes == 1)); then exec "${command[@]}"; fi

port="$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
# Puts the number of the process before each line. Python also ends lines at the carriage
# returns of progress bars. The log of gloo, which connects CPUs, is left out.
prefix='
import sys
for line in open(0, errors="replace"):
    if line.strip() and not line.startswith("[Gloo] Rank "):
        sys.stdout.write(f"[{sys.argv[1]}] {line.rstrip()}\n")  # One write per line.
        sys.stdout.flush()
'
started=()
# Each gets a process group of its own, so that Ctrl-C reaches it once: from `pass_on`.
set -m
for ((i = 0; i < processes; i++)); do
  "${command[@]}" --coordinator="127.0.0.1:$port" --processes="$processes" \
    --process="$i" </dev/null \
    > >(trap '' INT TERM && exec "$python" -c "$prefix" "$i") \
    2> >(trap '' INT TERM && exec "$python" -c "$prefix" "$i" >&2) &
  started+=("$!")
done
set +m

# Sends a signal to all processes that have not ended.
pass_on() { kill "-$1" "${started[@]}" 2>/dev/null || true; }
trap 'pass_on INT' INT
trap 'pass_on TERM' TERM

status=0 alive="$processes"
while ((alive > 0)); do
  sleep 0.2 || true
  alive=0 known="$status"
  for i in "${!started[@]}"; do
    if kill -0 "${started[i]}" 2>/dev/null; then
      alive=$((alive + 1))
      continue
    fi
    code=0
    { wait "${started[i]}" || code=$?; } 2>/dev/null
    unset "started[i]"
    # A process that was killed, with a status above 128, makes the others fail at once.
    if ((known == 0 && code != 0 && (status == 0 || code > 128))); then
      status="$code" failed="$SECONDS"
      echo "process $i exited with status $code; stopping the others" >&2
    fi
  done
  # The failed process has told the others, which should stop by themselves.
  if ((alive > 0 && status != 0 && SECONDS - failed > GRACE_SECONDS)); then
    pass_on KILL
  fi
done
exit "$status"
