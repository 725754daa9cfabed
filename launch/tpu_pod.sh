#!/usr/bin/env bash
# Trains on a Cloud TPU, of one worker or of many, and knows what is being paid for.
#
#   launch/tpu_pod.sh COMMAND --name=NAME --zone=ZONE [OPTIONS] [-- FLAGS OF TRAINING]
#
#   create    asks for the TPU and waits until it is there
#   install   copies the code, installs the locked packages, mounts the bucket
#   run       trains, shows what it says, and begins again where a preemption ended it
#   logs      shows again what the training says, from its start
#   stop      lets the training save and end; the TPU stays
#   status    what there is in the zone
#   delete    gives the TPU back
#   all       create, install, run, delete
#
#   --name=NAME          of the TPU, and of the request for it
#   --zone=ZONE          such as us-west4-a
#   --type=TYPE          such as v5litepod-8 (v5e), v6e-8, v5p-8, v4-32
#   --bucket=gs://NAME   holds what outlives the TPU: runs/, models/, corpora/, features/
#   --features=NAME      the cache in the bucket's features/; default mert_330m
#   --spot               cheap, and may be taken away at any moment (this is the default)
#   --reserved           of a reservation that you have
#   --on-demand          neither
#   --project=ID         default: gcloud's
#   --runtime=VERSION    default: the one for the type
#   --patience=DURATION  how long the request stays in the queue; default 6h
#   --restarts=N         give up after N preemptions; default 50
#   --yes                ask nothing. `all` then deletes the TPU, however training ended
#   --dry-run            print the commands and do nothing
#
# For example, and without risk:
#
#   launch/tpu_pod.sh all --dry-run --name=mine --zone=us-west4-a --type=v5litepod-8 \
#     --bucket=gs://mine -- --config=configs/finetune_music_instruct.py:long
#
# You pay from when the TPU is granted until it is deleted, whether it trains or not. The
# training goes on when this script or its connection ends; `logs` comes back to it. Every
# command can be repeated: it finds out what is there and does only what is missing.
#
# More in launch/README.md. The commands were tested on a gcloud that only pretends.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly POLL_SECONDS="${POLL_SECONDS:-20}"
name='' zone='' type='' bucket='' features=mert_330m tier=--spot project='' runtime=''
patience=6h restarts=50 yes=false dry_run=false
# What is known of the TPU: whether it was asked for from here and, in a dry run, what
# would be its state.
asked=false pretended=NONE
place=()  # The flags that say which TPU is meant.
packed='' # The folder with the packed code.

say() { echo "tpu_pod: $*" >&2; }

die() {
  echo "error: $*" >&2
  exit 1
}

usage() {
  sed -n -e '/^set -e/q' -e '1d' -e 's/^# \{0,1\}//p' launch/tpu_pod.sh
}

main() {
  local command="${1:-help}"
  [[ $# -eq 0 ]] || shift
  while (($#)); do
    case "$1" in
      --name=*) name="${1#*=}" ;;
      --zone=*) zone="${1#*=}" ;;
      --type=*) type="${1#*=}" ;;
      --bucket=*) bucket="${1#*=}" ;;
      --features=*) features="${1#*=}" ;;
      --spot | --reserved | --on-demand) tier="$1" ;;
      --project=*) project="${1#*=}" ;;
      --runtime=*) runtime="${1#*=}" ;;
      --patience=*) patience="${1#*=}" ;;
      --restarts=*) restarts="${1#*=}" ;;
      --yes) yes=true ;;
      --dry-run) dry_run=true ;;
      --) shift && break ;;
      *) die "unknown option $1; flags of the training come after -- (try: $0 help)" ;;
    esac
    shift
  done
  place=("--zone=$zone")
  [[ -z "$project" ]] || place+=("--project=$project")
  [[ "$restarts" =~ ^[0-9]+$ ]] || die "--restarts=$restarts: must be a whole number"
  case "$command" in
    help | --help | -h) usage ;;
    create) need zone name type && remind_at_exit && create ;;
    install) need zone name bucket && remind_at_exit && prepare && install ;;
    run | all)
      need zone name type bucket && check_run "$@"
      remind_at_exit && prepare && "$command" "$@"
      ;;
    logs) need zone name && remind_at_exit && follow ;;
    stop) need zone name && remind_at_exit && worker all stop ;;
    status) need zone && status ;;
    delete) need zone name && delete ;;
    *) die "unknown command $command (try: $0 help)" ;;
  esac
}

