"""What the page shows, by the values that it is made of."""

import asyncio
import itertools
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skelebot.json_form import to_json
from skelebot.page import facts, figures, guard, outputs, rows, text
from skelebot.page.figures import Case, Curve
from skelebot.page.rows import Column, Query, Row
from skelebot.page.text import PatchLine
from skelebot.runs import difference, sampler
from skelebot.runs import store as stores
from skelebot.runs.record import Metric, Sweep
from skelebot.runs.trial import Goal
from skelebot.secret import Secret

from .test_difference import run, task

# --- text ---


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (None, ""),
        (True, "true"),
        (0.1 + 0.2, "0.3"),
        (1e-9, "1e-09"),
        (3, "3"),
        (("a", 1), "a 1"),
        (Secret("variable", "KEY"), "***"),
        ({"kind": "variable", "name": "KEY"}, "***"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("https://me:correct-horse@host/", "https://me:***@host/"),
    ],
)
def test_a_value_as_text(found: Any, shown: str) -> None:
    assert text.value(found) == shown


@pytest.mark.parametrize(
    ("data", "lines", "rest"),
    [
        (b"", [], ""),
        (b"\n", [""], ""),
        (b"a\nb", ["a"], "b"),
        (b"\x1b[1;32mgreen\x1b[0m\n", ["green"], ""),
        (b"\x1b]8;;http://evil\x07link\x1b]8;;\x07\n", ["link"], ""),
        (b"\x1b]0;title\x1b\\text\n", ["text"], ""),
        (b" 10%\r 50%\r100%\r\n", ["100%"], ""),
        (b" 10%\r 50%", [], " 50%"),
        (b"a\x00\x08b\xff\n", ["ab\ufffd"], ""),
        ("‮evil\n".encode(), ["evil"], ""),
        (b"<script>alert(1)</script>\n", ["<script>alert(1)</script>"], ""),
        (b"to https://me:correct-horse@host/\n", ["to https://me:***@host/"], ""),
    ],
)
def test_a_log_as_a_terminal_shows_it(data: bytes, lines: list[str], rest: str) -> None:
    found = text.log(data, 100)
    assert (found.lines, found.rest) == (lines, rest)
    assert found.next == 100 + len(data) - len(data.rpartition(b"\n")[2])


def test_a_line_without_an_end_is_shown_at_last() -> None:
    found = text.log(b"x" * 100_000, 0)
    assert found == (["x" * 100_000], "", 100_000)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_a_log_in_two_pieces_shows_what_the_whole_one_shows(data: bytes, at: int) -> None:
    first = text.log(data[:at], 0)
    second = text.log(data[first.next :], first.next)
    whole = text.log(data, 0)
    assert (first.lines + second.lines, second.rest, second.next) == whole


PATCH = """\
diff --git a/x b/x
index 1..2 100644
--- a/x
+++ b/x
@@ -1,2 +1,2 @@
 same
--- a
+<b>
y: mode -rw-r--r--, now -rwxr-xr-x
"""


def test_the_lines_of_a_patch_say_what_they_are() -> None:
    assert text.patch(PATCH)[-5:] == [
        PatchLine("place", "@@ -1,2 +1,2 @@"),
        PatchLine("same", " same"),
        PatchLine("removed", "--- a"),
        PatchLine("added", "+<b>"),
        PatchLine("same", "y: mode -rw-r--r--, now -rwxr-xr-x"),
    ]
    assert {line.kind for line in text.patch(PATCH)[:4]} == {"file"}


@pytest.mark.parametrize(
    ("found", "number"),
    [(3, 3.0), ("0.10", 0.1), ("-1e-3", -0.001), (".5", 0.5), (True, None), ("", None), ("1.2.3", None)]
    + [(10**400, None), ("1" * 400, None), (float("nan"), None), ("inf", None), ("1_0", None), ("٣", None)],
)
def test_a_number_may_be_text(found: Any, number: float | None) -> None:
    assert text.number(found) == number


