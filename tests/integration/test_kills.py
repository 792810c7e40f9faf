"""Nothing is lost and nothing runs twice, whoever is killed: a tenth of what `tests/kill_runs.py` can do."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "kill_runs.py"


def test_kills() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "60", "5"], capture_output=True, text=True, timeout=600)
    assert done.stdout.splitlines()[-1:] == ["0 lost, 0 twice, 0 beside itself, 0 left behind"], done
    assert done.returncode == 0
