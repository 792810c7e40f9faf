"""`skelebot ui`: the page over HTTP, and in a real browser."""

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import browsing
from harness import SCIENCE, Sandbox, job, queueing, run_folder, wait_for
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_docs import ROOT

PICTURE = b"\x89PNG\r\n\x1a\n" + b"0" * 20
SECRET = "correct-horse-battery"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Page:
    """A page that is being served. url: with the token, and without a / at its end."""

    url: str
    process: "subprocess.Popen[bytes]"

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Requests a path below the token, or, where it begins with //, of the server."""
        place = urlsplit(self.url)
        assert place.hostname
        connection = http.client.HTTPConnection(place.hostname, place.port or 0, timeout=60)
        whole = path[1:] if path.startswith("//") else f"{place.path}{path}"
        connection.request(method, whole, headers=headers)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        body = answer.read().decode("utf-8", "replace")
        connection.close()
        return Answer(answer.status, found, body)


@contextmanager
def serving(sandbox: Sandbox, *words: str, **options: Path) -> Iterator[Page]:
    """Serves the page; at the end it is interrupted, which must end it with 0."""
    with sandbox.start("ui", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline().decode().strip()
        if not line:
            raise AssertionError(process.stderr.read())
        try:
            yield Page(line.rstrip("/"), process)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            said = process.stderr.read().decode().splitlines()
            assert said[-1] == "INFO  | Ctrl-C ends the page; runs go on"
            assert [line for line in said if not line.startswith(("INFO  | ", "WARN  | "))] == []


def test_what_is_no_request_is_not_reported(sandbox: Sandbox) -> None:
    with serving(sandbox) as page:
        place = urlsplit(page.url)
        with socket.create_connection((str(place.hostname), place.port or 0), timeout=60) as client:
            client.sendall(b"\x16\x03\x01\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 400")


@pytest.fixture
def project(sandbox: Sandbox) -> Sandbox:
    """Two runs that are done, which differ in a parameter and in their code, and have outputs."""
    own = queueing(
        sandbox,
        job(
            "src/train.sh",
            "train",
            outputs="[models/]",
            params="[{name: rate, default: 0.1}, {name: depth, default: 3}, "
            "{name: key, secret: true, default: $TOKEN}]",
        ),
        environment="{PLAIN: seen, TOKEN: null}",
    ).with_env(TOKEN=SECRET)
    own.write("plot.png", PICTURE)
    own.write("drawing.svg", "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    own.write(
        "src/train.sh",
        """\
        test "$TOKEN" && echo "training with $1 $2 $3 $4"
        mkdir -p models/deep
        cp plot.png models/plot.png
        cp drawing.svg models/drawing.svg
        echo model >models/deep/model.txt
        ln -s /etc/passwd models/link
        ln -s / models/root
        """,
    )
    own.ok("queue", "--now", "train")
    own.write("src/train.sh", own.read("src/train.sh") + "echo more\n")
    own.ok("queue", "--now", "train", "--rate", "0.2")
    return own


# --- who may see it ---


def test_only_who_has_the_address_sees_the_page(project: Sandbox) -> None:
    with serving(project) as page:
        port = urlsplit(page.url).port
        assert page.url.startswith("http://127.0.0.1:")
        assert page.get("/project/queue").status == 200
        assert page.get("/").headers["location"] == f"{urlsplit(page.url).path}/project/queue"
        refused = [
            page.get("//"),
            page.get("//project/queue"),
            page.get(f"//{'x' * 32}/project/queue"),
            page.get(f"/{urlsplit(page.url).path[1:-1]}/project/queue", Host="evil.example"),
            page.get("/project/queue", Host=f"evil.example:{port}"),
            page.get("/project/queue", Origin="http://evil.example"),
            page.get("/project/queue", Origin="null"),
            page.get("//static/page.css"),
        ]
        assert [answer.status for answer in refused] == [403] * len(refused)
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert page.get("/project/queue", method).status == 405
        assert page.get("/project/queue", Host="localhost:9999").status == 200
        far = ("run/9", f"run/{'9' * 18}", f"run/{'9' * 5000}", f"run/1/log/{'1' * 5000}/1", "run/1/log/9/9")
        assert [page.get(f"/project/{path}").status for path in far] == [404] * len(far)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port or 0))