# --- the table ---


def row(number: int, **changes: Any) -> Row:
    params = changes.pop("params", {})
    metrics = changes.pop("metrics", {})
    base = Row(number, "/demo", "demo", "done", "train", "", 9.0, 10.0, 1.0, params, metrics)
    return base._replace(**changes)


def measured(**numbers: float | None) -> tuple[Metric, ...]:
    return tuple(Metric(name, number, number, number, 1) for name, number in numbers.items())


@given(
    st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.booleans(), st.none()), max_size=3),
    st.dictionaries(
        st.text(), st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), max_size=3
    ),
    st.sampled_from(["", "s 1"]),
)
def test_a_row_has_what_the_record_has(
    params: dict[str, Any], metrics: dict[str, float | None], sweep: str
) -> None:
    found = run(
        task("load", params=(("rate", 1),)),
        task(params=(("rate", 1),)),
        task(params=tuple(params.items()), metrics=measured(**metrics)),
        number=7,
        state="done",
        created=1.0,
        started=2.0,
        ended=5.5,
        sweep=Sweep(sweep, goal="min:loss") if sweep else None,
    )
    shown = rows.parse(7, json.dumps(to_json(found)))
    assert shown.params == difference.params(found)
    assert shown.metrics == {name: metric.last for name, metric in found.metrics.items()}
    for name, last in difference.metrics(found).items():
        assert rows.shown(shown, Column("metric", name)) == text.value(last)
    assert (shown.number, shown.state, shown.title, shown.sweep) == (7, "done", "train", sweep)
    assert shown.goal == ("min:loss" if sweep else "")
    assert (shown.created, shown.started, shown.seconds) == (1.0, 2.0, 3.5)


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"tasks": 1, "root": "", "project": "", "chain": []}'])
def test_a_damaged_document_is_no_row(document: str) -> None:
    with pytest.raises(ValueError):
        rows.parse(1, document)


def test_only_the_columns_that_differ_are_shown() -> None:
    found = [
        row(2, params={"train.rate": "0.1", "train.depth": 3}, metrics={"loss": 0.5, "seen": 7.0}),
        row(1, params={"train.rate": "0.2", "train.depth": 3}, metrics={"loss": 0.4, "seen": 7.0}),
    ]
    shown = rows.table(found, Query(), with_project=False)
    assert [column.key for column in shown.columns] == [
        *("fact:run", "fact:state", "fact:title"),
        *("param:train.rate", "metric:loss"),
        *("fact:created", "fact:seconds"),
    ]
    assert shown.same == [("train.depth", "3"), ("seen", "7")]


def test_one_run_shows_all_that_it_has() -> None:
    found = [row(1, params={"train.rate": 1}, metrics={"loss": 0.5})]
    assert rows.differing(found) == ([Column("param", "train.rate"), Column("metric", "loss")], [])


def test_a_parameter_that_only_some_runs_have_differs() -> None:
    assert rows.differing([row(1, params={"a.x": 1}), row(2)]) == ([Column("param", "a.x")], [])


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (Query(), [3, 2, 1]),
        (Query("rate=0.1"), [2, 1]),
        (Query("RATE=0.1 done"), [1]),
        (Query("none"), []),
        (Query(state="failed"), [2]),
        (Query(sweep="s"), [3]),
        (Query(sort="param:train.rate"), [2, 1, 3]),
        (Query(sort="-metric:loss"), [1, 3, 2]),
        (Query(sort="metric:loss"), [3, 1, 2]),
        (Query(sort="fact:run"), [1, 2, 3]),
        (Query(sort="param:none"), [3, 2, 1]),
        (Query(sort="fact:root"), [3, 2, 1]),
        (Query(sort="nonsense"), [3, 2, 1]),
    ],
)
def test_the_table_is_filtered_and_sorted(query: Query, numbers: list[int]) -> None:
    found = [
        row(3, sweep="s", params={"train.rate": 0.3}, metrics={"loss": 0.1}),
        row(2, state="failed", params={"train.rate": 0.1}, metrics={"loss": None}),
        row(1, params={"train.rate": 0.1}, metrics={"loss": 0.2}),
    ]
    found = [each._replace(searched=f"{each.state} train.rate={each.params['train.rate']}") for each in found]
    assert [each.number for each in rows.table(found, query, True).rows] == numbers


