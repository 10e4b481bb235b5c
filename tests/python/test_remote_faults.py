# SPDX-License-Identifier: Apache-2.0
"""HTTP servers that are slow, fail, cut answers off, or lie: the right bytes, or one error."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from craft.bundle import Bundle
from craft.range_server import Answer, RangeServer, serve

import tensorbundle as tb
from tensorbundle import remote

pytest.importorskip("requests")

TABLE = np.arange(80_000 * 32, dtype=np.float32).reshape(80_000, 32)  # three requests
Fault = Callable[[str, int, Answer], None]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAUSE", 0.001)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    bundle = Bundle()
    bundle.add("table", TABLE)
    bundle.add_strings("words", [b"word%d" % i for i in range(500)], (500,))
    bundle.write(tmp_path / "c")
    with serve(tmp_path) as server:
        yield server


def is_data(path: str) -> bool:
    return ".data-" in path


# ---- Faults that pass: the right bytes.


def fail_twice(path: str, number: int, answer: Answer) -> None:
    if number < 2:
        answer.status, answer.body = 503, b"busy"
        answer.headers = {"Content-Length": "4"}


def cut_off_half(path: str, number: int, answer: Answer) -> None:
    if is_data(path) and len(answer.body) > 1000:
        answer.body = answer.body[: len(answer.body) // 2]


def cut_off_all(path: str, number: int, answer: Answer) -> None:
    if is_data(path) and number == 0:
        answer.body = b""


def be_slow(path: str, number: int, answer: Answer) -> None:
    answer.delay = 0.05


def close_every_connection(path: str, number: int, answer: Answer) -> None:
    answer.headers["Connection"] = "close"


def ask_for_a_pause(path: str, number: int, answer: Answer) -> None:
    if number == 0:
        answer.status, answer.body = 429, b""
        answer.headers = {"Retry-After": "0", "Content-Length": "0"}


PASSING: list[Fault] = [
    fail_twice,
    cut_off_all,
    be_slow,
    close_every_connection,
    ask_for_a_pause,
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.__name__)
def test_passing_faults_change_no_value(server: RangeServer, fault: Fault) -> None:
    server.fault = fault
    ids = np.arange(0, 80_000, 9000)
    with tb.open(f"{server.url}/c") as ck:
        assert np.array_equal(ck["table"].read(), TABLE)
        assert np.array_equal(ck["table"].take(ids), TABLE[ids])
        assert ck["words"].read()[499] == b"word499"
        assert sum(len(rows) for _, rows in ck["table"].chunks(9000)) == 80_000


def test_answer_that_is_cut_off_is_continued(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        row = ck["table"][0]
        server.fault = cut_off_half
        server.forget()
        assert np.array_equal(row, TABLE[0])
        assert np.array_equal(ck["table"][:16_000], TABLE[:16_000])  # of 2 MiB
        # Each answer has half of what is left, so the request for the rest of it is smaller.
        sizes = [last - first + 1 for _, first, last in server.requests]
        assert sizes[:3] == [2_048_000, 1_024_000, 512_000]


# ---- Faults that stay: one error.


def answer_403(path: str, number: int, answer: Answer) -> None:
    answer.status = 403


def answer_500(path: str, number: int, answer: Answer) -> None:
    answer.status = 500


def ignore_ranges(path: str, number: int, answer: Answer) -> None:
    answer.status = 200
    answer.headers.pop("Content-Range")


def send_nothing(path: str, number: int, answer: Answer) -> None:
    answer.body = b""


def send_another_range(path: str, number: int, answer: Answer) -> None:
    shown = answer.headers["Content-Range"]
    first, rest = shown.removeprefix("bytes ").split("-", 1)
    answer.headers["Content-Range"] = f"bytes {int(first) + 1}-{rest}"


def send_shorter_range(path: str, number: int, answer: Answer) -> None:
    """HTTP allows it; the bytes that are missing would have to be requested again."""
    shown, size = answer.headers["Content-Range"].split("/")
    first, last = map(int, shown.removeprefix("bytes ").split("-"))
    answer.headers["Content-Range"] = f"bytes {first}-{last - 1}/{size}"
    answer.body = answer.body[:-1]
    answer.headers["Content-Length"] = str(len(answer.body))


def send_no_range(path: str, number: int, answer: Answer) -> None:
    answer.headers.pop("Content-Range")


def send_too_little(path: str, number: int, answer: Answer) -> None:
    """As a server that believes the file to be shorter than it said."""
    answer.body = answer.body[:-100]
    answer.headers["Content-Length"] = str(len(answer.body))


def change_tag(path: str, number: int, answer: Answer) -> None:
    answer.headers["ETag"] = '"another"'


def change_size(path: str, number: int, answer: Answer) -> None:
    shown = answer.headers["Content-Range"]
    answer.headers["Content-Range"] = shown.rpartition("/")[0] + "/1000000000"


STAYING: list[tuple[Fault, type[tb.Error], str]] = [
    (answer_403, tb.IOFailure, "the server answered 403"),
    (answer_500, tb.IOFailure, "the server answered 500"),
    (ignore_ranges, tb.IOFailure, "the server answered 200"),
    (send_nothing, tb.IOFailure, "0 of .* bytes came, then none in 5 attempts"),
    (send_too_little, tb.IOFailure, "bytes came, then none in 5 attempts"),
    (send_another_range, tb.IOFailure, "was asked for bytes .*, and answered with"),
    (send_shorter_range, tb.IOFailure, "was asked for bytes .*, and answered with"),
    (send_no_range, tb.IOFailure, "answered with 'no Content-Range'"),
    (change_tag, tb.CorruptionError, "was replaced since it was opened"),
    (change_size, tb.CorruptionError, "was replaced since it was opened"),
]


@pytest.mark.parametrize(("fault", "error", "text"), STAYING, ids=lambda each: str(each)[:25])
def test_staying_faults_raise_one_error(
    server: RangeServer, fault: Fault, error: type[tb.Error], text: str
) -> None:
    with tb.open(f"{server.url}/c") as ck:
        assert np.array_equal(ck["table"][5], TABLE[5])
        server.fault = fault
        for read in (
            lambda: ck["table"].read(),
            lambda: ck["table"].take([7, 50_000]),
            lambda: ck["table"][9:12],
            lambda: list(ck["table"].chunks(9000)),
            lambda: ck.load(["table"]),
            lambda: dict(ck.stream(["table"])),
            lambda: tb.load_and_remap(ck["table"], rows=[3, 4]),
        ):
            with pytest.raises(error, match=text) as caught:
                read()
            assert ".data-00000-of-00001" in str(caught.value)
        report = ck.verify(["table"])
        findings = report.unreadable if error is tb.IOFailure else report.damaged
        assert [finding.tensor for finding in findings] == ["table"]
        server.fault = None
        assert np.array_equal(ck["table"].read(), TABLE)  # the handle is usable afterwards


@pytest.mark.parametrize("fault", [answer_403, answer_500, send_no_range])
def test_faults_while_opening(server: RangeServer, fault: Fault) -> None:
    server.fault = fault
    with pytest.raises((tb.IOFailure, tb.UnsupportedError)) as caught:
        tb.open(f"{server.url}/c")
    assert f"{server.url}/c.index" in str(caught.value)
    if fault is answer_403:
        assert isinstance(caught.value, tb.IOFailure) and caught.value.errno == errno.EACCES


def test_error_number_of_a_failed_request(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        ck["table"][5]
        server.fault = answer_403
        with pytest.raises(tb.IOFailure) as caught:
            ck["table"].read()
    assert caught.value.errno == errno.EACCES
    assert str(caught.value).count(os.strerror(errno.EACCES)) == 1


def test_data_file_without_ranges(server: RangeServer) -> None:
    """The store of the index serves ranges, and that of the data file does not."""

    def serve_whole_data(path: str, number: int, answer: Answer) -> None:
        if is_data(path):
            answer.status = 200
            answer.headers.pop("Content-Range", None)

    server.fault = serve_whole_data
    with tb.open(f"{server.url}/c") as ck:
        with pytest.raises(tb.UnsupportedError, match="does not serve parts of a file"):
            ck["table"].read()
        report = ck.verify()
        found = report.damaged + report.unreadable
        assert {finding.tensor for finding in found} == {"table", "words"}


def test_requests_name_the_version_and_want_no_compression(server: RangeServer) -> None:
    with tb.open(f"{server.url}/c") as ck:
        assert server.headers["accept-encoding"] == "identity"
        ck["table"][5]
        status = (server.folder / "c.data-00000-of-00001").stat()
        assert server.headers["if-match"].startswith(f'"{status.st_mtime_ns:x}-')
        assert server.headers["accept-encoding"] == "identity"


def check_replacement_is_noticed(server: RangeServer, replace: Callable[[], None]) -> None:
    with tb.open(f"{server.url}/c") as ck:
        assert np.array_equal(ck["table"].read(), TABLE)
        replace()
        with pytest.raises(tb.CorruptionError, match="was replaced since it was opened"):
            ck["table"].read()


def test_weak_tag_is_compared_but_is_no_condition(server: RangeServer) -> None:
    """If-Match with a weak tag fails on every server: RFC 9110 demands the strong comparison."""
    tags = ['W/"1"']
    server.fault = lambda path, number, answer: answer.headers.update(ETag=tags[-1])
    check_replacement_is_noticed(server, lambda: tags.append('W/"2"'))


def test_time_of_change_is_compared_without_a_tag(server: RangeServer) -> None:
    times = ["Mon, 02 Nov 2026 10:00:00 GMT"]

    def tell_the_time(path: str, number: int, answer: Answer) -> None:
        answer.headers.pop("ETag")
        answer.headers["Last-Modified"] = times[-1]

    server.fault = tell_the_time
    check_replacement_is_noticed(server, lambda: times.append("Mon, 02 Nov 2026 10:00:01 GMT"))


def test_file_that_became_shorter_was_replaced(server: RangeServer) -> None:
    server.fault = lambda path, number, answer: answer.headers.pop("ETag", None) and None
    with tb.open(f"{server.url}/c") as ck:
        ck["table"][5]
        os.truncate(server.folder / "c.data-00000-of-00001", 1000)
        with pytest.raises(tb.CorruptionError, match="was replaced since it was opened"):
            ck["table"][70_000]


def test_empty_file_is_opened(server: RangeServer) -> None:
    (server.folder / "e.index").touch()

    def be_simple(path: str, number: int, answer: Answer) -> None:
        """As a server that ignores ranges of empty files."""
        answer.status, answer.headers = 200, {"Content-Length": "0"}

    for fault in (None, be_simple):
        server.fault = fault
        assert remote.RemoteFiles(server.url).open_file(f"{server.url}/e.index").size == 0
    with pytest.raises(tb.CorruptionError, match=r"e\.index"):
        tb.open(f"{server.url}/e")


def test_server_that_does_not_tell_the_size(server: RangeServer) -> None:
    def hide(path: str, number: int, answer: Answer) -> None:
        shown = answer.headers["Content-Range"]
        answer.headers["Content-Range"] = shown.rpartition("/")[0] + "/*"

    server.fault = hide
    with pytest.raises(tb.UnsupportedError, match="does not serve parts of a file"):
        tb.open(f"{server.url}/c")


def test_child_process_has_its_own_connections(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = remote._HttpStore(server.url, {})
    of_parent = store._session()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert store._session() is not of_parent


def test_server_without_ranges(server: RangeServer) -> None:
    def serve_whole_files(path: str, number: int, answer: Answer) -> None:
        answer.status = 200
        answer.headers.pop("Content-Range", None)

    server.fault = serve_whole_files
    with pytest.raises(tb.UnsupportedError, match=r"does not serve parts of a file.*download"):
        tb.open(f"{server.url}/c")


def test_server_that_ended(server: RangeServer, tmp_path: Path) -> None:
    with serve(tmp_path) as other:
        ck = tb.open(f"{other.url}/c", storage_options={"timeout": 1})
    for read in (ck["table"].read, lambda: tb.open(f"{other.url}/c")):
        with pytest.raises(tb.IOFailure, match="cannot read") as caught:
            read()
        assert caught.value.errno == errno.ECONNREFUSED
        # The system's words, and not what requests and urllib3 say about it.
        refused = os.strerror(errno.ECONNREFUSED)
        assert re.fullmatch(rf"cannot read {other.url}/c\.[a-z0-9-]+: {refused}", str(caught.value))


@pytest.mark.parametrize(
    ("error", "number", "text"),
    [
        (PermissionError(errno.EACCES, "no"), errno.EACCES, " (no)"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), errno.ECONNRESET, ""),
        (ConnectionError(Exception(TimeoutError("too late"))), errno.ETIMEDOUT, " (too late)"),
        (OSError(-2, "Name or service not known"), errno.EIO, " (Name or service not known)"),
        (RuntimeError("Exceeded 30 redirects."), errno.EIO, " (Exceeded 30 redirects.)"),
        (RuntimeError("the read timed out"), errno.ETIMEDOUT, " (the read timed out)"),
        (RuntimeError(), errno.EIO, " (RuntimeError)"),
    ],
)
def test_error_of_the_system_behind_others(error: Exception, number: int, text: str) -> None:
    around = RuntimeError(error) if isinstance(error, OSError) else error
    for each in (error, around):
        with pytest.raises(tb.IOFailure) as caught, remote._store_errors("http://a/b"):
            raise each
        assert caught.value.errno == number
        assert str(caught.value) == f"cannot read http://a/b{text}: {os.strerror(number)}"


def test_cycle_of_errors() -> None:
    first, second = RuntimeError("first"), RuntimeError("second")
    first.args, second.args = (second,), (first,)
    assert remote._system_error(first) is None


def test_text_of_a_library_is_not_lost_to_an_older_error() -> None:
    """What a store says of a denied request stays, though the library had another error before."""
    denied = PermissionError(errno.EACCES, "Access Denied")
    denied.__cause__ = OSError(errno.EIO, "An error occurred when calling the operation")
    with (
        pytest.raises(tb.IOFailure, match="Access Denied") as caught,
        remote._store_errors("s3://a/b"),
    ):
        raise denied
    assert caught.value.errno == errno.EACCES


def test_server_that_does_not_answer(server: RangeServer) -> None:
    server.fault = lambda path, number, answer: setattr(answer, "delay", 2.0)
    with pytest.raises(tb.IOFailure) as caught:
        tb.open(f"{server.url}/c", storage_options={"timeout": 0.05})
    assert caught.value.errno == errno.ETIMEDOUT


def test_replaced_checkpoint_is_not_mixed(server: RangeServer, tmp_path: Path) -> None:
    """The ETag changes between two ranges: rows, which no checksum covers, are not mixed."""
    with tb.open(f"{server.url}/c") as ck:
        table = ck["table"]
        assert np.array_equal(table.take([1, 70_000]), TABLE[[1, 70_000]])
        tb.save(tmp_path / "c", {"table": TABLE + 1}, overwrite=True)
        for read in (lambda: table.take([1, 70_000]), lambda: table[5], table.read):
            with pytest.raises(tb.CorruptionError, match="was replaced since it was opened"):
                read()
    assert tb.load(f"{server.url}/c")["table"][1, 0] == 33


@pytest.mark.parametrize("read", ["read", "take", "chunks", "load", "verify"])
def test_interrupt_ends_a_read(server: RangeServer, read: str) -> None:
    calls = {
        "read": lambda ck: ck["table"].read(),
        "take": lambda ck: ck["table"].take(np.arange(0, 80_000, 3000)),
        "chunks": lambda ck: list(ck["table"].chunks(1000)),
        "load": lambda ck: ck.load(),
        "verify": lambda ck: ck.verify(),
    }
    with tb.open(f"{server.url}/c") as ck:
        ck["table"][0]
        server.latency = 0.4
        timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            calls[read](ck)
            time.sleep(5)  # if the call ended before the signal
        timer.join()
        assert time.monotonic() - start < 3
        server.latency = 0
        assert np.array_equal(ck["table"][3], TABLE[3])
