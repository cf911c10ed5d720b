"""Tables: what is averaged over what, which figures are marked, and how each format says it."""

import csv
import json
import time
from io import StringIO

import pytest

from conocc.experiments.table_formats import as_csv, as_latex, as_markdown, as_text
from conocc.experiments.tables import (
    column_labels,
    make_tables,
    other_contents,
    paper_figures,
    read_row,
    write_tables,
)
from conocc.metrics.ranking import METRICS


def row(method="cae", auc=0.5, *, protocol="benchmark", **changes):
    """A row as a study writes it; every metric has the value `auc`."""
    params = {"epochs": 5, "random_state": changes.get("seed", 0), **changes.pop("params", {})}
    made = {
        "format": 1,
        "key": "k",
        "status": "done",
        "error": None,
        "method": method,
        "label": method,
        "params": params,
        "cohort": "made",
        "images": "0123456789abcdef",
        "preprocessing": {"size": 16, "colour": "grey", "fit": "stretch"},
        "protocol": protocol,
        "rule": None,
        "group": None,
        "fold": None,
        "seed": 0,
        "metrics": {name: {"value": auc, "low": 0.1, "high": 0.9} for name in METRICS},
        "counts": {"majority": 8, "minority": 4, "patients": None},
        "prevalence": 1 / 3,
        "left_out": {},
        "seconds": 1.5,
        "threads": 1,
        "notes": [],
        "versions": {},
        "command": "conocc benchmark made",
        "run": "jobs/k",
    }
    return {**made, **changes}


def failed(method="cae", **changes):
    return row(method, status="error", error="ValueError: no", metrics=None, counts=None, **changes)


def cells(table, line=0) -> dict[str, str]:
    """Printed cells of a line by column."""
    texts = as_markdown(table).splitlines()[2 + line].replace("*", "").split("|")[1:-1]
    return dict(zip(table.columns, map(str.strip, texts[len(table.head) :]), strict=True))


def ranks(*values: float) -> list[int | None]:
    rows = [row("cae", v, params={"lr": i}) for i, v in enumerate(values)]
    (table,) = make_tables(rows)
    return [cell.rank for cell in table.lines[0].cells]


def test_table_2_is_the_mean_over_seeds():
    """(0.5 + 0.6 + 0.8) / 3 = 0.6333…"""
    (table,) = make_tables([row(auc=v, seed=i) for i, v in enumerate((0.5, 0.6, 0.8))])
    assert cells(table) == {"cae": "0.633"}
    assert table.caption.startswith("Mean of 3 runs")
    assert "Epochs: 5." in table.caption


def test_table_3_is_mean_and_deviation_over_folds():
    """Mean of 0.5 and 0.7 is 0.6; deviations ±0.1 give sqrt(0.02 / (2 - 1)) = 0.1414…"""
    rows = [
        row(auc=v, protocol="crossval", rule="paper", fold=i + 1) for i, v in enumerate((0.5, 0.7))
    ]
    (table,) = make_tables(rows)
    assert cells(table) == {"cae": "0.600 ± 0.141"}
    assert table.name == "crossval-paper"
    assert "paper's rule" in table.caption


def test_one_fold_has_no_deviation():
    (table,) = make_tables([row(protocol="crossval", rule=5, group="patient", fold=1)])
    assert cells(table) == {"cae": "0.500"}
    assert table.name == "crossval-5-patient"


def test_each_rule_of_cross_validation_has_a_table_of_its_own():
    rows = [row(protocol="crossval", rule=rule, fold=1) for rule in ("paper", 3, 5)]
    assert [t.name for t in make_tables([*rows, row()])] == [
        "benchmark",
        "crossval-paper",
        "crossval-3",
        "crossval-5",
    ]


def test_lines_are_cohort_and_metric_and_columns_stand_as_in_the_paper():
    rows = [row(m, cohort=c) for m in ("conocc", "cae", "ocsvm") for c in ("b", "a")]
    (table,) = make_tables(rows)
    assert table.columns == ("ocsvm", "cae", "conocc")
    assert [line.head for line in table.lines] == [(c, m) for c in "ab" for m in METRICS]


def test_the_best_and_the_second_best_are_marked():
    assert ranks(0.5, 0.9, 0.7) == [None, 1, 2]


def test_what_is_printed_alike_shares_its_mark():
    assert ranks(0.9001, 0.9, 0.7, 0.7, 0.5) == [1, 1, 2, 2, None]
    assert ranks(0.5, 0.5) == [None, None]
    assert ranks(0.5) == [None]