def test_each_answer_forbids_scripts_of_others(project: Sandbox) -> None:
    with serving(project) as page:
        for path in ("/project/queue", "/project/runs", "/project/none", "//wrong"):
            headers = page.get(path).headers
            assert "script-src 'self'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"
            assert "server" not in headers
        assert "max-age" in page.get("/static/page.js").headers["cache-control"]


def test_nothing_is_loaded_from_elsewhere(project: Sandbox) -> None:
    with serving(project) as page:
        for path in ("/project/queue", "/project/runs", "/project/run/1", "/project/compare?run=1,2"):
            text = page.get(path).body
            found = re.findall(r"(?:src|href|action)=\"([^\"]*)", text)
            assert found
            assert [each for each in found if not each.startswith(("/", "#", "data:,"))] == []
            assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", text)
        assert "plotly.js" in page.get("/static/plotly.min.js").body[:200]


def test_no_secret_is_on_any_page(project: Sandbox) -> None:
    with serving(project) as page:
        for path in ("/project/queue", "/all/runs", "/project/run/1", "/project/compare?run=1,2"):
            answer = page.get(path)
            assert answer.status == 200
            assert SECRET not in answer.body
        shown = page.get("/project/run/1").body
        assert "PLAIN = seen" in shown
        assert "TOKEN, from the worker&#39;s environment" in shown
        assert "<dt>key</dt><dd>***</dd>" in shown
        assert "--key ***" in shown


def test_a_page_writes_nothing(project: Sandbox) -> None:
    def state() -> list[tuple[str, int]]:
        top = Path(project.env["SKELEBOT_STORE"])
        found = [path for path in top.rglob("*") if path.name not in ("runs.db-shm", "runs.db-wal")]
        return sorted((str(path), path.lstat().st_mtime_ns) for path in found if not path.is_dir())

    before = state()
    with serving(project) as page:
        for path in ("queue", "runs", "run/1", "compare?run=1,2", "sweeps", "curves?run=1"):
            assert page.get(f"/project/{path}").status == 200
    assert state() == before


# --- what it shows ---


def test_a_project_shows_its_own_runs_and_leads_to_all(project: Sandbox) -> None:
    other = Sandbox(project.root.parent / "other", project.uid, project.env)
    other.root.mkdir()
    queueing(other, job("true", "other"))
    other.ok("queue", "--now", "other")
    with serving(project) as page:
        assert "2 runs" in page.get("/project/runs").body
        assert "3 runs" in page.get("/all/runs").body
        assert f'href="{urlsplit(page.url).path}/all/runs"' in page.get("/project/runs").body
    with serving(project, cwd=project.root.parent) as page:
        assert page.get("/").headers["location"].endswith("/all/queue")
        assert "3 runs" in page.get("/all/runs").body
        assert page.get("/project/runs").status == 404


def test_a_page_is_shown_while_the_configuration_is_wrong(project: Sandbox) -> None:
    project.write("skelebot.yaml", "name: [")
    with serving(project) as page:
        assert "2 runs" in page.get("/all/runs").body


def test_a_page_without_any_run(sandbox: Sandbox) -> None:
    own = sandbox.with_env(SKELEBOT_STORE=str(sandbox.root.parent / "store"))
    with serving(own) as page:
        assert "Nothing is queued" in page.get("/all/queue").body
        assert "0 runs" in page.get("/all/runs").body
        assert "There are no sweeps" in page.get("/all/sweeps").body
        missing = page.get("/all/run/1")
        assert missing.status == 404
        assert "there is no run 1" in missing.body


def test_a_run_that_comes_is_shown(project: Sandbox) -> None:
    with serving(project) as page:
        assert "2 runs" in page.get("/project/runs").body
        project.ok("queue", "train", "--depth", "9")
        assert "3 runs" in page.get("/project/runs").body
        assert "train.depth" in page.get("/project/runs").body
        queue = page.get("/project/queue").body
        assert "0 running, 1 waiting" in queue
        assert re.search(r"Time left: about .* \(from 2 runs\)", queue)