def test_numbers_are_sorted_before_text_and_what_is_missing_comes_last() -> None:
    found = [row(n, params={"p": v}) for n, v in enumerate(["b", "10", 9.5, True, "a"])] + [row(9)]
    up, down = rows.ordered(found, "param:p"), rows.ordered(found, "-param:p")
    assert [each.params.get("p") for each in up] == [9.5, "10", "a", "b", True, None]
    assert [each.params.get("p") for each in down] == [True, "b", "a", "10", 9.5, None]


@pytest.mark.parametrize(("page", "first"), [(1, 250), (3, 50), (99, 50), (0, 250), (-5, 250)])
def test_the_table_comes_in_pages(page: int, first: int) -> None:
    found = [row(number) for number in range(250, 0, -1)]
    shown = rows.table(found, Query(page=page), with_project=False)
    assert (shown.rows[0].number, shown.total, shown.pages) == (first, 250, 3)


def test_rows_follow_the_store(tmp_path: Path) -> None:
    store = stores.opened(str(tmp_path / "store"))
    added = store.add([run(number=0), run(number=0, uid="1" * 32, root="/other")])
    found = rows.Rows(store)
    assert [each.number for each in found.all()] == [2, 1]
    assert [each.number for each in found.all("/other")] == [2]
    before = found.all()[1]
    store.update(added[1].number, lambda each: replace(each, name="new"))
    assert [each.title for each in found.all()] == ["new", "train"]
    assert found.all()[1] is before
    store.remove(2)
    assert [each.number for each in found.all()] == [1]


# --- one run ---


def test_the_facts_of_a_run_name_no_secret() -> None:
    found = run(
        task(),
        note="see https://me:correct-horse@host/",
        variables=(("KEY", "hash"),),
        data=(("/p/labels", ""),),
        chain=("train", "--key", "***"),
        parent=3,
    )
    words = {fact.name: fact for fact in facts.facts(found)}
    assert words["note"].text == "see https://me:***@host/"
    assert "hash" not in words["variable"].text
    assert words["code"].text == "a" * 40
    assert words["repeats"].run == 3
    assert words["data"].text == "/p/labels: was not there"
    hidden = task()
    hidden = replace(hidden, task=replace(hidden.task, argv=("train", Secret("variable", "KEY"))))
    assert facts.command(hidden) == "train ***"


def test_the_state_of_a_task_names_what_is_unusual() -> None:
    assert facts.state_of(task(state="queued")) == "queued"
    assert facts.state_of(task(state="done", code=0, attempt=1)) == "done, exit code 0"
    assert facts.state_of(task(state="done", attempt=2)) == "done, attempt 2"
    assert facts.state_of(task(taken_from=3, bad_lines=1)) == (
        "queued, taken from run 3, 1 line of metrics could not be read"
    )


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([task()], 0.0),
        ([task(state="running", progress=0.4)], 0.4),
        ([task("load", state="done"), task(state="running", progress=0.5)], 0.75),
        ([task("load", state="done"), task(state="running")], 0.0),
    ],
)
def test_the_progress_of_a_run(tasks: list[Any], expected: float) -> None:
    assert facts.progress(run(*tasks)) == expected


# --- several ---


def test_several_runs_are_compared_with_the_first() -> None:
    found = [
        run(task(params=(("rate", rate), ("depth", 3))), number=number)
        for number, rate in enumerate((0.1, 0.2, 0.1), 1)
    ]
    assert facts.compare(found) == [facts.DifferingFact("params", "train.rate", ["0.1", "0.2", "0.1"])]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=2))