def test_a_failed_fit_is_an_empty_cell_and_is_said():
    (table,) = make_tables([row("ocsvm"), failed("cae")])
    assert cells(table) == {"ocsvm": "0.500", "cae": "–"}
    assert "cae on made: 1 of 1 fits failed." in table.caption


def test_columns_of_one_method_say_in_what_they_differ():
    fits = [
        ("cae", {"lr": lr, "epochs": 5, "random_state": s}) for lr in (1e-3, 1e-4) for s in (0, 1)
    ]
    assert column_labels(fits) == ["cae lr=0.001"] * 2 + ["cae lr=0.0001"] * 2


def test_other_epochs_on_another_cohort_are_said_and_make_no_column():
    rows = [
        row(cohort="a"),
        row("sae", cohort="a"),
        row("anogan", cohort="a", params={"epochs": 2}),
    ]
    (table,) = make_tables([*rows, row(cohort="b", params={"epochs": 7})])
    assert table.columns == ("anogan", "sae", "cae")
    assert "Epochs on a: 5, anogan 2." in table.caption
    assert "Epochs on b: 7." in table.caption


def test_two_cohorts_of_one_name_are_told_apart():
    rows = [
        row(),
        row(preprocessing={"size": 32}),
        row(cohort="x"),
        row(cohort="x", images="f" * 16),
    ]
    (table,) = make_tables(rows)
    assert sorted({line.head[0] for line in table.lines}) == [
        "made size=16",
        "made size=32",
        "x 012345",
        "x ffffff",
    ]
    assert " x 012345, x ffffff: of one name, but of different images" in table.caption


def test_a_command_says_which_lines_are_of_another_content_of_its_cohort():
    old = row(cohort="x", images="f" * 16, key="old")
    new, other, larger = row(cohort="x", key="new"), row(key="y"), row(preprocessing={"size": 32})
    (said,) = other_contents([old, new, other, larger], {"new", "y"})
    assert "holds rows of x ffffff, of other images" in said
    assert "x 012345" not in said
    assert not list(other_contents([old, new], {"old", "new"}))
    assert not list(other_contents([new, other, larger], {"new"}))


def test_the_papers_figures_stand_below_ours_where_the_cohort_is_the_papers():
    """Table 2, ChestX, AUC: CAE 0.576, OCSVM 0.548."""
    rows = [row("cae", cohort="chest_xray"), row("ocsvm", cohort="chest_xray"), row(cohort="mine")]
    (table,) = make_tables(rows)
    assert [line.head for line in table.lines][:2] == [
        ("chest_xray", "AUC"),
        ("chest_xray", "AUC (paper)"),
    ]
    assert cells(table, 1) == {"ocsvm": "0.548", "cae": "0.576"}
    assert not any("paper" in line.head[1] for line in table.lines if line.head[0] == "mine")


def test_table_3_has_the_papers_deviations():
    (table,) = make_tables([row(cohort="chest_xray", protocol="crossval", rule="paper", fold=1)])
    assert cells(table, 1) == {"cae": "0.599 ± 0.049"}


def test_the_package_holds_all_of_the_papers_figures():
    """3 data sets, 3 metrics, 8 methods; Table 3 lacks AUPR-min of two sets."""
    assert [len(paper_figures(n)) for n in (2, 3)] == [72, 56]
    assert "AUPR-min" not in {metric for name, metric, _ in paper_figures(3) if name == "MRI"}


def test_only_what_the_paper_has_stands_below_ours():
    """Its tables have three metrics."""
    (table,) = make_tables([row("cae", cohort="chest_xray")])
    heads = [line.head[1] for line in table.lines]
    assert heads.count("sens@5%") == 1
    assert [name for name in heads if "(paper)" in name] == [
        f"{name} (paper)" for name in ("AUC", "AUPR-maj", "AUPR-min")
    ]


def test_captions_say_what_the_name_of_a_metric_does_not():
    (table,) = make_tables([row()])
    assert "not of a threshold set beforehand" in table.caption


