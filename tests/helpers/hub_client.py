"""Processes in which huggingface_hub reads its environment variables anew.

It reads them when it is imported. A process serves many calls, because starting one
takes longer than any of them.
"""

import json
import os
import subprocess
import sys
from contextlib import ExitStack

PROGRAM = """
import json, sys
from musilingo_jax.pretrained import hub, sources
from musilingo_jax.runtime.errors import UserError

for line in sys.stdin:
    try:
        answer = eval(json.loads(line))
    except UserError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"""


class Clients:
    """Calls expressions in processes, one for each environment.

    clients("hub.is_available('a/b')", HF_HUB_OFFLINE="1")
    """

    def __init__(self, **environment):
        """All processes have these variables; calls may add others."""
        self._environment = environment
        self._processes = {}
        self._stack = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self._processes.values():
            process.stdin.close()
        self._stack.close()  # Waits for them.

    def __call__(self, expression, **environment):
        """The value of an expression; {"error": …} for a UserError."""
        process = self._process(environment)
        print(json.dumps(expression), file=process.stdin, flush=True)
        line = process.stdout.readline()
        assert line, f"{expression} ended its process"
        return json.loads(line)

    def _process(self, environment):
        key = tuple(sorted(environment.items()))
        if key not in self._processes:
            self._processes[key] = self._stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | self._environment | environment,
                )
            )
        return self._processes[key]