need() {
  local option
  for option; do
    [[ -n "${!option}" ]] || die "--$option=… is missing (try: $0 help)"
  done
  [[ -z "$bucket" || "$bucket" =~ ^gs://[a-z0-9._-]+$ ]] ||
    die "--bucket=$bucket: must be a whole bucket, gs://NAME"
  if [[ -n "$type" && -z "$runtime" ]]; then runtime=$(runtime_of "$type") || exit 1; fi
  command -v gcloud >/dev/null || "$dry_run" ||
    die "there is no gcloud; install it: https://cloud.google.com/sdk/docs/install"
}

# gcloud, told; in a dry run, told only.
cloud() {
  local word line='+ gcloud'
  for word; do line+=" $(printf %q "$word")"; done
  echo "$line" >&2
  "$dry_run" || gcloud "$@"
}

queue() { cloud compute tpus queued-resources "$@" "${place[@]}"; }

vm() { cloud compute tpus tpu-vm "$@" "${place[@]}"; }

# A command of launch/tpu_worker.sh on the worker of that number, or on all.
worker() {
  local which="$1" command
  shift
  command="cd musilingo_jax && launch/tpu_worker.sh$(printf ' %q' "$@")"
  vm ssh "$name" --worker="$which" --command="$command"
}

# The state of the request as gcloud says it, NONE if there is none. Anything else that
# goes wrong is not taken for an answer.
state() {
  local said
  if "$dry_run"; then
    echo "$pretended"
  elif said=$(queue describe "$name" --format='value(state.state)' 2>&1); then
    tail -n 1 <<<"$said"
  elif [[ "$said" == *NOT_FOUND* || "$said" == *"not found"* ]]; then
    echo NONE
  else
    sed '/^+ /d' <<<"$said" >&2
    return 1
  fi
}

# Whether the TPU can no longer be used. Being taken away shows in the VM first.
taken_away() {
  local now said
  "$dry_run" && return 1
  now=$(state) || return 1
  [[ "$now" == ACTIVE ]] || return 0
  said=$(vm describe "$name" --format='value(state)' 2>&1) || true
  case "$(tail -n 1 <<<"$said")" in
    PREEMPTED | TERMINATED | STOPPED | DELETING) return 0 ;;
    *) return 1 ;;
  esac
}

# It takes gcloud a while to know.
taken_away_soon() {
  for _ in {1..6}; do
    taken_away && return 0
    "$dry_run" || sleep "$POLL_SECONDS"
  done
  return 1
}

confirm() {
  local answer=''
  if "$yes" || "$dry_run"; then return 0; fi
  read -r -p "$* [y/N] " answer || true
  [[ "$answer" == [yY]* ]]
}

# Asks for a TPU if there is none, and returns when it can be used.
create() {
  local now before='' begun=$SECONDS
  while true; do
    now=$(state) || die "gcloud does not say what there is; see above"
    [[ "$now" == "$before" ]] || say "$name: $now after $((SECONDS - begun)) s"
    before="$now"
    case "$now" in
      ACTIVE) return ;;
      NONE) ask ;;
      SUSPENDED) discard ;;
      FAILED)
        if "$asked"; then
          queue describe "$name" --format='yaml(state)' >&2 || true
          discard
          die "the TPU was not granted, and costs nothing. If there was none to be had:" \
            "wait, or choose another --zone, --type or a longer --patience"
        fi
        discard
        ;;
      *) sleep "$POLL_SECONDS" ;;
    esac
  done
}

ask() {
  local -a flags=(
    --node-id="$name"
    --accelerator-type="$type"
    --runtime-version="$runtime"
    # Past that the request is void: nothing is granted when nobody waits any more.
    --valid-until-duration="$patience"
    # The workers may write to the bucket.
    --scopes=https://www.googleapis.com/auth/cloud-platform
  )
  [[ "$tier" == --on-demand ]] || flags+=("$tier")
  if ! "$asked"; then
    confirm "Ask for a $type (${tier#--}) in $zone? It costs from then until deleted." ||
      die "nothing was asked for"
  fi
  asked=true pretended=ACTIVE
  queue create "$name" "${flags[@]}" ||
    die "the TPU was not asked for; see above. If it is the quota: ask for more at" \
      "https://console.cloud.google.com/iam-admin/quotas, or choose another --zone or" \
      "--type (spot, reserved and on demand have quotas of their own)"
}

runtime_of() {
  case "$1" in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    *) die "--type=$1: its software is not known here; name it with --runtime=…" ;;
  esac
}

# Removes a request whose TPU is gone, or goes with it.
discard() {
  queue delete "$name" --force --quiet || die "$name could not be deleted; see above"
  pretended=NONE
}

# What can go wrong before anything costs.
prepare() {
  check_bucket
  packed=$(mktemp -d)
  # The code as it is now, committed or not, but nothing that git ignores; after a
  # preemption it is the same.
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
      [[ ! -e "$file" ]] || printf '%s\0' "$file"
    done | tar --null -T - -czf "$packed/musilingo_jax.tgz" ||
    die "the code cannot be packed; see above"
}

