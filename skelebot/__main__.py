"""`python -m skelebot` and the `skelebot` command."""

import gc
import sys


def run() -> None:
    # The program is over before collecting garbage can gain anything; it takes a tenth of the time.
    gc.disable()
    from skelebot.cli import main

    code = main(sys.argv[1:])
    gc.freeze()  # the interpreter would look through everything once more as it ends
    raise SystemExit(code)


if __name__ == "__main__":
    run()
