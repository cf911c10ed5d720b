"""The report: made without torch, self-contained, escaped, and alive in a real browser."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conocc import load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.experiments.artifacts import Embedding
from conocc.experiments.run import fit_run
from conocc.visualization.report import write_report
from made_runs import embedding, gallery, write_row, write_run
from test_cli import call

NASTY = "<script>alert('x')</script>&\"$_{}"


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and the text that a reader sees."""

    closed = False

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.closed = False
        self.all.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags[-1:] not in (["style"], ["script"]) or self.closed:
            self.text += data

    def handle_endtag(self, tag):
        self.closed = True

    def values(self, *names: str) -> list[str]:
        return [value or "" for _, a in self.all for n, value in a.items() if n in names]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Page:
    return Page(write_report(write_run(tmp_path_factory.mktemp("a") / "run", name=NASTY)))


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory) -> Path:
    """Two methods with two seeds; one fit has failed, and one has lost its folder."""
    study = tmp_path_factory.mktemp("b") / "study"
    write_run(write_row(study, "k0", "cae", auc=0.6), "cae")
    write_run(write_row(study, "k1", "conocc", auc=0.7))
    write_row(study, "k2", "conocc", auc=0.9, seed=1)
    write_row(study, "k3", "cae", auc=None, seed=1, error=f"ValueError: {NASTY}")
    return study


@pytest.fixture(scope="module")
def study(study_folder) -> Page:
    return Page(write_report(study_folder))


def test_a_run_shows_command_cohort_metrics_notes_and_versions(run):
    for said in ("conocc fit", "conocc evaluate", "cohort ", "0.750", "0.500", "0.900", "0.812"):
        assert said in run.text
    assert "Too few patients." in run.text
    assert "3 images, of a patient trained on" in run.text
    assert "9.9.9" in run.text
    assert "0.429" in run.text  # prevalence, 6 / 14


def test_the_charts_of_a_run_stand_in_one_grid(run, study):
    """A run has one or two of each kind, which would leave rows empty; a study has more."""
    assert run.values("class").count("figures") == 1
    assert study.values("class").count("figures") == 3


def test_long_names_go_on_after_a_hyphen_or_slash(run):
    assert "<wbr>" in run.source
    assert not re.search(r"\.<wbr>", run.source)


def test_leaks_are_set_off(run):
    at = [attributes.get("class") for _, attributes in run.all].count("warn")
    assert at == 1
    assert "LEAK: 2 patients" in run.text


def test_counts_are_those_of_the_split(run):
    """Twelve of twenty majority images train; eight of them and six minority ones test."""
    rows = re.findall(
        r"<tr><td class=\"name\">(\w+)</td><td class=\"name\">(\w+)</td>.*", run.source
    )
    assert rows == [("train", "majority"), ("test", "majority"), ("test", "minority")]
    found = re.findall(r"<td>(\d+)</td><td>(\d+)</td></tr>", run.source)
    assert found == [("12", "12"), ("8", "8"), ("6", "6")]


def test_a_study_shows_the_mean_over_seeds_and_every_fit(study):
    assert "0.800" in study.text  # (0.7 + 0.9) / 2
    for key in ("k0", "k1", "k2", "k3"):
        assert f"jobs/{key}" in study.text
    assert "conocc benchmark made --out study" in study.text


def test_a_failed_fit_is_listed_with_its_error_and_is_no_number(study):
    assert "What failed" in study.text
    assert f"cae on made, seed 1: ValueError: {NASTY}" in study.text


def test_a_fit_whose_folder_is_gone_still_has_its_line(study):
    assert "seed 1 0.900" in study.text


