#!/usr/bin/env bash
# Trains on a Cloud TPU with one worker or many, or runs another program there, and keeps
# track of what costs money.
#
#   launch/tpu_pod.sh COMMAND --name=NAME --zone=ZONE [OPTIONS] [-- FLAGS]
#
#   create    requests the TPU and waits until it is granted
#   install   copies the code, installs the locked packages, mounts the bucket
#   run       starts the program, shows its log, and starts over after a preemption
#   logs      shows the log from its beginning
#   stop      lets the program save and exit; keeps the TPU
#   status    lists the TPUs in the zone
#   delete    deletes the TPU
#   all       create, install, run, delete
#
#   --name=NAME          of the TPU, and of the request for it
#   --zone=ZONE          such as us-west4-a
#   --type=TYPE          such as v5litepod-8 (v5e), v6e-8, v5p-8, v4-32
#   --program=NAME       train (the default), cache, generate or evaluate
#   --bucket=gs://NAME   keeps runs/, models/, corpora/ and features/
#   --features=NAME      the cache in the bucket's features/; default mert_330m
#   --spot               cheap, but may be preempted at any moment; the default
#   --reserved           from a reservation that you have
#   --on-demand          neither
#   --project=ID         default: gcloud's
#   --runtime=VERSION    software of the TPU; default: the one for the type
#   --patience=DURATION  how long the request stays in the queue; default 6h
#   --restarts=N         give up after N preemptions; default 50
#   --yes                do not ask. `all` then deletes the TPU, even after a failure
#   --dry-run            print the commands, but run none
#
# For example, and without risk:
#
#   launch/tpu_pod.sh all --dry-run --name=mine --zone=us-west4-a --type=v5litepod-8 \
#     --bucket=gs://mine -- --config=configs/finetune_music_instruct.py:long
#
# The FLAGS after -- go to the program. You pay from when the TPU is granted until it is
# deleted, whether it works or not. The program continues when this script or its connection
# ends; `logs` shows it again. Every command can be repeated: it checks what exists and does
# only what is missing.
#
# More in launch/README.md. The commands were tested with a fake gcloud only.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly POLL_SECONDS="${POLL_SECONDS:-20}"
program=train name='' zone='' type='' bucket='' features=mert_330m tier=--spot project='' runtime=''
patience=6h restarts=50 yes=false dry_run=false
# Whether this script has requested the TPU and, in a dry run, the state that it would have.
asked=false pretended=NONE
place=()  # The flags for the zone and the project.
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
      --*=) die "$1 is empty: give it a value, or leave it out" ;;
      --program=*) program="${1#*=}" ;;
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
      -h | --help) command=help ;;
      *) die "unknown option $1; put flags of the program after -- (try: $0 help)" ;;
    esac
    shift
  done
  case "$program" in
    train | cache | generate | evaluate) ;;
    *)
      die "--program=$program: choose train, cache, generate or evaluate; annotate, caption and" \
        "instruct are shared out by launch/share.sh, or launch/kubernetes.yaml"
      ;;
  esac
  place=("--zone=$zone")
  [[ -z "$project" ]] || place+=("--project=$project")
  [[ "$restarts" =~ ^[0-9]{1,6}$ ]] ||
    die "--restarts=$restarts: must be a whole number below a million"
  restarts=$((10#$restarts)) # 08 would be octal.
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
  for option in name zone type bucket features project runtime patience; do
    check_placeholder "--$option" "${!option}"
  done
  [[ -z "$bucket" || "$bucket" =~ ^gs://[a-z0-9._-]+$ ]] ||
    die "--bucket=$bucket: must name a bucket and no folder in it, as gs://NAME"
  if [[ -n "$type" && -z "$runtime" ]]; then runtime=$(runtime_of "$type") || exit 1; fi
  command -v gcloud >/dev/null || "$dry_run" ||
    die "gcloud is not installed: see https://cloud.google.com/sdk/docs/install"
}

# Refuses what the documentation writes for a value of yours: … or a word in capitals.
check_placeholder() {
  if [[ "$2" == *…* || "${2#gs://}" =~ ^[A-Z_]{2,}$ ]]; then
    die "$1=$2: replace ${2#gs://} with a value of your own (try: $0 help)"
  fi
}

# Prints a gcloud command and, unless this is a dry run, runs it.
cloud() {
  local word line='+ gcloud'
  for word; do line+=" $(printf %q "$word")"; done
  echo "$line" >&2
  "$dry_run" || gcloud "$@"
}

queue() { cloud compute tpus queued-resources "$@" "${place[@]}"; }

vm() { cloud compute tpus tpu-vm "$@" "${place[@]}"; }

# Runs a command of launch/tpu_worker.sh on the worker with a number, or on all.
worker() {
  local which="$1" command
  shift
  command="cd musilingo_jax && launch/tpu_worker.sh$(printf ' %q' "$@")"
  vm ssh "$name" --worker="$which" --command="$command"
}

# Prints the state of the request, NONE if it does not exist. Fails on any other error of
# gcloud, which must not look like a TPU that does not exist.
state() {
  local output
  if "$dry_run"; then
    echo "$pretended"
  elif output=$(queue describe "$name" --format='value(state.state)' 2>&1); then
    tail -n 1 <<<"$output"
  elif [[ "$output" == *NOT_FOUND* || "$output" == *"not found"* ]]; then
    echo NONE
  else
    sed '/^+ /d' <<<"$output" >&2
    return 1
  fi
}

# Whether the TPU was preempted or deleted. The VM shows it before the request does.
is_gone() {
  local now output
  "$dry_run" && return 1
  now=$(state) || return 1
  [[ "$now" == ACTIVE ]] || return 0
  output=$(vm describe "$name" --format='value(state)' 2>&1) || true
  case "$(tail -n 1 <<<"$output")" in
    PREEMPTED | TERMINATED | STOPPED | DELETING) return 0 ;;
    *) return 1 ;;
  esac
}

# The same, but gives gcloud some time to notice.
is_gone_soon() {
  for _ in {1..6}; do
    is_gone && return 0
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

# Requests a TPU if none exists, and returns when it can be used.
create() {
  local now before='' begun=$SECONDS
  while true; do
    now=$(state) || die "gcloud cannot tell the state of $name; see above"
    [[ "$now" == "$before" ]] || say "$name: $now after $((SECONDS - begun)) s"
    before="$now"
    case "$now" in
      ACTIVE) return ;;
      NONE) request ;;
      SUSPENDED) discard ;;
      FAILED)
        if "$asked"; then
          queue describe "$name" --format='yaml(state)' >&2 || true
          discard
          die "the TPU was not granted, and costs nothing. If none was available: wait," \
            "or choose another --zone or --type, or a longer --patience"
        fi
        discard
        ;;
      *) sleep "$POLL_SECONDS" ;;
    esac
  done
}

