"""Tables of users, of any dialect, are read to the letter or refused in one sentence."""

import csv
import io
import os
import sys
import zipfile
from datetime import date

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from conocc.io import user_tables
from conocc.io.user_tables import read_table

COLUMNS = ["path", "Größe", "label"]
CELLS = [["a,1.png", "1,5", "é;x"], ["b 2.png", "", "0"]]
READ = [(line, dict(zip(COLUMNS, cells, strict=True))) for line, cells in enumerate(CELLS, 2)]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "mac_roman"]
)
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_dialects_of_text_are_known_by_what_the_file_holds(tmp_path, mark, encoding):
    text = io.StringIO()
    csv.writer(text, delimiter=mark).writerows([COLUMNS, *CELLS])
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode(encoding))
    assert read_table(tmp_path / "t.csv") == (COLUMNS, READ)


@pytest.mark.parametrize(
    "words",
    [
        *("Übelkeit, größer: Müller, Straße", "épanchement sévère où côté", "Åsa på Öström"),
        *("niño, España, García, tórax", "não: coração, pulmões", "GRÖSSE"),
        *("Søren på rød ærø", "pää äänekäs", "37° of 5 µm", "Crohn’s dose–response", "é"),
    ],
)
@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman"])
def test_letters_of_windows_and_of_a_mac_are_read_right_or_said_to_be_a_guess(
    tmp_path, caplog, words, encoding
):
    """Excel for Mac writes Mac Roman: 'größer' was read as 'gršßer', without a word."""
    (tmp_path / "t.csv").write_bytes(f"path;label\n1.png;{words}\n".encode(encoding))
    (_, row), *_ = read_table(tmp_path / "t.csv")[1]
    if encoding == "cp1252":
        assert row["label"] == words
    elif row["label"] != words:
        assert "'t.csv' is not in UTF-8; its letters were read as Windows-1252" in caplog.text
    else:
        assert "'t.csv' is not in UTF-8; its letters were read as Mac Roman" in caplog.text


@pytest.mark.parametrize(
    ("words", "encoding"),
    [("Опухоль", "cp1251"), ("Żółć guz", "cp1250"), ("όγκος", "cp1253"), ("正常 肿瘤", "gbk")],
)
def test_letters_of_no_western_language_are_said_to_be_a_guess(tmp_path, caplog, words, encoding):
    (tmp_path / "t.csv").write_bytes(f"path;label\n1.png;{words}\n".encode(encoding))
    read_table(tmp_path / "t.csv")
    assert "If names, labels or paths come out wrong, save it as CSV UTF-8." in caplog.text


def test_excel_may_say_what_parts_the_cells(tmp_path):
    (tmp_path / "t.csv").write_text("sep=|\npath|a;b;c\n1.png|x\n")
    assert read_table(tmp_path / "t.csv") == (
        ["path", "a;b;c"],
        [(3, {"path": "1.png", "a;b;c": "x"})],
    )