def test_two_runs_differ_on_the_page_as_runs_diff_says(values: list[tuple[int, int]]) -> None:
    a, b = (run(task(params=(("x", x), ("y", y)))) for x, y in values)
    shown = [(each.kind, each.name) for each in facts.compare([a, b])]
    assert shown == [(each.kind, each.name) for each in difference.differences(a, b)]


def test_a_secret_that_differs_is_not_shown() -> None:
    a, b = (run(variables=(("KEY", each),)) for each in ("hash-1", "hash-2"))
    assert facts.compare([a, b]) == [
        facts.DifferingFact("variables", "KEY", [difference.SECRET, difference.OTHER_SECRET])
    ]


# --- figures ---


@pytest.mark.parametrize("hostile", ["<b>x</b>", "&lt;b&gt;", '<a href="javascript:alert(1)">x</a>', "a\nb"])
def test_a_name_is_never_markup_of_a_figure(hostile: str) -> None:
    shown = figures.literal(hostile)
    assert not set("<>\n") & set(shown)
    assert shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text.plain(hostile)
    cases = [Case(hostile, {hostile: hostile, "loss": n}) for n in (1, 2)]
    for figure in (
        *figures.curves([Curve(hostile, 0, hostile, [(0, 1.0)])]),
        figures.scatter(cases, hostile, "loss"),
        figures.parallel(cases, [hostile, "loss"]),
        figures.best_so_far([(hostile, 1.0)], hostile, True),
        figures.bars("importance", {hostile: 1.0}),
    ):
        assert "<" not in json.dumps([figure.data, figure.layout])


def test_the_curves_of_a_metric_share_a_figure() -> None:
    found = figures.curves(
        [
            Curve("run 1", 0, "loss", [(0, 1.0)]),
            Curve("run 1", 0, "acc", [(0, 1.0)]),
            Curve("run 2", 1, "loss", []),
        ]
    )
    assert [(each.title, [line["name"] for line in each.data]) for each in found] == [
        ("loss", ["run 1", "run 2"]),
        ("acc", ["run 1"]),
    ]
    first, second = (line["line"] for line in found[0].data)
    assert (first["color"], first["dash"]) != (second["color"], second["dash"])


def test_two_runs_of_32_never_look_the_same() -> None:
    shown = {(each["color"], each["dash"]) for each in map(figures.line, range(32))}
    assert len(shown) == 32


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=3000))
def test_a_thinned_curve_keeps_its_ends_and_its_peaks(values: list[float]) -> None:
    points = list(enumerate(values))
    thinned = figures.thin(points, 100)
    assert len(thinned) <= 100
    assert thinned[0] == points[0]
    assert thinned[-1] == points[-1]
    assert {min(values), max(values)} <= {y for _, y in thinned}
    assert list(thinned) == sorted(thinned)


def test_parallel_coordinates() -> None:
    cases = [
        Case("run 1", {"rate": 0.001, "kind": "a", "loss": 1.0}),
        Case("run 2", {"rate": 1.0, "kind": "b", "loss": 3.0}),
        Case("run 3", {"rate": 0.1, "loss": 2.0}),
    ]
    figure = figures.parallel(cases, ["rate", "kind", "loss"])
    lines = {tuple(each["y"][:3]) for each in figure.data}
    assert (0.0, 0.0, 0.0) in lines
    assert (1.0, 1.0, 1.0) in lines
    (third,) = (line for line in lines if line[1] is None)
    assert third == (pytest.approx(2 / 3), None, 0.5)
    assert [each["text"] for each in figure.layout["annotations"]] == ["0.001", "1", "a", "b", "1", "3"]


def test_thousands_of_runs_are_not_all_lines() -> None:
    cases = [Case(f"run {n}", {"a": n, "b": -n}) for n in range(5000)]
    figure = figures.parallel(cases, ["a", "b"])
    assert figure.title == "parallel coordinates of 5,000 runs, the first 500"
    assert sum(each["x"].count(0) for each in figure.data) == 500
    assert len(figure.data) <= len(figures.SCALE)


