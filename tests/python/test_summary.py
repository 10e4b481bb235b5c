# SPDX-License-Identifier: Apache-2.0
"""`Checkpoint.summary`, and the HTML of checkpoints, tensors and reports."""

from __future__ import annotations

import html.parser
from pathlib import Path

import numpy as np
import pytest
from craft import tilings
from craft.bundle import Bundle, shard_path
from craft.dtypes import KINDS

import tensorbundle as tb
from tensorbundle import tables
from tensorbundle.summary import Count


def write(tmp_path: Path) -> Path:
    bundle = Bundle()
    bundle.add("global_step", np.int64(7))
    bundle.add("bert/w", np.zeros((10, 3), np.float32))
    bundle.add("bert/w/adam_m", np.zeros((10, 3), np.float32))
    bundle.add("bert/w/adam_v", np.zeros((10, 3), np.float32))
    bundle.add("cls/b", np.zeros(4, np.float16))
    bundle.add_sliced("emb/t", np.zeros((8, 2)), tilings.cut((8, 2), 0, [3, 5]))
    bundle.add_strings("emb/words", [b"ab", b"c"], (2,))
    return bundle.write(tmp_path / "m")


def test_summary_counts_tensors_parameters_and_bytes(tmp_path: Path) -> None:
    with tb.open(write(tmp_path)) as ck:
        summary = ck.summary()
        strings = ck["emb/words"].nbytes
    assert (summary.tensors, summary.parameters) == (7, 1 + 90 + 4 + 16)
    assert summary.nbytes == 8 + 360 + 8 + 128 + strings
    assert summary.slots == Count(2, 60, 240)
    assert summary.model == Count(5, 51, summary.nbytes - 240)
    assert summary.total == summary.model + summary.slots
    assert list(summary.by_dtype) == ["float32", "float64", "string", "float16", "int64"]
    assert summary.by_dtype["float32"] == Count(3, 90, 360)
    assert summary.by_scope == {
        "bert": Count(3, 90, 360),
        "emb": Count(2, 16, 128 + strings),
        "": Count(1, 1, 8),
        "cls": Count(1, 4, 8),
    }


def test_summary_prints_one_line_and_a_table(tmp_path: Path) -> None:
    with tb.open(write(tmp_path)) as ck:
        lines = str(ck.summary()).splitlines()
    assert lines[0] == "7 tensors, 111 parameters, 513 B; optimizer slots 240 B"
    table = {" ".join(line.split()) for line in lines[1:]}
    assert "model 5 51 273 B" in table
    assert "optimizer slots 2 60 240 B" in table
    assert "scope bert 3 90 360 B" in table
    assert "no scope 1 1 8 B" in table


def test_summary_of_an_object_graph_finds_its_slots(checkpoints: Path) -> None:
    with tb.open(checkpoints / "optimizer_slots") as ck:
        summary = ck.summary()
        expected = [name for name in ck if "/.OPTIMIZER_SLOT/" in name]
        assert summary.slots.tensors == len(expected) > 0
        assert summary.slots.nbytes == sum(ck[name].nbytes for name in expected)


def test_summary_reads_no_data(tmp_path: Path) -> None:
    prefix = write(tmp_path)
    shard_path(prefix).unlink()
    with tb.open(prefix) as ck:
        assert ck.summary().tensors == 7


def test_summary_of_nothing(tmp_path: Path) -> None:
    with tb.open(Bundle().write(tmp_path / "m")) as ck:
        assert ck.summary().line == "0 tensors, 0 parameters, 0 B"
        assert ck._repr_html_()


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1000, "1000 B"),
        (1024, "1.00 KiB"),
        (875_800_000, "835 MiB"),
        (1_313_900_000, "1.22 GiB"),
        (10 * 2**30, "10.0 GiB"),
        (123 * 2**40, "125952 GiB"),
    ],
)
def test_sizes_are_written_in_binary_units(nbytes: int, text: str) -> None:
    assert tables.size_text(nbytes) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (9_999, "9,999"),
        (12_345, "12.3 k"),
        (999_949, "999.9 k"),
        (999_999, "1.0 M"),
        (328_500_000, "328.5 M"),
        (1_500_000_000, "1.5 G"),
    ],
)
def test_counts_are_written_with_decimal_prefixes(count: int, text: str) -> None:
    assert tables.count_text(count) == text


class Parser(html.parser.HTMLParser):
    """Collects the cells of tables, and checks that all tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def parse(text: str) -> list[list[str]]:
    text.encode()  # notebooks are UTF-8
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert not parser.open
    assert parser.tags <= {"div", "p", "table", "thead", "tbody", "tr", "th", "td"}
    return parser.rows


NASTY = "<script>alert('&')</script>\n\x00\udcff"
ESCAPED = "<script>alert('&')</script>\\n\\x00\\xff"


def test_html_of_a_checkpoint_lists_its_tensors(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add(NASTY, np.zeros((2, 3)))
    bundle.add("w", np.zeros(3, KINDS[14].dtype), number=14)
    with tb.open(bundle.write(tmp_path / "a<b>")) as ck:
        rows = parse(ck._repr_html_())
        assert rows == [
            ["tensor", "dtype", "shape", "bytes"],
            [ESCAPED, "float64", "[2,3]", "48"],
            ["w", "bfloat16", "[3]", "6"],
        ]
        tensor = ck[NASTY]
        assert "&lt;script&gt;" in tensor._repr_html_()
        assert parse(tensor._repr_html_())[1][:4] == ["(0, 0)", "[2,3]", "48", "0"]
        assert parse(ck.summary()._repr_html_())[1] == ["dtype float64", "1", "6", "48 B"]
    assert parse(ck._repr_html_()) == []
    assert parse(tensor._repr_html_()) == []


def test_html_of_a_large_checkpoint_is_cut(tmp_path: Path) -> None:
    bundle = Bundle()
    for i in range(tables.MAX_HTML_ROWS + 1234):
        bundle.add(f"t{i}", np.int8(0))
    with tb.open(bundle.write(tmp_path / "m")) as ck:
        text = ck._repr_html_()
    assert len(parse(text)) == 1 + tables.MAX_HTML_ROWS
    assert "and 1,234 more" in text


def test_verification_prints_and_has_html(tmp_path: Path) -> None:
    prefix = write(tmp_path)
    with tb.open(prefix) as ck:
        good = ck.verify()
    assert str(good) == f"ok: {good.checked_bytes} B checked"
    assert parse(good._repr_html_()) == []
    data = bytearray(shard_path(prefix).read_bytes())
    data[0] ^= 1
    shard_path(prefix).write_bytes(data)
    with tb.open(prefix) as ck:
        bad = ck.verify()
    lines = str(bad).splitlines()
    assert lines[0] == f"1 damaged: {bad.checked_bytes} B checked"
    assert lines[2].split()[:2] == ["damaged", bad.damaged[0].tensor]
    assert parse(bad._repr_html_())[1][:2] == ["damaged", bad.damaged[0].tensor]