def test_the_address_of_a_table_says_what_it_shows(project: Sandbox) -> None:
    def numbers(text: str) -> list[int]:
        return [int(number) for number in re.findall(r'<th scope="row" class="run"><a [^>]*>(\d+)<', text)]

    with serving(project) as page:
        assert numbers(page.get("/project/runs").body) == [2, 1]
        assert numbers(page.get("/project/runs?sort=param%3Atrain.rate").body) == [1, 2]
        assert numbers(page.get("/project/runs?sort=fact:run&sort=-fact:run").body) == [2, 1]
        assert numbers(page.get("/project/runs?words=rate%3D0.2").body) == [2]
        assert numbers(page.get("/project/runs?state=failed").body) == []
        assert numbers(page.get("/project/runs?page=77&words=").body) == [2, 1]
        ticked = page.get("/project/runs?words=rate%3D0.2&run=1&run=2").body
        assert '<input type="hidden" name="run" value="1">' in ticked
        assert 'value="2" checked' in ticked


def test_the_page_of_a_sweep_and_the_command_name_the_same_best_run(sandbox: Sandbox) -> None:
    text = """echo '{"loss": '$2'}' >>$SKELEBOT_METRICS; test $2 -gt 0"""
    own = queueing(sandbox, job(text, "train", params="[{name: loss, default: 0}, {name: seed, default: 0}]"))
    swept = ("--name", "s", "--sweep", "loss=2,0,1", "--sweep", "seed=1,2", "train")
    own.ok("queue", "--goal", "min:loss", *swept)
    own.ok("queue", "--again", *swept)  # whose runs have no goal
    own.run("worker", "--drain")
    best = own.ok("runs", "best", "s").strip()  # neither one that has failed nor the later of two
    with serving(own) as page:
        shown = page.get("/project/sweep?name=s").body
    assert re.findall(r"Best so far: <a [^>]*>run (\d+)</a> with loss (\S+),", shown) == [(best, "1")]


@pytest.mark.parametrize("path", ["compare?run=1&run=x", "compare?run=1", "compare", "compare?run=-1"])
def test_one_run_is_not_compared(project: Sandbox, path: str) -> None:
    with serving(project) as page:
        answer = page.get(f"/project/{path}")
        assert answer.status == 200
        assert "Tick two runs or more" in answer.body


def test_the_files_of_a_run(project: Sandbox) -> None:
    with serving(project) as page:
        shown = page.get("/project/run/1").body
        for name in ("models/plot.png", "models/drawing.svg", "models/deep/model.txt"):
            assert f"/project/run/1/files/{name}" in shown
        assert "models/link" not in shown
        picture = page.get("/project/run/1/files/models/plot.png")
        assert (picture.status, picture.headers["content-type"]) == (200, "image/png")
        assert "content-disposition" not in picture.headers
        drawing = page.get("/project/run/1/files/models/drawing.svg")
        assert drawing.headers["content-type"] == "image/svg+xml"
        assert drawing.headers["content-disposition"].startswith("attachment")
        text = page.get("/project/run/1/files/models/deep/model.txt")
        assert (text.body, text.headers["content-type"]) == ("model\n", "application/octet-stream")
        assert text.headers["content-disposition"].startswith("attachment")
        for answer in (picture, drawing, text):
            assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        *("models/link", "models/root/etc/passwd", "models", "models/", "models/none"),
        *("../run.json", "models/../../run.json", "models/..%2f..%2frun.json", "%2e%2e/run.json"),
        *("/etc/passwd", "%2Fetc%2Fpasswd", "models/plot.png%00", "run.json", "plot.png"),
    ],
)
def test_nothing_else_is_given_out(project: Sandbox, path: str) -> None:
    with serving(project) as page:
        answer = page.get(f"/project/run/1/files/{path}")
        assert answer.status == 404
        assert "root:" not in answer.body


def test_a_log_is_read_from_where_a_reader_is(project: Sandbox) -> None:
    with serving(project) as page:
        first = json.loads(page.get("/project/run/1/log/1/1?from=0").body)
        assert first["lines"] == ["training with --rate 0.1 --depth 3"]
        assert first["over"] is True
        rest = json.loads(page.get(f"/project/run/1/log/1/1?from={first['next']}").body)
        assert (rest["lines"], rest["next"]) == ([], first["next"])
        whole = page.get("/project/run/1/whole-log/1/1")
        assert whole.body == "training with --rate 0.1 --depth 3\n"
        assert whole.headers["content-disposition"].startswith("attachment")
        for place in ("0/1", "2/1", "1/2", "1/0"):
            assert page.get(f"/project/run/1/log/{place}").status == 404
        with next(run_folder(project, 1).glob("tasks/*/log")).open("w") as log:
            log.writelines(f"{line:9}\n" for line in range(300_000))
        far = json.loads(page.get("/project/run/1/log/1/1?from=20").body)
        assert (far["lines"][0], far["lines"][-1]) == ("[2.9 MB are left out here]", f"{299_999:9}")
        assert (len(far["lines"]), far["over"]) == (6554, True)


