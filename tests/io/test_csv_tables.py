"""Tables are read as they were written."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conocc.io.tables import read_csv, write_csv

# What starts a formula, what parts cells and lines, and what could be a number or missing.
NAMES = st.text("=+-@\t\r\n＝＋－＠';,\"aNA07. é", max_size=8)


@settings(deadline=None)  # pandas is imported meanwhile
@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=4))
def test_names_are_read_as_they_were_written(names):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_csv(path, ("path", "score", "label"), ((name, -0.5, label) for name, label in names))
        found = read_csv(path)
    assert list(zip(found["path"], found["label"], strict=True)) == names
    assert found["score"].tolist() == [-0.5] * len(names)


def test_a_path_starts_no_formula_and_all_else_is_written_as_it_is(tmp_path):
    rows = [("=a.png", -0.5, "-b"), ("＠b.png", -1, "=x"), ("a=b.png", 1, "'-1")]
    write_csv(tmp_path / "t.csv", ("path", "score", "label"), rows)
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == (
        "path,score,label\n./=a.png,-0.5,-b\n./＠b.png,-1,=x\na=b.png,1,'-1\n"
    )


def test_a_missing_number_is_missing_and_a_name_is_not(tmp_path):
    rows = [("NA", "", "None", "007"), ("", "nan", "", "1e5")]
    write_csv(tmp_path / "t.csv", ("path", "p_value", "label", "patient"), rows)
    found = read_csv(tmp_path / "t.csv")
    assert found.drop(columns="p_value").to_numpy().tolist() == [
        ["NA", "None", "007"],
        ["", "", "1e5"],
    ]
    assert found["p_value"].isna().all()


@pytest.mark.parametrize("data", [b"", b"path\n\xff\n", b"path,label\na,b\na,b,c\n", b'a\n"b'])
def test_a_damaged_table_is_named(tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(ValueError, match=r"Cannot read '.*t\.csv': .*\."):
        read_csv(tmp_path / "t.csv")
