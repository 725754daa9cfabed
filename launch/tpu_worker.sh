#!/usr/bin/env bash
# The part of launch/tpu_pod.sh that runs on each worker of a TPU, in the folder of the code.
#
#   launch/tpu_worker.sh install gs://BUCKET   installs packages, mounts the bucket
#   launch/tpu_worker.sh start PROGRAM FLAGS   starts it, detached from the terminal
#   launch/tpu_worker.sh follow                shows its output from the start; exits with
#                                              its status
#   launch/tpu_worker.sh stop                  lets it save and exit
#
# Every command can be repeated, and does only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "error: $(hostname): $*" >&2
  exit 1
}

install() {
  local bucket="${1:?gs://BUCKET}" mount="$HOME/bucket"
  echo "$(hostname): installing"
  # The Python of TPU VMs is older than 3.11; uv installs a newer one.
  local uv="$HOME/.local/bin/uv"
  [[ -x "$uv" ]] || python3 -m pip install --quiet --user uv
  [[ -x .venv/bin/python ]] || "$uv" venv --quiet --python 3.11 .venv
  "$uv" pip install --quiet --python .venv/bin/python \
    -r requirements.lock --editable '.[tpu,gcs]'

  # Runs are written to the bucket, by all workers, because a VM's own disk is lost with the
  # VM. No metadata is cached (ttl 0), so that each worker sees at once what another writes.
  if ! mountpoint --quiet "$mount"; then
    command -v gcsfuse >/dev/null || install_gcsfuse
    mkdir -p "$mount"
    gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 \
      --metadata-cache-negative-ttl-secs=0 "${bucket#gs://}" "$mount"
  fi
  mkdir -p "$mount/runs"
  [[ -L runs || ! -e runs ]] || die "runs is a folder; it must be a link to the bucket"
  ln -sfn "$mount/runs" runs

  # Models and corpora are copied: they are read in random order, which is slow over a
  # network.
  local folder
  for folder in models corpora; do
    if gcloud storage ls "$bucket/$folder/" >/dev/null 2>&1; then
      mkdir -p "$folder"
      gcloud storage rsync "$bucket/$folder" "$folder" --recursive
    fi
  done
}

# As https://cloud.google.com/storage/docs/cloud-storage-fuse/install says.
install_gcsfuse() {
  local keys=/usr/share/keyrings/cloud.google.asc
  local list=/etc/apt/sources.list.d/gcsfuse.list
  local apt=https://packages.cloud.google.com/apt
  curl --fail --silent --show-error "$apt/doc/apt-key.gpg" | sudo tee "$keys" >/dev/null
  echo "deb [signed-by=$keys] $apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee "$list" >/dev/null
  sudo apt-get -qq update
  sudo apt-get -qq install --yes gcsfuse
}

running() {
  [[ -f work.pid && ! -f work.status ]] && kill -0 "$(<work.pid)" 2>/dev/null
}

start() {
  if running; then
    echo "$(hostname): is at work already"
    return
  fi
  rm -f work.pid work.status
  setsid nohup "$0" supervise "$@" >work.log 2>&1 </dev/null &
  for _ in {1..300}; do
    [[ -f work.pid ]] && return
    sleep 0.1
  done
  die "$1 did not start: $(tail -n 1 work.log)"
}

# Writes the status of the program to a file, since no shell waits for it.
supervise() {
  local program="$1"
  shift
  "${PYTHON:-.venv/bin/python}" -m "musilingo_jax.$program" --distributed "$@" &
  echo $! >work.pid
  local status=0
  wait $! || status=$?
  if mkdir -p runs/logs; then
    cp work.log "runs/logs/$(date +%Y%m%d-%H%M%S)-$(hostname).log" || true
  fi
  echo "$status" >work.status.partial
  mv work.status.partial work.status
}

follow() {
  [[ -f work.pid ]] || die "nothing was started here"
  tail --lines=+1 --follow=name --pid="$(<work.pid)" work.log
  for _ in {1..600}; do
    [[ -f work.status ]] && exit "$(<work.status)"
    sleep 0.1
  done
  die "it ended without a status; the machine may have been restarted"
}

stop() {
  if running; then
    kill -TERM "$(<work.pid)"
    echo "$(hostname): asked it to save and exit"
  else
    echo "$(hostname): nothing is running"
  fi
}

case "${1:-}" in
  -h | --help) sed -n -e '/^set -e/q' -e '1d' -e 's/^# \{0,1\}//p' "$0" ;;
  install | start | supervise | follow | stop) "$@" ;;
  *) die "unknown command ${1:-}: choose one of install, start, follow, stop" ;;
esac