def test_curves_that_are_found_in_the_output_grow(sandbox: Sandbox) -> None:
    step = sandbox.root.parent / "step"
    source = f"for n in 1 2 3; do while [ ! -e {step}$n ]; do sleep 0.05; done; echo loss=$n; done"
    own = queueing(sandbox, job(source, metrics="{loss: 'loss=(.*)'}"))
    own.ok("queue", "run")

    def values(page: Page) -> list[float]:
        figures = json.loads(page.get("/project/curves?run=1").body)["figures"]
        return [y for figure in figures for line in figure["data"] for y in line["y"]]

    with own.start("worker", "--drain", stderr=subprocess.DEVNULL) as worker, serving(own) as page:
        try:
            for n in (1, 2):
                Path(f"{step}{n}").touch()
                wait_for(partial(_are, [1, 2][:n], partial(values, page)))
        finally:
            for n in (1, 2, 3):
                Path(f"{step}{n}").touch()
        worker.wait()
        assert values(page) == [1, 2, 3]


def _are(expected: list[int], values: Callable[[], list[float]]) -> bool:
    return values() == expected


# --- the command ---


def test_a_port_can_be_chosen_and_must_be_free(project: Sandbox) -> None:
    with serving(project) as page:
        port = str(urlsplit(page.url).port)
        taken = project.run("ui", "--port", port)
        assert taken.code == 1
        assert taken.errors == [
            f"ERROR | ui: --port: {port} is not available: address already in use; choose another, or leave "
            "out --port"
        ]
    with serving(project, "--port", port) as page:
        assert urlsplit(page.url).port == int(port)
    assert project.run("ui", "--port", "70000").code == 2


def test_ctrl_c_as_soon_as_the_address_is_there(project: Sandbox) -> None:
    for _ in range(5):
        with serving(project):
            pass


def test_a_browser_is_opened_without_the_token_among_its_arguments(project: Sandbox) -> None:
    browser = project.write("../browser", "#!/bin/sh\ncp ${1#file://} page\necho $1 >opened\n", 0o755)
    with serving(project.with_env(BROWSER=str(browser)), "--open") as page:
        wait_for(lambda: (project.root / "opened").exists() and project.read("opened"))
        assert urlsplit(page.url).path not in project.read("opened")
        assert f"url={page.url}/" in project.read("page")
    assert not os.path.exists(project.read("opened").strip().removeprefix("file://"))