request() {
  local -a flags=(
    --node-id="$name"
    --accelerator-type="$type"
    --runtime-version="$runtime"
    # Then the request expires, so that no TPU is granted when nobody waits for it.
    --valid-until-duration="$patience"
    # Lets the workers write to the bucket.
    --scopes=https://www.googleapis.com/auth/cloud-platform
  )
  [[ "$tier" == --on-demand ]] || flags+=("$tier")
  if ! "$asked"; then
    confirm "Request a $type (${tier#--}) in $zone? It costs money until it is deleted." ||
      die "nothing was requested"
  fi
  asked=true pretended=ACTIVE
  queue create "$name" "${flags[@]}" ||
    die "the TPU was not requested; see above. If it is the quota: request more at" \
      "https://console.cloud.google.com/iam-admin/quotas, or choose another --zone or" \
      "--type (spot, reserved and on demand have separate quotas)"
}

runtime_of() {
  case "$1" in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    *) die "--type=$1: this type is unknown; also name its software with --runtime=…" ;;
  esac
}

# Deletes a request, and its TPU if that still exists.
discard() {
  queue delete "$name" --force --quiet || die "$name could not be deleted; see above"
  pretended=NONE
}

# Does first what may fail, before anything costs money.
prepare() {
  check_bucket
  packed=$(mktemp -d)
  # Packs the code as it is now, committed or not, without what git ignores; the same
  # package is used again after a preemption.
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
      [[ ! -e "$file" ]] || printf '%s\0' "$file"
    done | tar --null -T - -czf "$packed/musilingo_jax.tgz" ||
    die "the code cannot be packed; see above"
}

