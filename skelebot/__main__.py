"""`python -m skelebot` and the `skelebot` command."""

import gc
import os
import signal
import sys
import warnings


def run() -> None:
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # such as Python's of a pattern in the project, in lines of its own
    # Garbage collection takes a tenth of the time, and the program ends before it pays off.
    gc.disable()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to interrupt
    if "_SKELEBOT_COMPLETE" in os.environ:  # set by the script of `skelebot completion`
        from skelebot.complete import answer

        os._exit(answer())  # quickly, because someone is waiting and there is nothing to clean up
    from skelebot import console
    from skelebot.cli import main

    console.unbuffer_stderr()
    code = main(sys.argv[1:])
    if guard := sys.modules.get("skelebot.plugins.guard"):
        guard.end_in_time(code)
    gc.freeze()  # otherwise the interpreter would collect once more at exit
    raise SystemExit(code)


if __name__ == "__main__":
    run()
