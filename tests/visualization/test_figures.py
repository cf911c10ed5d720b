"""Figures: what is drawn, from plain values; they are looked at too, see docs/decisions.md."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conocc import load_cohort
from conocc.data.preprocessing import Preprocessing
from conocc.detectors.residual_scale import ResidualScale
from conocc.experiments.artifacts import Embedding
from conocc.io.pictures import sheet
from conocc.visualization import charts, drawing, images
from conocc.visualization.charts import Scored
from conocc.visualization.drawing import COLOURS, DASHES, line_style
from made_runs import embedding, gallery

RNG = np.random.default_rng(0)
SCORED = [
    Scored(name, np.arange(30) >= 20, RNG.random(30) + (np.arange(30) >= 20), 1.2)
    for name in ("conocc", "$x_1 & <b>")
]


def texts(figure) -> str:
    """All that is written in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_roc_curves_name_axes_fits_areas_and_chance():
    said = texts(charts.curves(SCORED, "roc"))
    assert "sensitivity" in said
    assert "specificity" in said
    assert "chance (0.500)" in said
    for one in SCORED:
        assert f"{one.label} (" in said


def test_roc_curve_goes_through_the_points_of_the_scores():
    """Four images: minority 3 and 1, majority 2 and 0; steps at (0, ½), (½, ½), (½, 1)."""
    four = Scored("four", np.array([True, False, True, False]), np.array([3.0, 2, 1, 0]))
    curve, chance = charts.curves([four], "roc").axes[0].lines
    assert curve.get_xydata().tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert chance.get_xydata().tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(("kind", "share"), [("minority", "0.333"), ("majority", "0.667")])
def test_precision_recall_curves_know_their_class_and_its_chance(kind, share):
    said = texts(charts.curves(SCORED, kind))
    assert f"recall of the {kind}" in said
    assert f"chance ({share})" in said
    assert f"AUPR-{kind[:3]}" in said


@pytest.mark.parametrize(
    ("kind", "share", "known"),
    [
        # Of one to five flagged, highest first: 1/1, 1/2, 2/3, 2/4, 2/5 are of the minority.
        ("minority", 2 / 5, [[1, 2 / 5], [1, 1 / 2], [1, 2 / 3], [1 / 2, 1 / 2], [1 / 2, 1]]),
        # Lowest first: 1/1, 2/2, 2/3, 3/4, 3/5 are of the majority.
        ("majority", 3 / 5, [[1, 3 / 5], [1, 3 / 4], [2 / 3, 2 / 3], [2 / 3, 1], [1 / 3, 1]]),
    ],
)
def test_precision_recall_curves_go_through_the_points_of_the_scores(kind, share, known):
    """Five images: the minority's scores are 4 and 2, the majority's 3, 1 and 0."""
    five = Scored("five", np.array([True, False, True, False, False]), np.arange(4.0, -1, -1))
    curve, chance = charts.curves([five], kind).axes[0].lines
    np.testing.assert_allclose(curve.get_xydata(), [*known, [0, 1]])
    np.testing.assert_allclose(chance.get_xydata(), [[0, share], [1, share]])


def test_a_histogram_counts_every_image_and_marks_the_threshold():
    figure = charts.score_histogram(SCORED[0])
    assert {"majority (20)", "minority (10)", "threshold"} <= set(texts(figure).split("\n"))
    for stairs in figure.axes[0].patches:
        assert stairs.get_data().values.sum() == pytest.approx(1)


def test_the_bars_of_a_histogram_span_all_but_the_outermost_scores():
    scored = Scored("one", np.zeros(101, bool), np.arange(101.0))
    edges = charts.score_histogram(scored).axes[0].patches[0].get_data().edges
    assert (edges[0], edges[-1]) == (1, 99)


