"""Reading engines' metrics while blocks run: whatever a page does, the block is not touched."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadgen.message import say
from loadgen.monitoring import engine_watch, page_reader
from loadgen.monitoring.engine_page import PageError
from loadgen.monitoring.engine_samples import BlockSamples, append_samples, read_samples
from loadgen.monitoring.engine_watch import EngineWatch, Pages
from loadgen.monitoring.page_reader import PageReader

PAGE = "vllm:generation_tokens_total 5\n"
LONG_S = 60.0


class Page:
    """Answers by turns with what it is told to: a page, or an exception."""

    url = "http://engine/metrics"

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.reads = 0

    def read(self) -> str:
        self.reads += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def watch(path: Path, pages: Pages, interval_s: float = LONG_S) -> EngineWatch:
    return EngineWatch(lambda engine: pages, path, interval_s)


def run(watched: EngineWatch, block: str, notes: list[str], until: Callable[[], bool] = lambda: True) -> None:
    with watched.over("a", block, notes.append):
        deadline = time.monotonic() + LONG_S
        while not until() and time.monotonic() < deadline:
            time.sleep(0.001)


def test_a_block_is_read_at_both_ends(tmp_path):
    page, notes = Page(PAGE), []
    watched = watch(tmp_path / "f.jsonl", Pages(page))
    run(watched, "a.r1", notes, lambda: page.reads > 0)
    assert page.reads == 2 and notes == []
    samples = read_samples(tmp_path / "f.jsonl")["a.r1"]
    assert [row for _, row in samples.rows] == [{"output_tokens": 5.0}] * 2
    assert samples.problem is None and time.time() - samples.rows[0][0] < LONG_S


def test_it_is_read_again_and_again_and_more_seldom_where_that_takes_long(tmp_path, monkeypatch):
    page = Page(PAGE)
    run(watch(tmp_path / "f.jsonl", Pages(page), 0.001), "a.r1", [], lambda: page.reads > 5)
    assert len(read_samples(tmp_path / "f.jsonl")["a.r1"].rows) == page.reads > 5
    slow = Page(PAGE)
    monkeypatch.setattr(slow, "read", lambda: time.sleep(0.02) or Page.read(slow))
    monkeypatch.setattr(engine_watch, "SHARE", 1e-4)
    run(watch(tmp_path / "g.jsonl", Pages(slow), 0.001), "a.r1", [], lambda: slow.reads > 0)
    assert slow.reads == 2


def test_a_page_that_fails_is_told_once_and_given_up_for_the_block(tmp_path):
    page, notes = Page(PageError(say("it answers with HTTP {status}", status=404))), []
    watched = watch(tmp_path / "f.jsonl", Pages(page), 0.0)
    run(watched, "a.r1", notes, lambda: page.reads >= 3)
    run(watched, "a.r2", notes, lambda: page.reads >= 6)
    assert page.reads == 6
    assert len(notes) == 1
    assert notes[0].startswith("a: its metrics at http://engine/metrics could not be read: it answers with HTTP 404. ")
    assert str(read_samples(tmp_path / "f.jsonl")["a.r2"].problem) == "it answers with HTTP 404"


def test_a_page_that_fails_now_and_then_is_read_all_the_same(tmp_path):
    page, notes = Page(PageError("no"), PAGE, PageError("no"), PageError("no"), PAGE), []
    run(watch(tmp_path / "f.jsonl", Pages(page), 0.0), "a.r1", notes, lambda: page.reads >= 6)
    assert notes == [] and read_samples(tmp_path / "f.jsonl")["a.r1"].rows


def test_the_gpus_page_fails_by_itself(tmp_path):
    gpus, notes = Page("nothing\n"), []
    run(watch(tmp_path / "f.jsonl", Pages(Page(PAGE), "a", gpus), 0.0), "a.r1", notes, lambda: gpus.reads >= 3)
    assert read_samples(tmp_path / "f.jsonl")["a.r1"].rows[0][1] == {"output_tokens": 5.0}
    assert len(notes) == 1 and "GPU memory and power of a are missing" in notes[0]


def test_an_engine_without_a_page_leaves_nothing(tmp_path):
    run(watch(tmp_path / "f.jsonl", Pages()), "a.r1", notes := [])
    assert notes == [] and not (tmp_path / "f.jsonl").exists()


class Hanging(Page):
    """Never answers while `held`."""

    def __init__(self) -> None:
        super().__init__(PAGE)
        self.held = threading.Event()

    def read(self) -> str:
        super().read()
        self.held.wait(LONG_S)
        raise PageError("it did not answer within 2 s")


def test_a_page_that_never_answers_holds_up_no_block(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_watch, "LAST_LIMIT_S", 0.01)
    monkeypatch.setattr(engine_watch, "SHORT_LIMIT_S", 0.01)
    page, notes = Hanging(), []
    watched = watch(tmp_path / "f.jsonl", Pages(page))
    for number in range(5):
        run(watched, f"a.r{number}", notes, lambda: page.reads > 0)
    assert page.reads == 1, "who still hangs is not joined by another"
    page.held.set()


def test_a_block_that_ends_by_ctrl_c_or_failure_keeps_what_was_read(tmp_path):
    page = Page(PAGE)
    watched = watch(tmp_path / "f.jsonl", Pages(page))
    for number, error in enumerate((KeyboardInterrupt, ValueError)):
        with pytest.raises(error), watched.over("a", f"a.r{number}", [].append):
            raise error
    assert set(read_samples(tmp_path / "f.jsonl")) == {"a.r0", "a.r1"}


def test_a_full_disk_is_told_once(tmp_path):
    watched, notes = watch(tmp_path / "no" / "f.jsonl", Pages(Page(PAGE))), []
    run(watched, "a.r1", notes)
    run(watched, "a.r2", notes)
    assert len(notes) == 1 and "f.jsonl cannot be written (No such file or directory)" in notes[0]


def test_a_file_goes_on_after_a_crash(tmp_path):
    path = tmp_path / "f.jsonl"
    append_samples(path, BlockSamples("a.r1", [(1.0, {"x": 1.0}), (2.0, {"y": 2.0})]))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    append_samples(path, BlockSamples("a.r2", [(3.0, {"x": 3.0})], say("it has {what}", what="gone")))
    found = read_samples(path)
    assert set(found) == {"a.r1", "a.r2"}
    assert list(found["a.r1"].rows) == [(1.0, {"x": 1.0}), (2.0, {"y": 2.0})]
    assert found["a.r2"].problem == "it has gone"
    assert read_samples(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        "nonsense",
        '{"block": 5}',
        '{"block":"b","names":["x"],"rows":[[1]]}',
        '{"block":"b","names":1,"rows":[]}',
    ]
    + [json.dumps({"block": "b", "names": ["x"], "rows": [[at, 1]]}) for at in (-1, 1e12, "x", None)],
)
def test_lines_of_strangers_are_passed_over(tmp_path, line):
    (tmp_path / "f.jsonl").write_text(line + "\n")
    assert read_samples(tmp_path / "f.jsonl") == {}


def test_values_of_strangers_that_cannot_be_are_none(tmp_path):
    rows = '[[1.0, NaN, 1e999, "x", null, true, 4]]'
    (tmp_path / "f.jsonl").write_text('{"block":"b","names":["a","b","c","d","e","f"],"rows":' + rows + "}\n")
    assert read_samples(tmp_path / "f.jsonl")["b"].rows[0][1].keys() == {"e", "f"}
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "f.jsonl")
    assert read_samples(tmp_path / "link.jsonl") == {}


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def server(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.handle_error = lambda *_: None  # type: ignore[method-assign]  # a reader that hangs up is the test
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{made.server_port}/metrics"
    finally:
        made.shutdown()
        made.server_close()


def plain(handler: BaseHTTPRequestHandler, body: bytes = PAGE.encode(), status: int = 200, length: int = -1) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length < 0 else length))
    handler.end_headers()
    handler.wfile.write(body)


def redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    plain(handler, length=1000)
    handler.close_connection = True


def drip(handler: BaseHTTPRequestHandler) -> None:
    plain(handler, b"", length=1000)
    for _ in range(1000):
        handler.wfile.write(b"x")
        time.sleep(0.02)


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(LONG_S)
    handler.close_connection = True


def test_a_page_is_read_over_one_connection_with_its_own_headers():
    seen = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.client_address, handler.headers.get("Authorization"), handler.headers["Accept-Encoding"]))
        plain(handler)

    with server(answer) as url:
        reader = PageReader(url, {"Authorization": "Bearer k"})
        assert [reader.read(), reader.read()] == [PAGE, PAGE]
    assert seen[0] == seen[1] and seen[0][1:] == ("Bearer k", "identity")
    assert "k" not in repr(reader).replace("/metrics", "").removeprefix("PageReader")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda handler: plain(handler, status=404), "HTTP 404"),
        (redirect, "HTTP 302"),
        (lambda handler: plain(handler, b"#" * (5 << 20)), "more than 4 MiB"),
        (cut_off, "cannot be read"),
        (drip, "not whole within"),
        (silent, "did not answer within"),
    ],
    ids=["404", "redirect", "huge", "cut off", "drip", "silent"],
)
def test_answers_that_are_no_page(answer, why, monkeypatch):
    monkeypatch.setattr(page_reader, "LIMIT_S", 2.0 if answer in (drip, silent) else LONG_S)
    with server(answer) as url, pytest.raises(PageError, match=why):
        PageReader(url).read()


def test_nobody_there():
    with server(plain) as url:
        pass
    with pytest.raises(PageError, match="nothing answers"):
        PageReader(url).read()