def test_the_best_until_each_trial() -> None:
    trials = [("run 1", 3.0), ("run 2", 5.0), ("run 3", 1.0)]
    assert figures.best_so_far(trials, "loss", True).data[1]["y"] == [3.0, 3.0, 1.0]
    assert figures.best_so_far(trials, "loss", False).data[1]["y"] == [3.0, 5.0, 5.0]


@pytest.mark.parametrize("goal", ["min:loss", "max:loss"])
def test_the_importance_of_what_was_swept(goal: str) -> None:
    sweep = Sweep("s", ("train.rate", "train.depth"), goal=goal)
    trials = [
        run(
            task(
                params=(("rate", str(rate)), ("depth", str(depth))), metrics=measured(loss=rate + depth / 99)
            ),
            number=number,
            state="done",
            sweep=sweep,
        )
        for number, (rate, depth) in enumerate(itertools.product((1, 2, 3, 4), (1, 2, 3, 4)), 1)
    ]
    found = sampler.importance(sweep, trials, Goal.parse(goal))
    assert found["train.rate"] > found["train.depth"]
    assert sampler.importance(sweep, trials[:1], Goal.parse(goal)) == {}
    assert sampler.importance(sweep, [], Goal.parse(goal)) == {}


# --- outputs ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "outputs"
    (top / "models" / "deep").mkdir(parents=True)
    (top / "models" / "deep" / "m.txt").write_text("model")
    (tmp_path / "secret").write_text("secret")
    (top / "models" / "link").symlink_to(tmp_path / "secret")
    (top / "models" / "up").symlink_to(tmp_path)
    (top / "models" / "near").symlink_to("deep/m.txt")
    os.mkfifo(top / "models" / "pipe")
    return top


@pytest.mark.parametrize(
    "path",
    [
        *("models/link", "models/up/secret", "models/near", "models/pipe", "models", "models/deep"),
        *(
            "../secret",
            "models/../../secret",
            "models/./deep/m.txt",
            "/models/deep/m.txt",
            "models//deep/m.txt",
        ),
        *("", ".", "models/none", "models/deep/m.txt/", "models/deep\0", "models/deep/m.txt/more", "\udcff"),
    ],
)
def test_nothing_but_a_file_of_the_outputs_is_opened(folder: Path, path: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert outputs.open_beneath(str(folder), path) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_of_the_outputs_is_opened(folder: Path) -> None:
    number = outputs.open_beneath(str(folder), "models/deep/m.txt")
    assert number is not None
    found = outputs.blocks(number, len(b"model"))
    with (folder / "models/deep/m.txt").open("a") as file:
        file.write(" that grows")
    assert b"".join(found) == b"model"  # as many bytes as the answer has announced


def test_only_declared_outputs_of_a_run_in_a_checkout_are_opened(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m").write_text("model")
    (tmp_path / ".env").write_text("KEY=1")
    store = stores.opened(str(tmp_path / "store"))
    found = run(task(outputs=("models/",)), own=False, root=str(tmp_path))
    assert outputs.made(store, found) == [("models/m", 5)]
    number = outputs.opened(store, found, "models/m")
    assert number is not None
    os.close(number)
    for path in (".env", "models/../.env", "store/runs.db"):
        assert outputs.opened(store, found, path) is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.png", "image/png"),
        ("a.JPG", "image/jpeg"),
        ("a.svg", "image/svg+xml"),
        ("a.html", ""),
        ("png", ""),
    ],
)
def test_the_type_of_a_picture(path: str, kind: str) -> None:
    assert outputs.picture_type(path) == kind


# --- who may see it ---