@pytest.mark.parametrize("page", ["run", "study"])
def test_the_page_asks_for_nothing(page, request):
    page = request.getfixturevalue(page)
    for target in page.values("href", "src", "srcset", "action", "data", "poster"):
        assert target.startswith(("#", "data:")), target
    assert not {"iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert not re.search(r"@import|url\(", page.source)
    (policy,) = [v for v in page.values("content") if v.startswith("default-src")]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


@pytest.mark.parametrize("page", ["run", "study"])
def test_every_link_leads_to_one_place_of_the_page(page, request):
    page = request.getfixturevalue(page)
    places = page.values("id")
    assert len(places) == len(set(places))
    links = [target for target in page.values("href") if target.startswith("#")]
    assert len(links) >= 5
    assert {target[1:] for target in links} <= set(places)


@pytest.mark.parametrize("page", ["run", "study"])
def test_every_image_has_a_text_in_its_place(page, request):
    page = request.getfixturevalue(page)
    images = [attributes for tag, attributes in page.all if tag == "img"]
    assert len(images) > 8
    assert all((image.get("alt") or "").strip() for image in images)


@pytest.mark.parametrize("page", ["run", "study"])
def test_nothing_from_names_or_errors_becomes_markup(page, request):
    page = request.getfixturevalue(page)
    assert page.tags.count("script") == 1
    assert "<script>alert" not in page.source
    assert "&lt;script&gt;alert" in page.source


def test_the_threshold_stands_with_its_promise_and_how_it_turned_out(run):
    for said in (
        "At most 5 % of new patients.",
        "Images are flagged above an anomaly score of 1.",
        "False alarms on the test split: 1 of 8 majority patients flagged (12.5 %, "
        "95 % interval 0.3–52.7 %).",
        "Sensitivity on the test split: 6 of 6 minority patients flagged (100.0 %, "
        "95 % interval 54.1–100.0 %).",
        "No threshold was set on the score of a test image.",
    ):
        assert said in run.text
    assert "False discoveries" not in run.text


def test_names_of_all_kinds_are_escaped(tmp_path):
    """Files, classes, cohort, notes, commands, methods, parameters, folder."""
    study = tmp_path / "a&b<i>"
    params = {NASTY: NASTY, "random_state": 0}
    names = {"cohort": NASTY, "command": NASTY, "notes": [NASTY, f"LEAK {NASTY}"], "params": params}
    folder = write_row(study, "k0", NASTY, auc=0.6, versions={NASTY: NASTY}, **names)
    write_run(folder, NASTY, name="<b>x</b>'\"")
    page = Page(write_report(study))
    assert page.tags.count("script") == 1
    assert not {"b", "i"} & set(page.tags)
    assert page.text.count(NASTY) >= 8
    assert "<b>x</b>'\"0.png" in page.text


def test_a_cross_validation_shows_the_deviation_over_folds(tmp_path):
    for fold, auc in ((1, 0.6), (2, 0.8)):
        changes = {"protocol": "crossval", "rule": "paper", "fold": fold}
        write_row(tmp_path, f"k{fold}", "cae", auc=auc, **changes)
    page = Page(write_report(tmp_path))
    assert "0.700± 0.141" in page.text  # |0.8 - 0.6| / √2
    assert "fold 2" in page.text


def test_a_sweep_has_its_bars_and_calls_no_cell_best(tmp_path):
    i = 0
    for lr in (1e-3, 1e-4):
        for gamma in (0.1, 1.0, 10.0):
            for interval in (20, 40, 60, 80):
                params = {"lr": lr, "gamma": gamma, "interval": interval, "random_state": 0}
                changes = {"protocol": "sweep", "params": params}
                write_row(tmp_path, f"k{i}", "conocc", auc=0.5 + i / 100, **changes)
                i += 1
        write_row(tmp_path, f"c{i}", "cae", auc=0.6, protocol="sweep", params={"lr": lr})
    write_row(tmp_path, "other", "cae", auc=0.987, seed=1, protocol="sweep", params={"lr": 0.1})
    page = Page(write_report(tmp_path))
    assert "AUC of conocc over lr, gamma, interval and the level of cae" in page.values("alt")
    assert "best" not in page.text
    assert "cae 0.987" not in page.source  # of another seed than the rest
    assert "too many fits" in page.text


def test_a_study_shows_intervals_and_the_tests_between_methods(study):
    """One of ConOCC's fits has lost its folder, so that there is nothing to compare."""
    assert "Benchmark, intervals" in study.text
    assert "0.625(0.400–0.800)" in study.text  # the AUPR-maj of the one CAE, from its row
    assert "Benchmark, comparisons" in study.text
    assert "scores are missing or not of the same images: conocc." in study.text


def test_many_comparisons_are_folded(tmp_path):
    """Five methods have ten pairs, six have fifteen."""
    methods = ("ocsvm", "dagmm", "dsvdd", "sae", "cae", "conocc")
    for method in methods[:5]:
        write_run(write_row(tmp_path, method, method, auc=0.6), method)
    assert "All 10 comparisons" not in Page(write_report(tmp_path)).text
    write_run(write_row(tmp_path, "conocc", "conocc", auc=0.6), "conocc")
    page = Page(write_report(tmp_path))
    assert "All 15 comparisons" in page.text
    assert page.text.count("+0.000") == 15 * 3


def test_a_run_says_how_many_images_its_metrics_are_of(run):
    assert "8 majority and 6 minority images of 14 patients" in run.text


def test_protocols_of_one_study_stand_apart(tmp_path):
    write_row(tmp_path, "k0", "cae", auc=0.6)
    write_row(tmp_path, "k1", "cae", auc=0.7, protocol="crossval", rule="paper", fold=1)
    page = Page(write_report(tmp_path))
    assert "made: benchmark" in page.text
    assert "made: crossval-paper" in page.text


def test_a_run_that_was_not_evaluated_says_so(tmp_path):
    folder = write_run(tmp_path / "run")
    for name in ("metrics.json", "scores.csv", "gallery.npz", "embedding.npz"):
        (folder / name).unlink()
    page = Page(write_report(folder))
    assert "It has not been evaluated." in page.text


def test_what_is_neither_a_run_nor_a_study_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a run nor a study"):
        write_report(tmp_path)
    (tmp_path / "rows").mkdir()
    with pytest.raises(ValueError, match="has no rows yet"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "gallery.npz", "embedding.npz"])
def test_a_damaged_file_is_named(name, tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / name).write_bytes(b"{ cut")
    with pytest.raises(ValueError, match=f"Cannot read .*{name}"):
        write_report(folder)


def test_a_heat_map_without_a_reconstruction_is_explained(tmp_path):
    """Of lrt and gabor_mahalanobis it was said that they draw none, beside theirs."""
    folder, kept = write_run(tmp_path / "run"), gallery()
    scale = replace(kept.scale(), of="contribution").as_json()
    text = np.array(json.dumps(scale))
    replace(kept, reconstruction=kept.input[:0], residual_scale=text).save(folder / "gallery.npz")
    said = write_report(folder).read_text()
    assert "what each place adds to the score" in said
    assert "this method draws no heat map" not in said
    gallery(reconstructs=False).save(folder / "gallery.npz")
    assert "this method draws no heat map" in write_report(folder).read_text()


def test_a_class_of_which_there_is_no_image_has_no_heading(tmp_path):
    folder, kept = write_run(tmp_path / "run"), gallery()
    names = ("input", "reconstruction", "residual", "path", "anomaly_score", "minority")
    replace(kept, **{name: getattr(kept, name)[:2] for name in names}).save(folder / "gallery.npz")
    said = write_report(folder).read_text()
    assert "Majority images scored highest" in said
    assert "Minority images scored lowest" not in said


def test_a_test_without_minority_images_shows_the_majority_alone(tmp_path):
    folder, kept = write_run(tmp_path / "run"), gallery()
    alone = np.zeros(len(kept.montage), bool)
    replace(kept, montage_minority=alone).save(folder / "gallery.npz")
    said = write_report(folder).read_text()
    assert f"{len(alone)} test images of the majority class" in said
    assert "of the minority class: " not in said


def test_few_images_of_a_class_are_drawn_no_larger_than_many(tmp_path):
    """One alone filled half of a screen: 96 pixels an image, eight in a row, or as many as fit."""
    folder, kept = write_run(tmp_path / "run"), gallery()
    for minority, widths in ((np.arange(5) > 3, [384, 96]), (np.arange(20) > 9, [768, 768])):
        pixels = np.resize(kept.montage, (len(minority), 1, 16, 16))
        labels = np.where(minority, "bad", "good")
        shown = {"montage": pixels, "montage_minority": minority, "montage_label": labels}
        replace(kept, **shown).save(folder / "gallery.npz")
        page = write_report(folder).read_text(encoding="utf-8")
        assert re.findall(r'<img class="pixels" width="(\d+)"', page) == [*map(str, widths)]


def test_a_report_needs_no_torch(tmp_path):
    folder = write_run(tmp_path / "run")
    program = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name.split('.')[0] != 'torch'\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from conocc.visualization.report import write_report\n"
        "write_report(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(folder)], check=True)
    assert (folder / "report.html").stat().st_size > 100_000


# --- from the command line ---------------------------------------------------------------------


def test_the_command_prints_where_the_report_is(tmp_path):
    code, said = call("report", write_run(tmp_path / "run"))
    assert code == 0, said
    assert said.splitlines()[-1] == str(tmp_path / "run" / "report.html")
    code, said = call("report", tmp_path)
    assert code == 1
    assert "neither a run nor a study" in said


def test_the_charts_are_also_files_where_they_are_asked_for(tmp_path):
    for cohort in ("left", "right"):
        for method in ("cae", "conocc"):
            write_run(
                write_row(tmp_path, f"{cohort}-{method}", method, auc=0.7, cohort=cohort), method
            )
    code, said = call("report", tmp_path, "--figures", "svg")
    assert code == 0, said
    assert said.split()[-1] == str(tmp_path / "figures")
    kinds = ("roc", "precision-recall-minority", "precision-recall-majority", "features")
    of_each = {*kinds, *[f"{k}-{m}" for k in ("scores", "training") for m in ("cae", "conocc")]}
    files = {p.name: p.read_text() for p in (tmp_path / "figures").glob("*.svg")}
    assert set(files) == {f"{c}-{one}.svg" for c in ("left", "right") for one in of_each}
    assert all(text.startswith("<?xml") for text in files.values())
    code, said = call("report", tmp_path, "--figures", "doc")
    assert code == 1
    assert "its ending must be one of" in said


@pytest.mark.parametrize("name", ["report.html", "figures/roc.svg"])
def test_a_file_that_no_report_wrote_is_not_replaced(name, tmp_path):
    folder = write_run(tmp_path / "run")
    write_report(folder, figures="svg")
    (folder / "conocc.json").unlink()
    (folder / "figures" / "conocc.json").unlink()
    others = {"report.html", "figures/roc.svg"} - {name}
    for path in [folder / other for other in others]:
        path.unlink()
    (folder / name).write_text("mine")
    with pytest.raises(FileExistsError, match="which 'report' would replace but did not"):
        write_report(folder, figures="svg")
    assert (folder / name).read_text() == "mine"
    assert not any((folder / other).exists() for other in others)


def test_a_report_is_made_anew(tmp_path):
    folder = write_run(tmp_path / "run")
    for _ in range(2):
        write_report(folder, figures="svg")


def test_embed_draws_the_runs_side_by_side_and_prints_their_compactness(tmp_path):
    runs = [write_run(tmp_path / name, name) for name in ("conocc", "cae")]
    code, said = call("embed", *runs, "--out", tmp_path / "maps.svg")
    assert code == 0, said
    assert said.count(f"{embedding().compactness():.3f}") == 2
    assert (tmp_path / "maps.svg").read_bytes().startswith(b"<?xml")


def test_embed_says_which_run_has_nothing_to_draw(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "embedding.npz").unlink()
    code, said = call("embed", run, "--out", tmp_path / "maps.svg")
    assert code == 1
    assert "run' has no embedding.npz" in said
    code, said = call("embed", tmp_path, "--out", tmp_path / "maps.svg")
    assert code == 1
    assert "is not a run" in said


def test_embed_with_a_cohort_makes_the_features_anew(tmp_path):
    params = {"epochs": 1, "interval": 1, "random_state": 0}
    cohort = load_cohort("phantom-ffdm", Preprocessing(size=16))
    fit_run(cohort, "conocc", params, tmp_path / "run", command="")
    code, said = call("embed", tmp_path / "run", "phantom-ffdm", "--out", tmp_path / "m.png")
    assert code == 0, said
    assert len(Embedding.load(tmp_path / "run" / "embedding.npz").train) == 200


# --- in a browser ------------------------------------------------------------------------------


@pytest.fixture
def opened(browser, study, study_folder):
    """The study's report, freshly opened, at the width of a phone."""
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")
    browser.get_log("performance"), browser.get_log("browser")
    browser.get((study_folder / "report.html").as_uri())
    return browser


def test_it_opens_without_errors_or_requests(opened):
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"].endswith("BeSent")]
    assert [url for url in sent if url.startswith("file:") and url.endswith("report.html")]
    assert [url for url in sent if not url.startswith(("file:", "data:"))] == []
    assert opened.get_log("browser") == []


def test_the_images_show(opened):
    unseen = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert opened.execute_script("return document.images.length") > 8
    assert opened.execute_script(unseen) == 0


def test_a_phone_need_not_scroll_sideways(opened):
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 390


def test_a_click_sorts_a_table_and_another_turns_it_round(opened):
    column = """
        const table = document.querySelector("#fits").closest("section").querySelector("table");
        return [...table.tBodies[0].rows].map(row => row.cells[3].innerText.split("\\n")[0]);
    """
    click = """
        document.querySelector("#fits").closest("section")
            .querySelectorAll("th button")[3].click();
    """
    assert opened.execute_script(column) == ["0.600", "–", "0.700", "0.900"]
    opened.execute_script(click)
    assert opened.execute_script(column) == ["0.600", "0.700", "0.900", "–"]
    opened.execute_script(click)
    assert opened.execute_script(column) == ["0.900", "0.700", "0.600", "–"]


def test_a_link_into_a_fold_opens_it(opened):
    folded = 'return !document.querySelector("#gallery-k0").open'
    assert opened.execute_script(folded)
    opened.execute_script("""document.querySelector('a[href="#gallery-k0"]').click()""")
    opened.execute_async_script("setTimeout(arguments[0], 50)")
    assert not opened.execute_script(folded)


def test_the_dark_is_dark(opened):
    background = "return getComputedStyle(document.body).backgroundColor"
    for scheme, colour in (("dark", "rgb(20, 23, 26)"), ("light", "rgb(255, 255, 255)")):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        assert opened.execute_script(background) == colour
        chart = opened.find_element("css selector", "img[src*=svg]").screenshot_as_png
        corner = Image.open(io.BytesIO(chart)).convert("RGB").getpixel((3, 12))
        assert f"rgb{corner}" == colour
