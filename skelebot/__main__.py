"""`python -m skelebot` and the `skelebot` command."""

import gc
import os
import signal
import sys


def run() -> None:
    # The program is over before collecting garbage can gain anything; it takes a tenth of the time.
    gc.disable()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to interrupt
    if "_SKELEBOT_COMPLETE" in os.environ:  # a shell asks, by the script of `skelebot completion`
        from skelebot.complete import answer

        os._exit(answer())  # someone waits for it, and there is nothing to tidy up
    from skelebot import console
    from skelebot.cli import main

    console.unbuffer_stderr()
    code = main(sys.argv[1:])
    gc.freeze()  # the interpreter would look through everything once more as it ends
    raise SystemExit(code)


if __name__ == "__main__":
    run()