@pytest.mark.parametrize("threshold", [-3.0, 7.0])
def test_a_threshold_beyond_all_scores_lies_at_the_end_of_the_bars(threshold):
    figure = charts.score_histogram(SCORED[0]._replace(threshold=threshold))
    edges = figure.axes[0].patches[0].get_data().edges
    assert threshold in (edges[0], edges[-1])


def test_a_histogram_outlines_the_calibration_scores():
    """Clipped into the bars that the test scores have."""
    scored = SCORED[0]._replace(calibration=np.array([0.0, 0.5, 99.0]))
    figure = charts.score_histogram(scored)
    assert "calibration (3)" in texts(figure)
    outline = figure.axes[0].patches[-1].get_data().values
    assert outline.sum() == pytest.approx(1)
    assert outline[-1] == pytest.approx(1 / 3)


def test_a_histogram_of_equal_scores_is_drawn():
    figure = charts.score_histogram(Scored("all alike", np.arange(4) > 1, np.ones(4)))
    edges = figure.axes[0].patches[0].get_data().edges
    assert (edges[0], edges[-1]) == (1, 2)


def test_a_histogram_of_one_class_has_neither_the_other_nor_numbers_on_one_another():
    figure = charts.score_histogram(
        Scored("one", np.zeros(24, bool), np.linspace(577.4, 579.3, 24))
    )
    assert "minority" not in texts(figure)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    shown = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in shown]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_training_curves_have_a_panel_for_each_stage_and_a_line_for_each_term():
    stages = {"stage": ["pre", "pre", "svdd"], "epoch": [1, 2, 1]}
    history = pd.DataFrame({**stages, "L_AE": [900.0, 2.0, np.nan], "distance": [np.nan] * 2 + [3]})
    first, second = charts.training_curves(history, "dsvdd").axes
    assert [line.get_label() for line in first.lines] == ["L_AE"]
    assert [line.get_label() for line in second.lines] == ["distance"]
    assert first.get_yscale() == "log"
    assert second.get_yscale() == "linear"
    assert first.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("lowest", "expected"), [(20.0, [20, 50, 100, 200]), (0.02, [0.1, 1, 10, 100])]
)
def test_losses_of_any_range_have_a_few_ticks(lowest, expected):
    """In steps of 1, 2 and 5 where the range is small; a decade each where it is not."""
    history = pd.DataFrame({"stage": "a", "epoch": [1, 2], "L": [200.0, lowest]})
    axis = charts.training_curves(history, "cae").axes[0].yaxis
    shown = [t for t in axis.get_ticklocs() if lowest <= t <= 200]
    np.testing.assert_allclose(shown, expected)


@pytest.mark.parametrize(("epochs", "marker"), [(29, "o"), (30, "None")])
def test_few_epochs_are_points_on_their_line(epochs, marker):
    history = pd.DataFrame({"stage": "a", "epoch": range(epochs), "L": 1.0})
    assert charts.training_curves(history, "cae").axes[0].lines[0].get_marker() == marker


def test_a_method_without_epochs_has_no_training_curves():
    assert charts.training_curves(pd.DataFrame({"stage": [], "epoch": []})) is None


def grid():
    values = {"lr": (1e-3, 1e-4), "gamma": (0.1, 1, 10), "interval": (20, 40)}
    return [
        ({"lr": lr, "gamma": gamma, "interval": t}, 0.5 + 0.01 * i)
        for i, (lr, gamma, t) in enumerate(
            (lr, gamma, t)
            for lr in values["lr"]
            for gamma in values["gamma"]
            for t in values["interval"]
        )
    ]


