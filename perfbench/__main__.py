"""`perfbench` and `python -m perfbench`: run the command line, turn every deliberate error into its sentence and exit code."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of the console script. Exits with the code of the error that ended it (see perfbench.errors)."""
    from perfbench.cli import app
    from perfbench.errors import EXIT_BROKEN_PIPE, EXIT_FAULT, EXIT_INTERRUPTED, PerfbenchError

    try:
        app()
    except PerfbenchError as error:
        print(f"perfbench: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("perfbench: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`perfbench ... | head`); the interpreter would complain again while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except Exception as error:
        # A fault of ours: still one sentence, and the traceback for whoever asks for it.
        if os.environ.get("PERFBENCH_TRACEBACK"):
            raise
        print(f"perfbench: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        print("hint: this is a fault of perfbench; set PERFBENCH_TRACEBACK=1 to see where, and report it", file=sys.stderr)
        sys.exit(EXIT_FAULT)


if __name__ == "__main__":
    main()