def test_the_package_has_all_files_that_are_not_python() -> None:
    """Among them the templates, the style and the script of the page."""
    top = Path(guard.__file__).parents[1]
    setup = (top.parent / "setup.py").read_text() if (top.parent / "setup.py").exists() else ""
    patterns = re.findall(r'^ {12}"([^"]+)",$', setup.partition("package_data")[2].partition("]")[0], re.M)
    there = {path for pattern in patterns for path in top.glob(pattern)}
    files = {path for path in top.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files
    assert not patterns or files <= there
    for name in ("templates/runs.html", "static/page.js", "static/page.css"):
        assert (top / "page" / name).is_file()


TOKEN = "t0ken"


@pytest.mark.parametrize(
    ("method", "path", "host", "origin", "status"),
    [
        ("GET", "/t0ken/", "127.0.0.1:8000", None, None),
        ("HEAD", "/t0ken/all/queue", "localhost:9", None, None),
        ("GET", "/t0ken", "[::1]:8000", "http://[::1]:8000", None),
        ("GET", "/t0ken/", "localhost", None, None),
        ("GET", "/", "127.0.0.1:8000", None, 403),
        ("GET", "/t0kem/", "127.0.0.1:8000", None, 403),
        ("GET", "/t0kenx/", "127.0.0.1:8000", None, 403),
        ("GET", "//t0ken/", "127.0.0.1:8000", None, 403),
        ("GET", "/tökén/", "127.0.0.1:8000", None, 403),
        ("GET", "/t0ken/", "evil.example:8000", None, 403),
        ("GET", "/t0ken/", "127.0.0.1.evil.example", None, 403),
        ("GET", "/t0ken/", "localhost:8000@evil.example", None, 403),
        ("GET", "/t0ken/", "", None, 403),
        ("GET", "/t0ken/", None, None, 403),
        ("GET", "/t0ken/", "127.0.0.1:8000", "http://evil.example", 403),
        ("GET", "/t0ken/", "127.0.0.1:8000", "http://127.0.0.1:9000", 403),
        ("GET", "/t0ken/", "127.0.0.1:8000", "null", 403),
        ("POST", "/t0ken/", "127.0.0.1:8000", "http://127.0.0.1:8000", 405),
        ("DELETE", "/t0ken/", "127.0.0.1:8000", None, 405),
        ("POST", "/", "127.0.0.1:8000", None, 403),
    ],
)
def test_who_may_see_the_page(
    method: str, path: str, host: str | None, origin: str | None, status: int | None
) -> None:
    headers = [
        (name, value.encode()) for name, value in ((b"host", host), (b"Origin", origin)) if value is not None
    ]
    found = guard.refusal(method, path, headers, TOKEN)
    assert (found.status if found else None) == status


def answer(path: str, kind: str = "http") -> tuple[list[dict[str, Any]], list[Any]]:
    """What the page's application is asked, and what is sent, for one request."""
    asked: list[dict[str, Any]] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"max-age=9")]}
        )
        await send({"type": "http.response.body", "body": b"runs"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "GET", "path": path, "headers": [(b"host", b"127.0.0.1")]}
    asyncio.run(guard.guarded(app, TOKEN)(scope, None, send))  # type: ignore[arg-type]
    return asked, sent


def test_the_application_is_asked_below_the_token_alone() -> None:
    asked, sent = answer(f"/{TOKEN}/runs")
    assert [scope["root_path"] for scope in asked] == [f"/{TOKEN}"]
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    assert headers == {**guard.HEADERS, "cache-control": "max-age=9"}
    assert len(sent[0]["headers"]) == len(headers)
    assert sent[1]["body"] == b"runs"


def test_the_application_is_not_asked_without_the_token() -> None:
    asked, sent = answer("/runs")
    assert (asked, sent[0]["status"]) == ([], 403)
    assert dict(sent[0]["headers"])[b"x-frame-options"] == b"DENY"
    assert answer(f"/{TOKEN}/", "websocket") == ([], [])


def test_two_hosts_are_refused() -> None:
    headers = [(b"host", b"127.0.0.1"), (b"host", b"evil.example")]
    assert guard.refusal("GET", "/t0ken/", headers, TOKEN)
