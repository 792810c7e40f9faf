"""`python -m skelebot` and the `skelebot` command."""

import sys

from skelebot.cli import main


def run() -> None:
    raise SystemExit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
