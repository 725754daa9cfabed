#!/usr/bin/env bash
# Runs this task's share of a job whose tasks know nothing of each other.
#
#   srun launch/share.sh --program=annotate songs/ --out=annotations
#   TASK=3 TASKS=16 launch/share.sh --program=annotate songs/ --out=annotations
#
#   --program=NAME  annotate or instruct; or benchmark or caption, which are faster with an
#                   accelerator for each task
#
# All other words go to the program. Which task this is, from 0, and how many there are,
# say TASK and TASKS, or a job array of SLURM, or srun. Any number of tasks make the same
# files, and one that was lost is started again with its number.
#
# Environment:
#   PYTHON       the interpreter; default: .venv/bin/python, if there is one
#   TASK, TASKS  take precedence over SLURM's
set -euo pipefail
for flag; do
  case "$flag" in
    -h | --help)
      sed -n -e '/^set -e/q' -e '1d' -e 's/^# \{0,1\}//p' "$0"
      exit
      ;;
  esac
done

program='' words=()
for word in "$@"; do
  case "$word" in
    --program=*) program="${word#*=}" ;;
    *) words+=("$word") ;;
  esac
done
case "$program" in
  annotate | benchmark | caption | instruct) ;;
  *)
    echo "error: --program=$program: choose annotate, benchmark, caption or instruct; train, cache," \
      "generate and evaluate are started with launch/gpu.sh, slurm.sbatch or tpu_pod.sh" >&2
    exit 2
    ;;
esac

task="${TASK:-}" tasks="${TASKS:-}"
if [[ -z "$task" && -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
  task=$((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0}))
  tasks="${SLURM_ARRAY_TASK_COUNT:-}"
elif [[ -z "$task" && -n "${SLURM_PROCID:-}" ]]; then
  task="$SLURM_PROCID" tasks="${SLURM_NTASKS:-}"
fi
if ! [[ "$task" =~ ^[0-9]{1,6}$ && "$tasks" =~ ^[0-9]{1,6}$ ]]; then
  echo "error: set TASK and TASKS, the number of this task from 0 and how many there are," \
    "or start this with srun or as a job array (now: TASK=$task TASKS=$tasks)" >&2
  exit 2
fi

python="${PYTHON:-python}"
here="$(cd "$(dirname "$0")/.." && pwd)"
if [[ -z "${PYTHON:-}" && -x "$here/.venv/bin/python" ]]; then
  python="$here/.venv/bin/python"
fi
exec "$python" -m "musilingo_jax.$program" --task="$task" --tasks="$tasks" "${words[@]}"