# Without folders that are renamed at once, a kill in the middle of saving could leave half a
# checkpoint under the name of a whole one.
check_bucket() {
  local said
  said=$(cloud storage buckets describe "$bucket" --raw \
    --format='value(hierarchicalNamespace.enabled)') ||
    die "$bucket cannot be looked at; see above"
  "$dry_run" || [[ "$said" == [Tt]rue ]] ||
    die "$bucket has no hierarchical namespace, which is chosen when a bucket is made:" \
      "gcloud storage buckets create gs://NAME --location=${zone%-*}" \
      "--uniform-bucket-level-access --enable-hierarchical-namespace"
}

check_run() {
  local flag config=''
  for flag; do
    case "$flag" in --config=*) config="${flag#*=}" ;; esac
  done
  [[ -n "$config" ]] || die "say what to train: … -- --config=configs/tiny.py"
  # What follows a colon is for the file.
  [[ -f "${config%%:*}" ]] || die "--config=$config: there is no ${config%%:*} in $PWD"
}

install() {
  local tries
  # A TPU that was just granted takes a while to let anybody in.
  for tries in {1..10}; do
    vm ssh "$name" --worker=all --command=true && break
    taken_away && return 1
    ((tries < 10)) || die "$name lets nobody in; see above. Is SSH allowed in the" \
      "network (port 22), and in the project for you?"
    sleep "$POLL_SECONDS"
  done
  vm scp "$packed/musilingo_jax.tgz" "$name:musilingo_jax.tgz" --worker=all || return 1
  vm ssh "$name" --worker=all --command="mkdir -p musilingo_jax && tar -xzf \
musilingo_jax.tgz -C musilingo_jax" || return 1
  worker all install "$bucket"
}

follow() { worker 0 follow; }

run() {
  local preemptions=0 lost status since
  local -a flags=("$@")
  [[ " $*" == *" --config.features.cache="* ]] ||
    flags+=("--config.features.cache=$bucket/features/$features")
  while true; do
    create
    status=0
    { install && worker all start "${flags[@]}" && follow; } || status=$?
    # The connection may break (that is what 255 means) while the training goes on.
    lost=0
    while ((status == 255)) && ((lost < 30)) && ! taken_away; do
      say "the connection broke; trying again"
      sleep "$POLL_SECONDS"
      lost=$((lost + 1)) since=$SECONDS status=0
      follow || status=$?
      ((SECONDS - since < 600)) || lost=0
    done
    if ((status == 0)); then
      "$dry_run" || say "done: $bucket/runs has the run"
      return
    fi
    taken_away_soon || die "it ended with status $status, see above and $bucket/runs/logs;" \
      "the TPU is there and was not preempted, so that to begin again would not help"
    preemptions=$((preemptions + 1))
    ((preemptions <= restarts)) || die "preempted $preemptions times; try another zone"
    say "preempted ($preemptions of at most $restarts); asking for another TPU"
    asked=true
    # Of a VM that is gone the request may not know yet; `create` does the rest.
    if [[ "$(state)" == ACTIVE ]]; then discard; fi
  done
}

all() {
  local status=0
  # In a process of its own, so that what fails in it ends it, and not this one.
  (trap 'exit 130' INT TERM && run "$@") || status=$?
  asked=true pretended=ACTIVE
  delete
  return "$status"
}

status() {
  queue list --format='table(name.basename(),state.state,createTime)'
  [[ -z "$name" ]] || say "$name: $(state)"
}

delete() {
  local now
  now=$(state) || die "gcloud does not say what there is; see above"
  if [[ "$now" == NONE ]] && ! "$dry_run"; then
    say "$name: there is none in $zone"
    return
  fi
  if confirm "Delete $name ($now) in $zone? What is in the bucket stays."; then
    discard
    "$dry_run" || say "$name is deleted and costs nothing any more"
  else
    say "$name was not deleted, and costs until it is"
  fi
}

remind_at_exit() {
  trap remind EXIT
  trap 'exit 130' INT TERM # Also where gcloud takes Ctrl-C for itself.
}

remind() {
  local now
  [[ -z "$packed" ]] || rm -r "$packed"
  if "$dry_run"; then
    say "this was a dry run: nothing was asked for, changed or deleted"
    return
  fi
  now=$(state 2>/dev/null) || now=unknown
  case "$now" in
    NONE | SUSPENDED | FAILED) return ;;
    unknown)
      if "$asked"; then
        echo "PERHAPS COSTING: $name in $zone was asked for, and gcloud does not say" \
          "what became of it" >&2
      else
        say "nothing was asked for here; whether there is a $name, gcloud does not say"
        return
      fi
      ;;
    ACTIVE) echo "STILL RUNNING, and costing: $name in $zone" >&2 ;;
    *) echo "STILL ASKED FOR, and costing once it is granted: $name in $zone ($now)" >&2 ;;
  esac
  echo "  look:   launch/tpu_pod.sh logs --name=$name ${place[*]}" >&2
  echo "  delete: launch/tpu_pod.sh delete --name=$name ${place[*]}" >&2
}

main "$@"