def test_sigterm_ends_it_while_a_browser_holds_a_connection(project: Sandbox) -> None:
    with project.start("ui", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        place = urlsplit(process.stdout.readline().decode().strip())
        with socket.create_connection((place.hostname or "", place.port or 0)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_without_its_packages_it_says_how_to_get_them(sandbox: Sandbox) -> None:
    environment = sandbox.root.parent / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (folder,) = environment.glob("lib/python*/site-packages")
    for name in ("yaml", "skelebot"):
        found = next(Path(p, name) for p in [str(ROOT), *sys.path] if Path(p, name).is_dir())
        shutil.copytree(found, folder / name)
    python = str(environment / "bin" / "python")
    child = sandbox.without_env("PYTHONPATH").popen(
        python, "-m", "skelebot", "ui", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (1, b"")
    assert err.decode() == (
        "ERROR | ui: starlette, uvicorn, plotly must be installed; run `pip install 'skelebot[ui]'`\n"
    )


def test_dry_run_serves_nothing(project: Sandbox) -> None:
    assert project.ok("--dry-run", "ui", "--port", "8000") == "serve the page at 127.0.0.1, port 8000\n"


def test_only_so_many_runs_are_compared(project: Sandbox) -> None:
    project.ok("queue", "--sweep", "train.depth=1..60", "train")
    with serving(project) as page:
        some = page.get(f"/project/compare?run={','.join(map(str, range(1, 61)))}").body
        assert "Only the first 50 runs are compared" in some
        assert "Only the first" not in page.get("/project/compare?run=1,2,3").body


# --- in a browser ---

# Measures and reports a step every moment, until a file says that it has to end.
TRAINING = """\
import json, os, sys, time

values = dict(zip(sys.argv[1::2], sys.argv[2::2]))
rate = float(values["--rate"])
with open("models/drawing.svg", "w") as file:
    file.write('<svg xmlns="http://www.w3.org/2000/svg" width="60" height="60"><circle r="20"/>')
    file.write("<script>document.title = 'hacked'</script></svg>")
step = 0
while not os.path.exists(values["--until"]):
    print(f"\x1b[32mstep {step}\x1b[0m of rate {rate} <script>document.title='hacked'</script>", flush=True)
    with open(os.environ["SKELEBOT_METRICS"], "a") as file:
        file.write(json.dumps({"step": step, "loss": 1 / (1 + rate * step), "progress": 0.5}) + "\\n")
    step += 1
    time.sleep(0.2)
"""


def _shows(page: "Tab", what: str, words: str) -> bool:
    return words in page.texts(what)[0]


HOSTILE = """<img src=x onerror="document.title='hacked'">"""


@pytest.fixture
def training(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Two runs that train side by side until there is a file `end` beside the project."""
    own = queueing(
        sandbox,
        job(
            "src/train.py",
            "train",
            outputs="[models/]",
            params="[{name: rate, default: 0.1}, {name: until}, {name: word, default: ''}]",
        ),
    )
    own.write("src/train.py", TRAINING)
    end = str(own.root.parent / "end")
    own.ok("queue", "train", "--until", end)
    own.write("src/train.py", TRAINING + "# changed: <b>bold</b>\n")
    own.ok("queue", "train", "--until", end, "--rate", "0.5", "--word", HOSTILE)
    with own.start("worker", "-j", "2", "--drain", stderr=subprocess.DEVNULL) as worker:
        try:
            yield own
        finally:
            Path(end).touch()
            worker.wait(60)


class Tab:
    """A browser on the page, which answers what is on it."""

    def __init__(self, driver: webdriver.Chrome, page: Page) -> None:
        self.driver, self._page = driver, page

    def open(self, path: str) -> None:
        self.driver.get(f"{self._page.url}{path}")

    def texts(self, what: str) -> list[str]:
        """The texts of all such elements, in one question, as a page may change or go between two."""
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText.trim())"
        found = self.driver.execute_script(script, what)
        assert isinstance(found, list)
        return found

    def click(self, what: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, what).click()

    def run(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    def points(self, figure: str) -> list[int]:
        """How many points each curve of a figure has; none while it is not drawn."""
        selector = f'figure[data-key="{figure}"] .js-plotly-plot'
        script = "return (document.querySelector(arguments[0])?.data ?? []).map((each) => each.x.length)"
        found = self.driver.execute_script(script, selector)
        assert isinstance(found, list)
        return found

    @property
    def focused(self) -> str:
        return str(self.run("document.activeElement.innerText")).strip()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)


@contextmanager
def tab(sandbox: Sandbox, size: str = "1200,900") -> Iterator[Tab]:
    with serving(sandbox) as page, browsing(size) as driver:
        yield Tab(driver, page)
        # Whatever a name or a log holds, none of it has run.
        assert driver.title != "hacked"


@pytest.mark.browser
def test_two_runs_side_by_side_whose_curves_grow(training: Sandbox) -> None:
    with tab(training) as page:
        page.open("/project/queue")
        wait_for(lambda: len(page.texts("#running > section")) == 2)
        first = {f"log-{run}-1-1": "" for run in (1, 2)}
        for log in first:
            wait_for(partial(_shows, page, f"#{log}", "step 3"))
            first[log] = page.texts(f"#{log}")[0]
            assert "\x1b" not in first[log]
            assert "<script>" in first[log]
        left, right = (each.rect for each in page.driver.find_elements(By.CSS_SELECTOR, "#running > section"))
        assert (left["y"], left["x"] < right["x"]) == (right["y"], True)
        page.open("/project/compare?run=1&run=2")
        wait_for(lambda: len(page.points("curve-loss")) == 2)
        before = page.points("curve-loss")
        wait_for(lambda: all(b > a for a, b in zip(before, page.points("curve-loss"), strict=True)))
        (training.root.parent / "end").touch()
        wait_for(lambda: "running" not in page.texts("#differences")[0])


@pytest.mark.browser
def test_a_log_follows_until_its_end(training: Sandbox) -> None:
    with tab(training) as page:
        page.open("/project/run/2")
        wait_for(lambda: "step 2 " in page.texts(".log")[0])
        wait_for(lambda: "step 20 " in page.texts(".log")[0])
        assert page.run(
            "(({scrollTop, clientHeight, scrollHeight}) => scrollTop + clientHeight > scrollHeight - 40)"
            "(document.querySelector('.log'))"
        )
        page.run("document.querySelector('.log').scrollTo(0, 0)")
        wait_for(lambda: "step 30 " in page.texts(".log")[0])
        assert page.run("document.querySelector('.log').scrollTop") == 0
        (training.root.parent / "end").touch()
        wait_for(lambda: "done" in page.texts("#state .state")[0])
        wait_for(lambda: page.run("'over' in document.querySelector('.log').dataset"))
        assert page.run("document.querySelector('.log .lines').textContent") == (
            re.sub("\x1b.*?m", "", training.ok("runs", "logs", "2"))
        )


@pytest.mark.browser
def test_nothing_that_others_wrote_is_markup(training: Sandbox) -> None:
    training.ok("runs", "note", "2", HOSTILE)
    training.ok("runs", "tag", "2", HOSTILE)
    with tab(training) as page:
        for path in (
            "queue",
            "runs",
            "run/2",
            "compare?run=1&run=2",
            "runs?words=" + HOSTILE,
            "sweep?name=" + HOSTILE,
        ):
            page.open(f"/project/{path}")
            assert page.run("document.querySelectorAll('[onerror], main script, main b').length") == 0
        page.open("/project/run/2")
        assert HOSTILE in page.texts("#state")[0]
        wait_for(lambda: page.run("document.querySelector('.pictures img').naturalWidth") == 60)
        page.open("/project/compare?run=1&run=2")
        assert "<b>bold</b>" in page.texts(".patch .added")[-1]
        wait_for(lambda: page.points("parallel"))
        assert page.run("document.querySelectorAll('.js-plotly-plot img, .js-plotly-plot a').length") == 0
        # An SVG that is opened by itself is not shown, so that its script has no page.
        page.open("/project/run/2/files/models/drawing.svg")
        assert page.driver.title != "hacked"


@pytest.mark.browser
def test_runs_are_sorted_filtered_ticked_and_compared_by_keyboard_alone(project: Sandbox) -> None:
    with tab(project) as page:
        page.open("/project/queue")
        page.press(Keys.TAB)
        assert page.focused == "Skip to the content"
        assert page.run("document.activeElement.getBoundingClientRect().left") > 0
        page.open("/project/runs")
        while page.focused != "train.rate":
            page.press(Keys.TAB)
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.press(Keys.ENTER)
        wait_for(lambda: page.texts("tbody th.run a") == ["1", "2"])
        assert page.texts("th[aria-sort=ascending]") == ["train.rate ▲"]
        for number in ("1", "2"):
            while page.run("document.activeElement.value") != number:
                page.press(Keys.TAB)
            page.press(Keys.SPACE)
        assert page.texts("#ticked") == ["2 ticked"]
        while page.focused != "Compare":
            page.press(Keys.SHIFT + Keys.TAB)
        page.press(Keys.ENTER)
        wait_for(lambda: page.driver.title.startswith("Compare"))
        assert page.texts("#differences tbody tr")[0] == "params\ttrain.rate\t0.1\t0.2"
        assert page.texts(".patch .added") == ["+echo more"]


@pytest.mark.browser
def test_a_narrow_window_does_not_scroll_sideways(training: Sandbox) -> None:
    training.ok("runs", "note", "1", "x" * 300)
    with tab(training, "400,800") as page:
        page.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": False},
        )
        for path in ("queue", "runs", "run/1", "compare?run=1&run=2", "sweeps", "run/999"):
            page.open(f"/project/{path}")
            if "compare" in path:
                wait_for(lambda: page.points("curve-loss"))
            assert page.run("window.innerWidth") == 320
            assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (
                path
            )


@pytest.mark.browser
def test_colours_follow_the_system_and_can_be_read(training: Sandbox) -> None:
    with tab(training) as page:
        for scheme, is_dark in (("light", False), ("dark", True)):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            page.open("/project/run/1")
            wait_for(lambda: page.points("curve-loss"))
            background = page.run("getComputedStyle(document.body).backgroundColor")
            assert (luminance(str(background)) < 0.5) is is_dark
            for what in ("p .state", "dd", "a", ".log"):
                colours = [
                    str(page.run(f"getComputedStyle(document.querySelector('main {what}')).color")),
                    str(background),
                ]
                bright, dark = sorted(map(luminance, colours), reverse=True)
                assert (bright + 0.05) / (dark + 0.05) >= 4.5, (scheme, what)  # WCAG's AA


def luminance(colour: str) -> float:
    """WCAG's relative luminance of a colour such as rgb(1, 2, 3)."""
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.browser
def test_a_page_says_that_its_server_has_ended(project: Sandbox) -> None:
    with browsing("800,600") as driver:
        with serving(project) as page:
            driver.get(f"{page.url}/project/queue")
            wait_for(lambda: driver.find_element(By.ID, "summary").text)
            assert not driver.find_element(By.ID, "gone").is_displayed()
        wait_for(lambda: driver.find_element(By.ID, "gone").is_displayed())


@pytest.mark.browser
def test_a_page_without_scripts_shows_the_same(project: Sandbox) -> None:
    with tab(project) as page:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        page.open("/project/runs")
        for box in page.driver.find_elements(By.CSS_SELECTOR, "input[name=run]"):
            box.click()
        page.click("th.param button")
        wait_for(lambda: page.texts("tbody th.run a") == ["1", "2"])
        page.click("button.main")
        wait_for(lambda: page.driver.title.startswith("Compare"))
        assert page.texts("#differences tbody tr")[0] == "params\ttrain.rate\t0.1\t0.2"
        page.open("/project/run/1")
        assert page.texts(".log") == ["training with --rate 0.1 --depth 3"]


# --- its pictures ---

DIGITS = """\
import json, os, sys, time

values = dict(zip(sys.argv[1::2], sys.argv[2::2]))
rate, depth = float(values["--rate"]), int(values["--depth"])
stop = int(values["--stop"])
bars = "".join(
    f'<rect x="{20 + 24 * n}" y="{110 - h}" width="18" height="{h}" fill="{colour}"/>'
    for n, (h, colour) in enumerate(zip((90, 70, 84, 60, 95, 77), ("#0072B2", "#E69F00") * 3))
)
with open("models/digits.svg", "w") as file:
    file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="180" height="120">{bars}</svg>')
for step in range(stop or 60):
    loss = 0.05 + 0.3 / depth * rate + 1 / (1 + rate * depth * step) + 0.02 * (step * 7 % 5) / (1 + step / 9)
    with open(os.environ["SKELEBOT_METRICS"], "a") as file:
        told = {"step": step, "loss": loss, "accuracy": 1 - loss / 2, "progress": (step + 1) / 60}
        file.write(json.dumps(told) + "\\n")
    if step % 4 == 0:
        print(f"epoch {step:2}: loss {loss:.4f}", flush=True)
while stop and not os.path.exists(os.environ["END"]):
    time.sleep(0.2)
"""

PICTURES = {
    "queue": "queue",
    "runs": "runs?run=5&run=2",
    "compare": "compare?run=3&run=7",
    "run": "run/5",
    "sweep": "sweep?name=rates",
}
REFRESH = "SKELEBOT_TEST_PICTURE=docs tests/run.sh -- -k the_pictures_show"


@pytest.fixture
def digits(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Six trials of a sweep, two runs of other code that train, and two that wait."""
    end = sandbox.root.parent / "end"
    own = queueing(
        sandbox,
        job("echo 'loaded 1,797 digits' | tee data/digits.txt", "load", outputs="[data/]"),
        job(
            "src/train.py",
            "train",
            outputs="[models/]",
            mappings="['data/:ro']",
            params="[{name: rate, default: 0.1}, {name: depth, default: 2}, {name: stop, default: 0}]",
        ),
        environment=f"{{END: {end}}}",
    )
    own.write("src/train.py", DIGITS)
    swept = ("--sweep", "train.rate=0.1,0.3,0.9", "--sweep", "train.depth=2,4", "--goal", "min:loss")
    own.ok("queue", "--name", "rates", *swept, "load", "+", "train")
    assert own.run("worker", "--drain").code == 0
    own.write("src/train.py", DIGITS.replace("rate * depth * step", "rate * (depth + 1) * step"))
    for rate, stop in (("0.2", "40"), ("0.5", "25"), ("0.6", "60"), ("0.7", "60")):
        own.ok("queue", "load", "+", "train", "--rate", rate, "--stop", stop)
    with own.start("worker", "-j", "2", "--drain", stderr=subprocess.DEVNULL) as worker:
        try:
            yield own
        finally:
            end.touch()
            worker.wait(60)


@pytest.mark.browser
def test_the_pictures_show_the_pages_as_they_are(digits: Sandbox, tmp_path: Path) -> None:
    with tab(digits, "1000,900") as page:
        for name, path in PICTURES.items():
            page.driver.set_window_size(1000, 1300 if name in ("compare", "run") else 900)
            page.open(f"/project/{path}")
            drawn = (
                f"document.querySelectorAll('.js-plotly-plot .trace').length >= {0 if name == 'runs' else 2}"
            )
            wait_for(partial(page.run, drawn))
            if name == "queue":
                wait_for(lambda: "epoch 24" in page.texts(".log")[1] and "epoch 36" in page.texts(".log")[0])
            if name == "sweep":
                wait_for(lambda: len(page.texts(".js-plotly-plot")) == 3)
            if name == "run":  # what comes before is different each time
                page.run("document.querySelector('h2').scrollIntoView()")
            compare_picture(page, f"page-{name}.png")


@pytest.mark.engine
@pytest.mark.browser
def test_the_pictures_show_the_sweep_of_the_readme(sandbox: Sandbox, name: str) -> None:
    shutil.copytree(ROOT / "examples" / "iris", sandbox.root, dirs_exist_ok=True)
    config = sandbox.read("skelebot.yaml").replace("name: Iris", f"name: {name}\nbaseImage: {SCIENCE}")
    sandbox.write("skelebot.yaml", config.replace("dependencies:\n- scikit-learn\n", ""))
    own = sandbox.with_env(SKELEBOT_STORE=str(sandbox.root.parent / "store"))
    own.ok(*shlex.split(sweep_of_the_readme()))
    assert own.run("worker", "--drain", "-j", "2").code == 0
    with tab(own, "1000,700") as page:
        page.open("/project/sweep?name=models")
        wait_for(lambda: len(page.texts(".js-plotly-plot")) == 2)
        compare_picture(page, "iris-sweep.png")


def sweep_of_the_readme() -> str:
    """The words of its command after `skelebot -n`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"^\$ skelebot -n (queue --sweep .*)$", text, re.MULTILINE)
    return str(found)


def compare_picture(page: Tab, name: str) -> None:
    """Checks that a picture of `docs` has the outline of the page that is open, or makes it."""
    found = page.texts("h1, h2, h3, thead th, figcaption, caption, nav a, summary, button")
    # What is installed differs from machine to machine.
    outline = "\n".join(text for text in found if "packages" not in text.lower())
    target = ROOT / "docs" / name
    if os.environ.get("SKELEBOT_TEST_PICTURE"):
        target.write_bytes(with_note(page.driver.get_screenshot_as_png(), outline))
    assert note(target.read_bytes()) == outline, f"{name} is stale; refresh it: {REFRESH}"


# A chunk of text at the end of a PNG: https://www.w3.org/TR/png/#11iTXt


def with_note(picture: bytes, text: str) -> bytes:
    """Returns a picture that holds a text, too."""
    chunk = b"iTXtComment\0\0\0\0\0" + text.encode()
    at = len(picture) - 12  # of the chunk that ends it
    added = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return picture[:at] + added + picture[at:]


def note(picture: bytes) -> str:
    _, _, rest = picture.partition(b"iTXtComment\0\0\0\0\0")
    return rest[:-16].decode()
