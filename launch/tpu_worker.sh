#!/usr/bin/env bash
# What launch/tpu_pod.sh does on each worker of a TPU, in the folder of the code:
#
#   launch/tpu_worker.sh install gs://BUCKET   the locked packages and the bucket's folders
#   launch/tpu_worker.sh start FLAGS…          training, which needs no terminal from then
#   launch/tpu_worker.sh follow                its output from the start, then its status
#   launch/tpu_worker.sh stop                  lets it save and end
#
# Each can be done again at any time, and does only what is left to do.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "error: $(hostname): $*" >&2
  exit 1
}

install() {
  local bucket="${1:?gs://BUCKET}" mount="$HOME/bucket"
  echo "$(hostname): installing"
  # The Python of TPU VMs is older than 3.11; uv brings one.
  local uv="$HOME/.local/bin/uv"
  [[ -x "$uv" ]] || python3 -m pip install --quiet --user uv
  [[ -x .venv/bin/python ]] || "$uv" venv --quiet --python 3.11 .venv
  "$uv" pip install --quiet --python .venv/bin/python \
    -r requirements.lock --editable '.[tpu,gcs]'

  # What runs write goes to the bucket as it is written, on all workers, because a VM's
  # own disk is gone with it. What is there, or is not, must not be remembered (ttl), so
  # that each worker sees at once what another one wrote.
  if ! mountpoint --quiet "$mount"; then
    command -v gcsfuse >/dev/null || install_gcsfuse
    mkdir -p "$mount"
    gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 \
      --metadata-cache-negative-ttl-secs=0 "${bucket#gs://}" "$mount"
  fi
  mkdir -p "$mount/runs"
  [[ -L runs || ! -e runs ]] || die "runs is a folder; it should be in the bucket"
  ln -sfn "$mount/runs" runs

  # What is only read is copied: a network is no place to read 13 GB of weights from in
  # no particular order.
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
  [[ -f train.pid && ! -f train.status ]] && kill -0 "$(<train.pid)" 2>/dev/null
}

start() {
  if running; then
    echo "$(hostname): training already"
    return
  fi
  rm -f train.pid train.status
  setsid nohup "$0" supervise "$@" >train.log 2>&1 </dev/null &
  for _ in {1..50}; do
    [[ -f train.pid ]] && return
    sleep 0.1
  done
  die "training did not start: $(tail -n 1 train.log)"
}

# Holds on to the status of the training, which else is lost with the terminal.
supervise() {
  "${PYTHON:-.venv/bin/python}" -m musilingo_jax.train --distributed "$@" &
  echo $! >train.pid
  local status=0
  wait $! || status=$?
  if mkdir -p runs/logs; then
    cp train.log "runs/logs/$(date +%Y%m%d-%H%M%S)-$(hostname).log" || true
  fi
  echo "$status" >train.status.partial
  mv train.status.partial train.status
}

follow() {
  [[ -f train.pid ]] || die "no training was started here"
  tail --lines=+1 --follow=name --pid="$(<train.pid)" train.log
  for _ in {1..600}; do
    [[ -f train.status ]] && exit "$(<train.status)"
    sleep 0.1
  done
  die "training ended without a word: was the machine started again?"
}

stop() {
  if running; then
    kill -TERM "$(<train.pid)"
    echo "$(hostname): told to save and end"
  else
    echo "$(hostname): no training is running"
  fi
}

case "${1:-}" in
  install | start | supervise | follow | stop) "$@" ;;
  *) die "${1:-nothing}: choose one of install, start, follow, stop" ;;
esac
