"""One rehearsal in a separate process: JSON from the input, JSON to the output."""

import contextlib
import ctypes
import json
import os
import signal
import sys

from sam_jax import errors


def main() -> int:
    """Answers the request on the standard input with ``result`` or ``error``."""
    # The compiler listens to no signals, and must not outlive who asked.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print what they like
    wanted = json.load(sys.stdin)
    from sam_jax.methods import core
    from sam_jax.rehearsal import programs

    # Loops are written as where the step will run, not as for the CPU that traces it.
    core.unroll = lambda length: False
    try:
        answer = {"result": programs.request(wanted)}
    except errors.UserError as error:
        answer = {"error": str(error)}
    json.dump(answer, out)
    out.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