def test_parameter_bars_show_every_cell_at_its_place_and_the_level_beside():
    names, levels = ["lr", "gamma", "interval"], [({"lr": 1e-3}, 0.6), ({"lr": 1e-4}, 0.55)]
    figure = charts.parameter_bars(grid(), names, levels=levels)
    low, high = figure.axes  # λ ascends
    assert low.get_title() == "λ = 0.0001"
    said = texts(figure)
    assert "CAE 0.550, λ = 0.0001" in said
    assert "CAE 0.600, λ = 0.001" in said
    assert [label.get_text() for label in high.get_xticklabels()] == ["γ = 0.1", "γ = 1", "γ = 10"]
    tops = [[bar.get_y() + bar.get_height() for bar in bars] for bars in high.containers]
    assert np.allclose(tops, [[0.50, 0.52, 0.54], [0.51, 0.53, 0.55]])  # T = 20, T = 40
    assert 0.6 in [line.get_ydata()[0] for line in high.lines]
    assert "T = 40" in said
    assert "best" not in said


def test_the_place_of_a_fit_that_failed_stays_empty():
    bars = charts.parameter_bars(grid()[1:], ["lr", "gamma", "interval"]).axes[1].containers[0]
    assert [np.isnan(bar.get_height()) for bar in bars] == [True, False, False]


@pytest.mark.parametrize("names", [["gamma"], ["gamma", "interval"]])
def test_one_or_two_parameters_make_one_panel(names):
    figure = charts.parameter_bars(grid()[:6], names, levels=[({}, 0.6)])
    assert len(figure.axes) == 1
    assert "CAE 0.600" in texts(figure)


def test_a_legend_of_long_names_is_cut_nowhere():
    names = [f"conocc gamma={gamma} interval=20 lr=0.0001" for gamma in (0.01, 0.1, 1, 10)]
    minority = np.arange(8) >= 4
    scored = [charts.Scored(name, minority, np.arange(8.0)) for name in names]
    figure = charts.curves(scored, "roc")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    drawn = legend.get_window_extent()
    assert 0 <= drawn.x0 < drawn.x1 <= figure.bbox.width
    assert drawn.y1 <= figure.axes[0].get_window_extent().y0


def test_values_that_are_words_or_lists_can_be_swept():
    cells = [({"channels": [4, 8]}, 0.6), ({"channels": [8]}, 0.7), ({"channels": None}, 0.6)]
    assert "channels = [4, 8]" in texts(charts.parameter_bars(cells, ["channels"]))


def test_values_ascend_as_numbers_and_words_come_after_them():
    swept = [({"kernel_gamma": value}, 0.6) for value in ("scale", 10.0, 5.0, "nearest", 100.0)]
    figure = charts.parameter_bars(swept, ["kernel_gamma"])
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert labels == [f"kernel_gamma = {v}" for v in (5, 10, 100, "nearest", "scale")]
    assert figure.axes[0].get_title() == ""


def test_feature_maps_stand_side_by_side_with_their_centers_and_compactness():
    own, mean = embedding(), embedding(center=False)
    figure = charts.feature_maps([("conocc", own), ("cae", mean)])
    first, second, bar = figure.axes
    assert first.get_title() == f"conocc\ncompactness {own.compactness():.3f}"
    assert first.get_legend_handles_labels()[1] == ["μ"]
    assert second.get_legend_handles_labels()[1] == ["mean (no μ)"]
    assert len(first.collections[0].get_offsets()) == 12
    assert bar.get_ylabel() == "distance to the center, rank"


def test_where_nothing_tells_the_compactness_none_is_shown():
    made = embedding()
    one_class = replace(made, minority=np.zeros_like(made.minority))
    assert charts.feature_maps([("cae", one_class)]).axes[0].get_title() == "cae"


def test_colour_is_the_rank_of_the_distance_to_the_center():
    made = embedding()
    points = charts.feature_maps([("conocc", made)]).axes[0].collections[0]
    distance = np.linalg.norm(made.train, axis=1)
    assert np.array_equal(np.argsort(points.get_array()), np.argsort(distance))


def test_a_map_shows_at_most_so_many_images(monkeypatch):
    monkeypatch.setattr(charts, "MAPPED", 5)
    points = charts.feature_maps([("conocc", embedding())]).axes[0].collections[0]
    assert len(points.get_offsets()) == 5


