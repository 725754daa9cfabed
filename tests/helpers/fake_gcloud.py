"""A fake gcloud: it records each call and follows a script of events.

It is copied to a folder of the PATH. In the same folder are

    calls          its arguments, a line of JSON for each call
    world.json     "state" of the request, "vm" of the TPU, and the events to come:
                   "grants": the states of the request, one per `describe`
                   "futures": the grants of later requests
                   "create", "describe", "ssh", "scp", "install", "start", "follow":
                   the outcomes of the next such calls; after them, calls succeed

An outcome is a number, to exit with; a text, to fail with that message; or "preempt",
which takes the TPU away in the middle of the call.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(sys.argv[0]).parent
WORLD = FOLDER / "world.json"


def main(words: list[str]) -> int:
    """Does one call."""
    with open(FOLDER / "calls", "a", encoding="utf-8") as calls:
        calls.write(json.dumps(words) + "\n")
    world = json.loads(WORLD.read_text())
    try:
        return answer(words, world)
    finally:
        WORLD.write_text(json.dumps(world))


def answer(words: list[str], world: dict) -> int:
    """Does what gcloud would do in that world, and changes the world."""
    match words:
        case ["storage", "buckets", "describe", *_]:
            print(world.get("hierarchical", "True"))
            return 0
        case ["compute", "tpus", "queued-resources", "describe", *_]:
            if status := happen("describe", world):
                return status
            if world["state"] == "NONE":
                print(
                    "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: "
                    "Resource 'queuedResources/mine' was not found",
                    file=sys.stderr,
                )
                return 1
            print(world["state"])
            if world["grants"]:
                world["state"] = world["grants"].pop(0)
            return 0
        case ["compute", "tpus", "queued-resources", "create", *_]:
            if status := happen("create", world):
                return status
            path = world["futures"].pop(0) if world["futures"] else ["ACTIVE"]
            world |= {"state": path[0], "grants": path[1:], "vm": "READY"}
            return 0
        case ["compute", "tpus", "queued-resources", "delete", *_]:
            world |= {"state": "NONE", "grants": []}
            return 0
        case ["compute", "tpus", "queued-resources", "list", *_]:
            return 0
        case ["compute", "tpus", "tpu-vm", "describe", *_]:
            print(world["vm"])
            return 0
        case ["compute", "tpus", "tpu-vm", "scp", *_]:
            return happen("scp", world)
        case ["compute", "tpus", "tpu-vm", "ssh", *flags]:
            command = next(flag for flag in flags if flag.startswith("--command="))
            done = [kind for kind in ("install", "start", "follow") if kind in command]
            return happen(done[0] if done else "ssh", world)
    print(f"ERROR: unknown command {words}", file=sys.stderr)
    return 2


def happen(kind: str, world: dict) -> int:
    """The next outcome of such a call, as an exit status."""
    events = world.get(kind) or [0]
    event = events[0]
    world[kind] = events[1:]
    if event == "preempt":
        # The machine goes first; the request shows it later.
        world |= {"vm": "PREEMPTED", "grants": ["SUSPENDING", "SUSPENDED"]}
        return 255
    if isinstance(event, str):
        print(f"ERROR: (gcloud) {event}", file=sys.stderr)
        return 1
    return event


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