def test_captions_count_the_test_images():
    """Over folds, from the least to the most."""
    (table,) = make_tables([row(), failed("sae")])
    said = "Tested on made: 8 majority and 4 minority images; prevalence of the minority 0.333, "
    assert said + "the chance level of AUPR-min." in table.caption
    rows = [
        row(protocol="crossval", rule=2, fold=i + 1, counts=c, prevalence=p)
        for i, (c, p) in enumerate(
            [
                ({"majority": 8, "minority": 4, "patients": 5}, 1 / 3),
                ({"majority": 9, "minority": 3, "patients": 6}, 1 / 4),
            ]
        )
    ]
    (table,) = make_tables(rows)
    said = "Tested on made: 8 to 9 majority and 3 to 4 minority images of 5 to 6 patients; "
    assert said in table.caption
    assert "0.250 to 0.333" in table.caption


def test_a_sweep_has_a_line_a_fit_and_nothing_is_called_best():
    rows = [row("conocc", g / 100, protocol="sweep", params={"gamma": g}) for g in (10, 1)]
    (table,) = make_tables([*rows, row("cae", protocol="sweep")])
    assert table.columns == tuple(METRICS)
    assert [line.head[1] for line in table.lines] == ["cae", "conocc gamma=1", "conocc gamma=10"]
    assert not any(cell.rank for line in table.lines for cell in line.cells)


AWKWARD = r"a_b|50%&c\*"


def test_latex_escapes_names_and_marks_the_best():
    (table,) = make_tables([row("cae", 0.9, cohort=AWKWARD), row("sae", 0.8, cohort=AWKWARD)])
    text = as_latex(table)
    assert (
        r"a\_b\textbar{}50\%\&c\textbackslash{}* & AUC & \underline{0.800} & \textbf{0.900} \\"
        in text
    )
    assert text.count("&") - text.count(r"\&") == 3 * (1 + len(METRICS))


def test_latex_writes_deviations_in_mathematics():
    rows = [row(auc=v, protocol="crossval", rule=2, fold=i) for i, v in enumerate((0.5, 0.7))]
    (table,) = make_tables(rows)
    assert r"0.600 $\pm$ 0.141" in as_latex(table)
    assert "±" not in as_latex(table)


def test_markdown_escapes_names_and_marks_the_best():
    (table,) = make_tables([row("cae", 0.9, cohort=AWKWARD), row("sae", 0.8, cohort=AWKWARD)])
    first = " ".join(as_markdown(table).splitlines()[2].split())
    assert first == r"| a\_b\|50%\&c\\\* | AUC | *0.800* | **0.900** |"


def test_text_has_marks_without_colour():
    (table,) = make_tables([row("cae", 0.9, cohort="[red]"), row("sae", 0.8, cohort="[red]")])
    text = as_text(table)
    assert text.splitlines()[2].split() == ["[red]", "AUC", "0.800²", "0.900¹"]


def test_csv_has_figures_in_full():
    """1/3 and 2/3: mean 0.5, deviation sqrt(2) / 6."""
    rows = [row(auc=v, protocol="crossval", rule=2, fold=i) for i, v in enumerate((1 / 3, 2 / 3))]
    (table,) = make_tables(rows)
    first = next(csv.DictReader(StringIO(as_csv(table))))
    assert float(first["cae"]) == pytest.approx(0.5)
    assert float(first["cae sd"]) == pytest.approx(2**0.5 / 6)
    assert first["cae n"] == "2"


def test_a_row_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "row.json"
    for text in ("", "[]", '{"format": 99}', '{"format": 0}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"Cannot read row '.*row.json'"):
            read_row(path)


@pytest.mark.parametrize("run", ["/etc", "../other/jobs/k", "jobs/../../x"])
def test_a_row_whose_run_lies_outside_the_study_is_refused(run, tmp_path):
    """A report would show what lies there."""
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row(run=run)))
    with pytest.raises(ValueError, match=r"Cannot read row '.*': its run '.*' lies outside"):
        read_row(path)


def test_a_folder_without_rows_is_no_study(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a study"):
        write_tables(tmp_path)


def test_ten_thousand_rows_take_seconds(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for i in range(10_000):
        one = row(
            "cae",
            i / 10_000,
            key=str(i),
            seed=i % 10,
            cohort=f"c{i // 100}",
            params={"lr": i // 10 % 10},
        )
        (folder / f"{i}.json").write_text(json.dumps(one))
    start = time.process_time()
    (table,) = write_tables(tmp_path)
    assert time.process_time() - start < 10
    assert (len(table.lines), len(table.columns)) == (400, 10)
    with (tmp_path / "tables" / "rows.csv").open() as file:
        assert sum(1 for _ in file) == 40_001