@pytest.mark.parametrize(
    ("train", "said"),
    [(np.ones((9, 3)), "all features are equal"), (np.ones((0, 3)), "no training images")],
)
def test_what_cannot_be_mapped_is_said(train, said):
    made = Embedding(**{**vars(embedding()), "train": train})
    figure = charts.feature_maps([("conocc", made)])
    assert said in texts(figure)
    assert len(figure.axes) == 1  # and no colour bar


def test_a_montage_shows_images_of_each_class_that_has_some():
    cohort = load_cohort("phantom-mri", Preprocessing(size=16), cache=False)
    majority, minority = (cohort.rows(minority=one) for one in (False, True))
    few = cohort.take(np.concatenate([majority[:30], minority[:2]]))
    for shown, widths in ((few, [8 * 18 - 2, 2 * 18 - 2]), (cohort.take(majority[:1]), [16])):
        figure = images.montage(shown)
        drawn = [image.get_array() for axes in figure.axes for image in axes.images]
        assert [pixels.shape[1] for pixels in drawn] == widths
    assert "minority:  (0 images)" in texts(figure)


def test_a_strip_holds_input_reconstruction_and_residual_side_by_side():
    assert images.case_strip(gallery(), 0).shape == (16, 3 * 16 + 2 * 2, 3)
    assert images.case_strip(gallery(channels=3), 0).shape == (16, 52, 3)
    assert images.case_strip(gallery(reconstructs=False), 0).shape == (16, 16, 3)


SCALE = ResidualScale(1.0, 3.0, images=9, source="calibration")


def test_a_residual_is_laid_over_its_image_on_a_fixed_scale():
    """Nothing up to the faint size, orange or blue from there on, no more beyond the full one."""
    given, residual = np.zeros((1, 1, 6)), np.array([[[0.0, 1.0, -1.0, 3.0, -3.0, 30.0]]])
    given[0, 0, 0] = 1
    white, faint, dark_faint, bright, dark, beyond = images.overlay(given, residual, SCALE)[0]
    assert white.tolist() == [255] * 3
    assert faint.tolist() == dark_faint.tolist() == [0] * 3
    # 0.85 of #D55E00 and of #56B4E9 over black
    assert bright.tolist() == beyond.tolist() == [181, 80, 0]
    assert dark.tolist() == [73, 153, 198]


def test_halfway_between_faint_and_full_the_colour_is_half_as_opaque():
    half = images.overlay(np.zeros((1, 1, 1)), np.full((1, 1, 1), 2.0), SCALE)[0, 0]
    assert np.allclose(half, [0.425 * 213, 0.425 * 94, 0], atol=1.5)


def test_channels_are_averaged_under_and_in_the_overlay():
    given = np.array([[[0.0, 3.0]], [[0.0, 0.0]], [[0.0, 0.0]]])  # mean 0 and 1: black and white
    residual = np.array([[[9.0, 9.0]], [[0.0, -9.0]], [[0.0, 0.0]]])  # mean 3 and 0
    assert images.overlay(given, residual, SCALE)[0].tolist() == [[181, 80, 0], [255] * 3]


def test_a_gallery_is_on_the_scale_that_was_kept_with_it():
    """On a scale that all its residuals fall short of it is calm: grey."""
    wide = ResidualScale(100.0, 200.0, images=9, source="calibration")
    made = replace(gallery(), residual_scale=np.array(json.dumps(wide.as_json())))
    strip = images.case_strip(made, 0)[:, 36:]
    assert np.ptp(strip, axis=2).max() == 0
    own = images.case_strip(gallery(), 0)[:, 36:]
    assert np.ptp(own, axis=2).max() > 100


def shades(bar) -> tuple[tuple[float, float], int]:
    """From where to where a colour bar is coloured, and at how many ends it is pointed."""
    (mesh,) = (one for one in bar.collections if one.get_array() is not None)
    return mesh.get_clim(), len([one for one in bar.patches if len(one.get_path().vertices) < 6])


