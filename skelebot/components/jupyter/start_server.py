"""Start Jupyter in this process. The text of this file is what `python -c` runs, also in a container.

usage: python -c TEXT MODULE [ARGUMENT ...]; stdin holds the token, which others could read as an argument.
"""
# ruff: noqa: E402

import os
import sys

# A file of the project may have the name of one of Jupyter's modules; notebooks can still import it.
_project = ("", os.getcwd(), os.path.join(os.getcwd(), "src"))
sys.path[:] = [path for path in sys.path if path not in _project]

import atexit
import glob
import importlib.util
import json
import runpy
import signal
import tempfile
import threading
import time
from contextlib import suppress


def report_location(pattern: str) -> None:
    """Print where the server listens, from the file that it writes for `jupyter server list`."""
    while True:
        time.sleep(0.1)
        for path in glob.glob(pattern):
            with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
                server = json.load(file)  # which fails while the file is being written
                scheme = "https" if server["secure"] else "http"
                host = f"[{server['hostname']}]" if ":" in server["hostname"] else server["hostname"]
                location = f"{scheme}://{host}:{server['port']}{server['base_url']}"
                sys.stderr.write(f"Jupyter listens: {location}\n")
                return


def import_project_in_kernels() -> None:
    """Let kernels import from PYTHONPATH once they have imported their own modules."""
    names = ("PYTHONPATH", "PYTHONSTARTUP")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    folders = before.get("PYTHONPATH", "").split(os.pathsep)
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False, encoding="utf-8") as file:
        file.write(f"import os, sys\nsys.path[1:1] = {folders!r}\nos.environ.pop('PYTHONSTARTUP')\n")
        file.write(f"os.environ |= {before!r}\n")
        if startup := before.get("PYTHONSTARTUP"):
            file.write(f"exec(compile(open({startup!r}).read(), {startup!r}, 'exec'))\n")
    # IPython runs it: https://ipython.readthedocs.io/en/stable/config/options/kernel.html
    os.environ["PYTHONSTARTUP"] = file.name
    atexit.register(os.unlink, file.name)


sys.stderr.write("starting Jupyter\n")
if os.environ.get("PYTHONPATH"):
    import_project_in_kernels()
# On SIGINT, Jupyter would not wait for its kernels and for files that are being written.
signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
os.environ["JUPYTER_TOKEN"] = token = sys.stdin.readline().strip()
if not token:
    sys.exit("Jupyter received no token, and would let everyone in")
sys.argv = [*sys.argv[1:], f"--IdentityProvider.token={token}"]
if importlib.util.find_spec(sys.argv[0]) is None:
    sys.exit(f"this Python has no {sys.argv[0]}; install it there")

from jupyter_core.paths import jupyter_runtime_dir

written = f"{glob.escape(jupyter_runtime_dir())}/*server-{os.getpid()}.json"
for stale in glob.glob(written):  # by an earlier process with this number
    os.unlink(stale)
threading.Thread(target=report_location, args=(written,), daemon=True).start()
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