def save_sheet(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def test_workbooks(tmp_path):
    """Numbers are read as a person sees them; short lines are filled up; the suffix is nothing."""
    rows = [
        [None],
        ["path", "patient", "age", "born"],
        ["1.png", 7.0, 1.5, date(2020, 1, 2)],
        ["2.png", 8],
    ]
    columns, found = read_table(save_sheet(tmp_path / "t.xlsx", rows).rename(tmp_path / "t.csv"))
    assert columns == rows[1]
    assert found == [
        (3, {"path": "1.png", "patient": "7", "age": "1.5", "born": "2020-01-02 00:00:00"}),
        (4, {"path": "2.png", "patient": "8", "age": "", "born": ""}),
    ]


def test_the_first_sheet_is_read_and_the_log_says_so(tmp_path, caplog):
    book = openpyxl.Workbook()
    book.active.append(["path"])
    book.create_sheet("legend").append(["what"])
    book.save(tmp_path / "t.xlsx")
    with caplog.at_level("INFO", "conocc"):
        assert read_table(tmp_path / "t.xlsx")[0] == ["path"]
    assert caplog.messages == ["Of 't.xlsx', the first sheet is read: 'Sheet'."]


def test_sheets_of_one_kind_are_not_read_in_part(tmp_path):
    """As where each class, or side of the split, has a sheet."""
    book = openpyxl.Workbook()
    for sheet, path in ((book.active, "1.png"), (book.create_sheet("more"), "2.png")):
        sheet.append(["path", "label"])
        sheet.append([path, "a"])
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(ValueError, match="'t.xlsx': several of its sheets have the same columns"):
        read_table(tmp_path / "t.xlsx")


def test_parquet(tmp_path):
    """Numbers and names; what is missing is empty; pixels in a column are no cells."""
    table = pyarrow.table(
        {
            "path": ["1.png", None],
            "patient": [7.0, float("nan")],
            "label": [1, None],
            "bytes": [b"x", b"y"],
            "image": [{"bytes": b"x"}, None],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == (
        ["path", "patient", "label"],
        [
            (2, {"path": "1.png", "patient": "7", "label": "1"}),
        ],
    )


@pytest.mark.parametrize(("module", "magic"), [("openpyxl", b"PK\x03\x04"), ("pyarrow", b"PAR1")])
def test_a_missing_library_is_named_with_how_to_install_it(tmp_path, monkeypatch, module, magic):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "t.xlsx").write_bytes(magic)
    with pytest.raises(ValueError, match=f"'t.xlsx', the module '{module}' .*'conocc.tables.'; or"):
        read_table(tmp_path / "t.xlsx")


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """A file, what a workbook and a Parquet file unpack to, and the number of lines."""
    sheet = save_sheet(tmp_path / "t.xlsx", [["path"], ["x" * 10_000]])
    packed = tmp_path / "t.parquet"
    cells = pyarrow.table({"path": [f"{i % 100} {'x' * 900}" for i in range(1000)]})
    pyarrow.parquet.write_table(cells, packed, use_dictionary=False, compression="gzip")
    (tmp_path / "t.csv").write_text("path\n" + "a\n" * 20_000)
    monkeypatch.setattr(user_tables, "MOST_BYTES", 35_000)
    assert max(sheet.stat().st_size, packed.stat().st_size) < 35_000
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(
            ValueError, match=f"'{name}': it .* bytes, where at most 35000 are read"
        ):
            read_table(tmp_path / name)
    monkeypatch.setattr(user_tables, "MOST_BYTES", 9_000)
    assert sheet.stat().st_size < 9_000
    with pytest.raises(ValueError, match="'t.xlsx': it unpacks to "):
        read_table(sheet)
    monkeypatch.undo()
    monkeypatch.setattr(user_tables, "MOST_LINES", 99)
    with pytest.raises(ValueError, match="'t.csv' has more than 99 lines"):
        read_table(tmp_path / "t.csv")


def test_a_row_far_down_a_sheet_does_not_hang(tmp_path, monkeypatch):
    """A workbook may say of a row that it is the 99,999,999,999th."""
    monkeypatch.setattr("conocc.io.user_tables.MOST_LINES", 2**16)
    sheet = save_sheet(tmp_path / "t.xlsx", [["path"], ["1.png"]])
    with zipfile.ZipFile(sheet) as old, zipfile.ZipFile(tmp_path / "far.xlsx", "w") as new:
        for part in old.namelist():
            data = old.read(part).replace(b'<row r="2"', b'<row r="99999999999"')
            new.writestr(part, data.replace(b' r="A2"', b"").replace(b"A1:A2", b"A1:A1"))
    with pytest.raises(ValueError, match="more than 65536 lines"):
        read_table(tmp_path / "far.xlsx")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="'t.csv': it is not a regular file"):
        read_table(tmp_path / "t.csv")


def test_columns_without_a_name_are_passed_over(tmp_path):
    """As pandas and Excel write them: in front, and behind, there in every line or in none."""
    (tmp_path / "t.csv").write_text(",path,,label,,\n0,a,,x\n1,b,,y,\n2,c,,z,,,,\n")
    columns, rows = read_table(tmp_path / "t.csv")
    assert columns == ["path", "label"]
    assert [list(row.values()) for _, row in rows] == [["a", "x"], ["b", "y"], ["c", "z"]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no head line"),
        (" , \n", "no head line"),
        ("path,path\na,b\n", "names a column twice"),
        ('"p\na","p\na"\na,b\n', r"names a column twice: 'p\\na'"),
        ("path,label\na\n", r"line 2: 1 cell, where the head line \('path' …\) has 2"),
        (b"path\n\x90\xb3\x8f\xed\n", "not a text file in UTF-8"),
        (b"path\n\0\n", "not a text file in UTF-8"),
        (b"\xff\xfea", "not a text file in UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1", "a workbook of an old kind, or has a password"),
        (
            b"PK\x03\x04",
            "Cannot read 'm.csv': it is damaged, cut short or of a kind that openpyxl",
        ),
        (b"PAR1", "Cannot read 'm.csv': .* that pyarrow does not read"),
        ("path\n" + "x" * 200_000 + "\n", r"line 2: field larger than"),
    ],
)
def test_broken_tables_are_refused(tmp_path, text, sentence):
    """What is wrong is said in one sentence with the table's name."""
    table = tmp_path / "m.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=sentence) as caught:
        read_table(table)
    assert "'m.csv'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_keep_line_numbers(tmp_path):
    """Empty lines, blanks and a byte-order mark do not matter; quoted cells may hold commas."""
    table = tmp_path / "m.csv"
    table.write_text('\ufeffpath, label\n\n"a,1.png", x \n', encoding="utf-8")
    assert read_table(table) == (["path", "label"], [(3, {"path": "a,1.png", "label": "x"})])