def test_an_explanation_has_a_colour_bar_in_units():
    given = np.random.default_rng(0).normal(size=(1, 16, 16))
    figure = images.explanation(
        given, 0 * given, given, SCALE, title="1: a  score 3", unit="a unit"
    )
    said = texts(figure)
    assert {"1: a  score 3", "image", "reconstruction", "image − reconstruction"} <= set(
        said.split("\n")
    )
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "a unit"
    assert bar.get_yticks().tolist() == [-3, -1, 1, 3]
    assert shades(bar) == ((-3, 3), 2)
    assert [label.get_text() for label in bar.get_yticklabels()] == [
        "−3 darker",
        "−1",
        "1",
        "3 brighter",
    ]
    drawn = figure.axes[2].images[0].get_array()
    assert np.array_equal(drawn, images.overlay(given, given, SCALE))
    # The reconstruction is on the grey scale of its image: zeros are no darker than that.
    again = figure.axes[1].images[0].get_array()
    assert np.unique(again).tolist() == [round(255 * -given.min() / np.ptp(given))]


def test_a_correlation_has_no_sign_and_a_colour_bar_from_zero():
    given = np.random.default_rng(0).random((1, 16, 16))
    scale = replace(SCALE, of="correlation", faint=0.5, full=1.5)
    figure = images.explanation(given, 0 * given, given, scale, title="a", unit="a unit")
    assert "1 − correlation" in texts(figure)
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "0 where the patterns are alike"
    assert (bar.get_yticks().tolist(), bar.get_ylim()) == ([0.5, 1.5], (0, 1.5))
    assert shades(bar) == ((0, 1.5), 1)


def test_a_sheet_lays_images_out_in_rows():
    assert sheet(gallery().montage, columns=3).shape == (16 * 2 + 2, 16 * 3 + 2 * 2, 3)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PDF"])
def test_figures_are_written_in_the_format_of_their_ending(ending, tmp_path):
    path = tmp_path / "new" / f"roc.{ending}"
    drawing.save_figure(charts.curves(SCORED, "roc"), path)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending.lower()]
    assert path.read_bytes().startswith(start)
    if ending == "png":
        with Image.open(path) as image:
            assert min(image.size) > 400


def test_an_unknown_ending_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"roc\.docx.*must be one of.*svg"):
        drawing.save_figure(charts.curves(SCORED, "roc"), tmp_path / "roc.docx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", drawing.KINDS)
def test_a_figure_is_replaced_by_a_figure_and_no_other_picture_is(ending, tmp_path):
    """Of every kind that is written; JPEG, TIFF and WebP refused what they had written."""
    own, other = tmp_path / f"own.{ending}", tmp_path / f"other.{ending}"
    drawing.save_figure(drawing.blank(), own)
    drawing.refuse_picture(own)
    drawing.blank().savefig(other)  # as matplotlib draws for anybody
    with pytest.raises(FileExistsError, match="another file than this command writes"):
        drawing.refuse_picture(other)


def test_the_same_figure_is_the_same_svg_and_asks_for_nothing():
    first, second = (drawing.svg(charts.curves(SCORED, "roc")) for _ in range(2))
    assert first == second
    links = re.findall(rb'(?:href|src)="([^"]*)"', first)
    assert all(link.startswith((b"#", b"data:")) for link in links)


def test_the_callers_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    charts.curves(SCORED, "roc")
    assert dict(matplotlib.rcParams) == before


def test_lines_differ_for_as_many_fits_as_there_can_be():
    looks = {tuple(line_style(i).values()) for i in range(28)}
    assert len(looks) == 28 == len(COLOURS) * len(DASHES)


def test_drawing_takes_no_pyplot():
    import subprocess
    import sys

    program = (
        "import sys, conocc.visualization.report\n"
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