# Only a hierarchical namespace renames folders atomically. Without it, a kill in the middle
# of saving could leave half a checkpoint under the name of a whole one.
check_bucket() {
  local output
  output=$(cloud storage buckets describe "$bucket" --raw \
    --format='value(hierarchicalNamespace.enabled)') ||
    die "$bucket cannot be read; see above"
  "$dry_run" || [[ "$output" == [Tt]rue ]] ||
    die "$bucket has no hierarchical namespace. Only a new bucket can have one:" \
      "gcloud storage buckets create gs://NAME --location=${zone%-*}" \
      "--uniform-bucket-level-access --enable-hierarchical-namespace"
}

check_run() {
  local flag config=''
  for flag; do
    case "$flag" in --config=*) config="${flag#*=}" ;; esac
  done
  [[ -n "$config" ]] || die "name what to ${program}: … -- --config=configs/tiny.py"
  check_placeholder --config "$config"
  # What follows a colon is the argument of the file.
  [[ -f "${config%%:*}" ]] || die "--config=$config: there is no ${config%%:*} in $PWD"
}

install() {
  local tries
  # A TPU that was just granted refuses connections for a while.
  for tries in {1..10}; do
    vm ssh "$name" --worker=all --command=true && break
    is_gone && return 1
    ((tries < 10)) || die "$name refuses SSH; see above. Check that the network allows" \
      "port 22 and that the project allows you to connect"
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
    { install && worker all start "$program" "${flags[@]}" && follow; } || status=$?
    # 255 means that the connection broke; the program continues without it.
    lost=0
    while ((status == 255)) && ((lost < 30)) && ! is_gone; do
      say "the connection broke; trying again"
      sleep "$POLL_SECONDS"
      lost=$((lost + 1)) since=$SECONDS status=0
      follow || status=$?
      ((SECONDS - since < 600)) || lost=0
    done
    if ((status == 0)); then
      "$dry_run" || say "done: what it wrote is in $bucket"
      return
    fi
    is_gone_soon || die "$program failed with status $status; see above and" \
      "$bucket/runs/logs. The TPU was not preempted, so starting over would not help"
    preemptions=$((preemptions + 1))
    ((preemptions <= restarts)) || die "preempted $preemptions times; try another zone"
    say "preempted ($preemptions of at most $restarts); requesting another TPU"
    asked=true
    # The request may not show yet that its VM is gone; `create` does the rest.
    if [[ "$(state)" == ACTIVE ]]; then discard; fi
  done
}

all() {
  local status=0
  # In a subshell, so that a failure does not end this script before the TPU is deleted.
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
  now=$(state) || die "gcloud cannot tell the state of $name; see above"
  if [[ "$now" == NONE ]] && ! "$dry_run"; then
    say "$name does not exist in $zone"
    return
  fi
  if confirm "Delete $name ($now) in $zone? The bucket keeps its contents."; then
    discard
    "$dry_run" || say "$name is deleted and no longer costs anything"
  else
    say "$name was not deleted, and costs money until it is"
  fi
}

remind_at_exit() {
  trap remind EXIT
  trap 'exit 130' INT TERM # Even if gcloud handles Ctrl-C itself.
}

remind() {
  local now
  [[ -z "$packed" ]] || rm -r "$packed"
  if "$dry_run"; then
    say "this was a dry run: nothing was requested, changed or deleted"
    return
  fi
  now=$(state 2>/dev/null) || now=unknown
  case "$now" in
    NONE | SUSPENDED | FAILED) return ;;
    unknown)
      if "$asked"; then
        echo "MAY COST MONEY: $name in $zone was requested, and gcloud cannot tell its" \
          "state" >&2
      else
        say "nothing was requested; gcloud cannot tell whether $name exists"
        return
      fi
      ;;
    ACTIVE) echo "STILL COSTS MONEY: $name in $zone is running" >&2 ;;
    *) echo "WILL COST MONEY once it is granted: $name in $zone ($now)" >&2 ;;
  esac
  echo "  watch:  launch/tpu_pod.sh logs --name=$name ${place[*]}" >&2
  echo "  delete: launch/tpu_pod.sh delete --name=$name ${place[*]}" >&2
}

main "$@"
