"""The review page: its pixels to the last bit, its folder, and a reader at work in a browser."""

import base64
import csv
import json
import re
import shutil
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from conftest import quick
from conocc.cli import SOME_FAILED
from conocc.data.preprocessing import Preprocessing
from conocc.experiments.inference import score_files
from conocc.visualization.review import Batch, placed, shown_window, stored
from fitted_runs import pixels
from made_dicom import dicom, element
from made_nifti import write_volume
from test_cli import call

NASTY = "a'\"<script>alert(1)<img src=x> %41#?&amp; ü 图.png"
DEEP = "deep.png"
# As WebDriver sends them.
DOWN, UP, LEFT, RIGHT, ESCAPE = "\ue015", "\ue013", "\ue012", "\ue014", "\ue00c"


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Images of 8 and 16 bits, of colour, a volume, a nasty name, and one that is broken."""
    root = tmp_path_factory.mktemp("batch") / "new"
    root.mkdir()
    Image.fromarray(pixels(100).astype(np.uint8)).save(root / NASTY)
    ramp = 1000 + pixels(101, 4000).astype(np.uint16)
    Image.fromarray(ramp).save(root / DEEP)
    Image.fromarray(pixels(102, shape=(20, 24, 3)).astype(np.uint8)).save(root / "colour.png")
    for i in range(3):
        Image.fromarray(pixels(110 + i).astype(np.uint8)).save(root / f"plain{i}.png")
    write_volume(root / "volume.nii")
    (root / "broken.png").write_bytes(b"no")
    return root


@pytest.fixture(scope="module")
def made(run, batch, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "review"
    return Batch(run, [batch], out).made()


def listed(page) -> list[dict]:
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])["cases"]


def picture(page, row) -> dict:
    text = (page.parent / "images" / f"{row['file']}.js").read_text()
    return json.loads(re.fullmatch(r"picture\((.*)\);\n", text, re.DOTALL)[1])


def unpacked(drawn: dict) -> np.ndarray:
    """What the page's script does, in NumPy; -> (c, h, w) values."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(drawn["data"])), np.uint8)
    shape = drawn["channels"], drawn["h"], drawn["w"]
    planes = data.reshape(drawn["bytes"], *shape).astype(np.uint32)
    changes = sum(plane << (8 * i) for i, plane in enumerate(planes))
    levels = changes.cumsum(axis=2) % 256 ** drawn["bytes"]
    return drawn["low"] + drawn["step"] * levels


# --- what is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        pixels(0).astype(np.uint8),
        pixels(1, 65536).astype(np.uint16),
        (pixels(2, 5000) - 1024).astype(np.int16),
        pixels(3, 200).astype(np.int32) + 100_000,
        pixels(4, shape=(20, 24, 3)).astype(np.uint8),
        pixels(5, 65536, shape=(20, 24, 3)).astype(np.uint16),
    ],
)
def test_pixels_of_whole_numbers_come_back_to_the_last_bit(image):
    back = unpacked(stored(image))
    np.testing.assert_array_equal(back, np.moveaxis(np.atleast_3d(image), -1, 0))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_fractions_and_wide_ranges_come_back_to_a_65536th_of_their_range(scale):
    image = np.random.default_rng(0).normal(size=(20, 24)) * scale
    back = unpacked(stored(image.astype(np.float32)))[0]
    assert np.abs(back - image).max() <= np.ptp(image) / 65535
    wide = pixels(0, 2**31 - 1).astype(np.int32)
    assert np.abs(unpacked(stored(wide))[0] - wide).max() <= 2**31 / 65535


def test_eight_bits_are_shown_whole_and_others_but_for_the_outermost_pixels():
    ramp = np.arange(201 * 201).reshape(201, 201)
    assert shown_window((ramp % 200).astype(np.uint8)) == [0, 255]
    assert shown_window(ramp.astype(np.uint16)) == [0.005 * 40400, 0.995 * 40400]
    few = np.zeros((201, 201), np.uint16)
    few[0, 0] = 7  # of which the percentiles tell nothing
    assert shown_window(few) == [0, 7]


@pytest.mark.parametrize("shape", [(100, 200), (201, 77), (64, 64)])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_the_heat_map_lies_where_the_detector_looked(shape, fit):
    left, top, width, height = placed(*shape, Preprocessing(size=32, fit=fit))
    assert left + width / 2 == pytest.approx(0.5, abs=0.02)
    assert top + height / 2 == pytest.approx(0.5, abs=0.02)
    if fit != "stretch":  # a square of the image's own pixels
        assert width * shape[1] == pytest.approx(height * shape[0], rel=0.03)
        side = max(shape) if fit == "pad" else min(shape)
        assert width * shape[1] == pytest.approx(side, rel=0.03)


def test_the_class_that_a_table_says_is_listed(run, batch, tmp_path):
    """Of a folder none is; the page sorts and searches by it."""
    rows = [f"{batch / name},{label}" for name, label in ((DEEP, "b"), ("plain0.png", "a<b>"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,Label", *rows]))
    cases = listed(Batch(run, [tmp_path / "list.csv"], tmp_path / "out").made().page)
    assert {case["path"].split("/")[-1]: case["label"] for case in cases} == {
        DEEP: "b",
        "plain0.png": "a<b>",
    }
    cases = listed(Batch(run, [batch], tmp_path / "other").made().page)
    assert {case["label"] for case in cases} == {""}


def test_the_worklist_has_the_scores_of_score_and_the_highest_first(run, batch, made, tmp_path):
    done = score_files(run, [batch], tmp_path / "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text("utf-8").splitlines()))
    assert made.count == done.count == len(rows)
    scored = {row["path"]: row for row in rows}
    cases = listed(made.page)
    assert [case["score"] for case in cases] == sorted(
        (case["score"] for case in cases), reverse=True
    )
    for case in cases:
        row = scored[case["path"]]
        assert case["score"] == float(row["anomaly_score"])
        assert case["p"] == float(row["p_value"])
        assert case["flagged"] == (row["predicted"] == "minority")
        assert picture(made.page, case)["id"] == case["id"]
    assert made.words[1:] == [*done.words, *done.remarks]
    flagged = sum(case["flagged"] for case in cases)
    assert made.words[0].startswith(f"{len(cases)} images · {flagged} flagged at ≤ 20 % false")
    assert re.search(r"alarms, \d+ calibration images$", made.words[0])  # of patients not known


def test_the_pixels_are_those_of_the_file(batch, made):
    (row,) = (case for case in listed(made.page) if case["path"].endswith(DEEP))
    with Image.open(batch / DEEP) as image:
        np.testing.assert_array_equal(unpacked(picture(made.page, row))[0], np.array(image))


def test_files_that_cannot_be_read_are_listed_and_the_exit_code_says_so(run, batch, tmp_path):
    code, said = call("review", run, batch, "--out", tmp_path / "out", "--quiet")
    assert code == SOME_FAILED
    assert "1 could not be read" in said
    (row,) = csv.DictReader((tmp_path / "out" / "errors.csv").read_text().splitlines())
    assert row["path"].endswith("broken.png")
    assert "Cannot read" in (tmp_path / "out" / "index.html").read_text()


def test_made_anew_nothing_of_before_is_left_and_no_verdict_is_lost(run, batch, tmp_path):
    out = tmp_path / "out"
    before = Batch(run, [batch], out).made().page.read_text(encoding="utf-8")
    Batch(run, [batch / DEEP], out).made()
    assert sorted(path.name for path in (out / "images").iterdir()) == [
        "00001.js",
        "00001.png",
        "conocc.json",
    ]
    assert not (out / "errors.csv").exists()
    Batch(run, [batch], out).made()
    assert (out / "index.html").read_text(encoding="utf-8") == before


def test_looked_at_again_only_what_is_new_is_drawn_and_what_is_gone_goes(run, batch, tmp_path):
    new = tmp_path / "new"
    shutil.copytree(batch, new)
    again = Batch(run, [new], tmp_path / "out")
    again.made()
    assert not again.update()
    before = again.cases
    for name in (DEEP, "broken.png"):
        (new / name).unlink()
    shutil.copy(new / "plain0.png", new / "more.png")
    assert again.update()
    assert again.errors == []
    gone = {case.number for case in before} - {case.number for case in again.cases}
    assert [case.path for case in before if case.number in gone] == [str(new / DEEP)]
    assert [case.path for case in again.cases[len(before) - 1 :]] == [str(new / "more.png")]
    again.write()
    pictures = {path.stem for path in (tmp_path / "out" / "images").glob("*.js")}
    assert pictures == {f"{case.number:05d}" for case in again.cases}


def test_without_a_heat_map_images_are_listed_all_the_same(images, tmp_path):
    """One whose score is no finite number is among the errors."""
    model = tmp_path / "model"
    detector = quick("gabor_mahalanobis", normalize="none").fit(images)
    detector.residual_scale_ = None
    detector.save(model, preprocessing=Preprocessing(size=16).to_dict())
    for name, pixel in (("far", np.geomspace(1e28, 1e29, 256)), ("near", images[0])):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", pixel.reshape(16, 16).astype(np.float32))
    done = Batch(model, [tmp_path / "far", tmp_path / "near"], tmp_path / "out").made()
    (row,) = listed(done.page)
    assert row["path"].endswith("near/x.npy")
    assert "heat" not in picture(done.page, row)
    ((path, reason),) = done.errors
    assert path.endswith("far/x.npy")
    assert "has no score: its values are too far from those learned." in reason


def test_a_page_among_the_images_is_not_scored_with_them(run, batch, tmp_path):
    Image.open(batch / DEEP).save(tmp_path / DEEP)
    for _ in range(2):
        done = Batch(run, [tmp_path], tmp_path / "review").made()
        assert (done.count, done.errors) == (1, [])


@pytest.mark.parametrize("name", ["index.html", "errors.csv", "images/00001.js"])
def test_what_review_did_not_write_it_neither_replaces_nor_deletes(run, batch, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="which 'review' would replace but did not write"):
        Batch(run, [batch], tmp_path).made()
    assert (tmp_path / name).read_text() == "mine"


def test_where_nothing_has_a_score_nothing_is_written(run, batch, tmp_path):
    with pytest.raises(ValueError, match=r"None of 1 image has a score[^@]*broken.png"):
        Batch(run, [batch / "broken.png"], tmp_path / "out").made()
    assert not (tmp_path / "out").exists()


def test_what_dicom_says_of_a_patient_is_in_no_name(run, tmp_path, monkeypatch):
    monkeypatch.setenv("CONOCC_CONFIG", str(tmp_path / "config"))
    about = element(0x00100010, "PN", "Smith^John") + element(0x00100020, "LO", "ID-77")
    (tmp_path / "smith_john.dcm").write_bytes(dicom(pixels(0, 4096).astype(np.uint16), about))
    page = Batch(run, [tmp_path / "smith_john.dcm"], tmp_path / "out").made().page
    (row,) = listed(page)
    assert re.fullmatch(r"p[0-9a-f]{16}", row["patient"])
    for path in page.parent.rglob("*.*"):
        assert "smith" not in path.name.lower()
        for word in (b"mith", b"ID-77"):
            assert word not in path.read_bytes()


# --- in a browser --------------------------------------------------------------------------------

CANVAS = """
    const canvas = document.getElementById("canvas");
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return [canvas.height, canvas.width, ...data];
"""
FORGET = """
    localStorage.clear();
    database.then((kept) => {
        const all = kept.transaction("verdicts", "readwrite");
        all.objectStore("verdicts").clear();
        all.oncomplete = () => arguments[0]();
    });
"""


class Reader:
    """A person at the page."""

    def __init__(self, driver, page, downloads):
        self.driver, self.page, self.downloads = driver, page, downloads

    def open(self, width=1400, height=900, scheme="light"):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get("about:blank")
        self.driver.get_log("browser"), self.driver.get_log("performance")
        self.driver.get(self.page.as_uri())
        self.wait(lambda: self.js("return shown && shown.image === current.images[place]"))
        self.driver.execute_async_script("restored.then(() => arguments[0]())")

    def js(self, script, *args):
        return self.driver.execute_script(script, *args)

    def wait(self, done):
        end = time.monotonic() + 5
        while not done():
            assert time.monotonic() < end, self.driver.get_log("browser")
            time.sleep(0.02)

    def settle(self):
        drawn = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
        self.wait(lambda: self.js("return shown.image === current.images[place]"))
        self.driver.execute_async_script(drawn)

    def keys(self, *keys):
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)
        self.settle()

    def text(self, selector):
        return self.driver.find_element("css selector", selector).text

    def names(self):
        return self.js("return visible.map((entry) => entry.name)")

    def go_to(self, name):
        self.js("open(entries.find((entry) => entry.name === arguments[0]))", name)
        self.settle()

    def saved(self, button) -> str:
        self.js("document.getElementById('export').open = true")
        self.driver.find_element("id", button).click()

        def whole():  # and not what the browser is still writing
            return [p for p in self.downloads.iterdir() if p.suffix in (".csv", ".json")]

        self.wait(whole)
        (path,) = whole()
        text = path.read_text(encoding="utf-8")
        path.unlink()
        return text

    def canvas(self) -> np.ndarray:
        h, w, *values = self.js(CANVAS)
        return np.array(values, np.uint8).reshape(h, w, 4)


@pytest.fixture
def reader(browser, made, tmp_path):
    (tmp_path / "downloads").mkdir()
    to = {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", to)
    browser.get(made.page.as_uri())
    browser.execute_async_script(FORGET)
    reader = Reader(browser, made.page, tmp_path / "downloads")
    reader.open()
    return reader


def test_it_opens_without_errors_and_asks_no_network(reader):
    messages = reader.driver.get_log("performance")
    sent = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in messages
        if json.loads(entry["message"])["message"]["method"].endswith("BeSent")
    ]
    assert [url for url in sent if url.endswith("index.html")]
    assert [url for url in sent if not url.startswith(("file:", "data:"))] == []
    assert reader.driver.get_log("browser") == []
    assert reader.js("return document.querySelectorAll('#cases img').length") == 7
    unseen = "return [...document.images].filter((i) => i.src && !i.naturalWidth).length"
    assert reader.js(unseen) == 0


def test_names_are_text_whatever_is_in_them(reader):
    reader.go_to(NASTY)
    assert reader.text("#name") == NASTY
    reader.keys("n", "<b>no</b>", ESCAPE)
    assert NASTY in reader.saved("verdicts").replace('""', '"')


def test_a_reader_works_by_keys_alone_and_finds_it_all_again(reader):
    order = reader.names()
    reader.keys(DOWN, DOWN, UP)
    assert reader.text("#name") == order[1]
    reader.keys("1", "1")  # twice is no other verdict
    assert reader.text(".verdict [aria-pressed=true]").startswith("1 ")
    assert "1 of 7 images and volumes reviewed" in reader.text("#progress")
    reader.keys("n", "1 is no verdict here", ESCAPE, DOWN, "3")
    reader.open()
    assert "2 of 7" in reader.text("#progress")
    reader.keys(DOWN)
    assert reader.driver.find_element("id", "note").get_attribute("value") == "1 is no verdict here"
    assert reader.text("#status") == "" or "2 of 7" in reader.text("#status")
    reader.keys("0")
    assert "1 of 7" in reader.text("#progress")
    hidden = "return document.getElementById('heat').hidden"
    assert reader.js(hidden) is False
    reader.keys(" ")
    assert reader.js(hidden) is True
    reader.keys("r")
    assert reader.js("return document.getElementById('again').hidden") is False
    reader.keys("/", "plain1")
    assert reader.names() == ["plain1.png"]


def test_search_filter_and_order_choose_from_the_list(reader):
    flagged = reader.js("return entries.filter((entry) => entry.flagged).map((e) => e.name)")
    by_score = reader.names()
    for control, value, expected in (
        ("filter", "flagged", [name for name in by_score if name in flagged]),
        ("filter", "all", by_score),
        ("sort", "calm", by_score[::-1]),
    ):
        select = f"const s = document.getElementById('{control}'); s.value = '{value}';"
        reader.js(f"{select} s.dispatchEvent(new Event('input'))")
        assert reader.names() == expected


def test_sixteen_bits_are_windowed_without_loss(reader, batch):
    reader.go_to(DEEP)
    with Image.open(batch / DEEP) as image:
        values = np.array(image).astype(float)
    low, high = float(values[3, 3]) - 4, float(values[3, 3]) + 4  # 8 of 4000 grey levels
    reader.js(
        "setWindow((arguments[0] + arguments[1]) / 2, arguments[1] - arguments[0])", low, high
    )
    reader.settle()
    expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    assert 0 < expected[3, 3] < 255
    assert np.abs(reader.canvas()[..., 0] - expected).max() <= 1


def test_dragging_makes_the_window_narrower_and_lower(reader):
    from selenium.webdriver import ActionChains

    reader.go_to(DEEP)
    view = "return [view.low, view.high]"
    low, high = reader.js(view)
    frame = reader.driver.find_element("id", "frame")
    ActionChains(reader.driver, 50).click_and_hold(frame).move_by_offset(-120, 0).perform()
    ActionChains(reader.driver, 50).move_by_offset(0, -30).release().perform()
    reader.settle()
    dragged_low, dragged_high = reader.js(view)
    assert dragged_high - dragged_low == pytest.approx((high - low) / 2, rel=0.05)
    assert (dragged_high + dragged_low) / 2 < (high + low) / 2
    reader.keys("w")
    assert reader.js(view) == [low, high]


def test_colour_stays_colour(reader, batch):
    reader.go_to("colour.png")
    with Image.open(batch / "colour.png") as image:
        np.testing.assert_array_equal(reader.canvas()[..., :3], np.array(image))


def test_a_volume_is_one_entry_whose_slices_the_wheel_turns(reader):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    reader.go_to("volume.nii")
    place, n = reader.js("return [place, current.images.length]")
    assert n > 2
    by = 1 if place < n - 1 else -1
    before = reader.canvas()
    stage = ScrollOrigin.from_element(reader.driver.find_element("id", "stage"))
    ActionChains(reader.driver).scroll_from_origin(stage, 0, 100 * by).perform()
    reader.wait(lambda: reader.js("return place") == place + by)
    reader.settle()
    assert (reader.canvas() != before).any()
    reader.keys(LEFT if by > 0 else RIGHT)
    np.testing.assert_array_equal(reader.canvas(), before)
    reader.keys("2")
    exported = json.loads(reader.saved("json"))["verdicts"]
    assert [row["image"].rsplit("/")[-1] for row in exported] == ["volume.nii"]


def test_verdicts_outlast_an_empty_storage_and_the_newest_counts(reader):
    """As Chromium gives a page on a disk at times; what it kept before then is in a database."""
    reader.open()
    reader.keys("4", DOWN, "4")
    one, two = (reader.names()[i] for i in (0, 1))
    reader.js("localStorage.clear(); read()")
    assert reader.js("return said().length") == 0
    reader.open()
    assert reader.js("return said().map((one) => one.verdict)") == ["second look"] * 2
    reader.go_to(one)
    reader.keys("0")  # which takes it back
    reader.open()
    assert reader.js("return said().map((one) => one.image.split('/').at(-1))") == [two]


@pytest.mark.parametrize("width", [390, 1400])
def test_by_mouse_at_both_widths_and_in_both_colours(reader, width):
    colours = set()
    for scheme in ("dark", "light"):
        reader.open(width, 844, scheme)
        assert reader.js("return document.documentElement.scrollWidth") <= width
        reader.driver.find_element("css selector", "#cases li:nth-child(2)").click()
        reader.settle()
        reader.driver.find_element("css selector", '.verdict [data-key="4"]').click()
        reader.js("for (const fold of document.querySelectorAll('details')) fold.open = true")
        for box in ("document.documentElement", "document.querySelector('header')"):
            assert reader.js(f"return {box}.scrollWidth") <= width
        box = reader.js("const b = canvas.getBoundingClientRect(); return [b.width, b.height]")
        assert min(box) > 100
        # A second click takes it back.
        pressed = reader.js(
            "return document.querySelectorAll('.verdict [aria-pressed=true]').length"
        )
        assert pressed == (scheme == "dark")
        colours.add(reader.js("return getComputedStyle(document.body).backgroundColor"))
        if width == 390:
            reader.driver.find_element("id", "back").click()
            assert reader.driver.find_element("id", "cases").is_displayed()
    assert colours == {"rgb(20, 23, 26)", "rgb(255, 255, 255)"}
    assert reader.driver.get_log("browser") == []


def test_a_screen_reader_has_roles_names_and_a_voice(reader):
    def told():
        nodes = reader.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node.get("ignored") and "role" in node
        ]

    def images():  # which a browser in want of time names later than the list
        return [name for role, name in told() if role == "option" and re.search(r" p [01]", name)]

    reader.wait(lambda: len(images()) == 7)
    named = told()
    assert [n for role, n in named if role in ("button", "slider", "combobox") and not n] == []
    assert ("listbox", "Images") in named
    reader.keys(DOWN)
    said = reader.js("return document.getElementById('status').textContent")
    assert said.startswith("2 of 7: ")
    assert "no verdict" in said


def test_what_is_exported_evaluate_and_calibrate_read(reader, run, tmp_path):
    wanted = {"plain0.png": "minority", "plain1.png": "majority", "volume.nii": "majority"}
    for name, verdict in wanted.items():
        reader.go_to(name)
        key = reader.js(
            "return choices(current).findIndex(([, v]) => v === arguments[0]) + 1", verdict
        )
        reader.keys(str(key))
    slices = reader.js("return current.images.length")
    reader.go_to(NASTY)
    reader.keys("3")
    labels = tmp_path / "labels.csv"
    labels.write_text(reader.saved("labels"), encoding="utf-8")
    rows = list(csv.DictReader(labels.read_text(encoding="utf-8").splitlines()))
    assert {row["path"].rsplit("/")[-1]: row["label"] for row in rows} == wanted
    named = ("--majority", "majority", "--quiet")
    code, said = call("evaluate", run, labels, *named[:2], "--json", "--out", tmp_path / "copy")
    assert code == 0, said
    counts = json.loads(said[said.index("{") :])["counts"]
    assert (counts["majority"], counts["minority"]) == (1 + slices, 1)
    code, said = call("calibrate", tmp_path / "copy", labels, *named)
    assert code == 0, said
    assert f"Calibrated on {1 + slices} majority images" in said


def test_verdicts_read_from_json_are_those_that_were_exported(reader, tmp_path):
    reader.keys("1", DOWN, "4", "n", 'a "note", of two', ESCAPE)
    exported = reader.saved("json")
    (tmp_path / "kept.json").write_text(exported)
    reader.driver.execute_async_script(FORGET)
    reader.open()
    assert "0 of 7" in reader.text("#progress")
    reader.driver.find_element("id", "import").send_keys(str(tmp_path / "kept.json"))
    reader.wait(lambda: "2 of 7" in reader.text("#progress"))
    reader.keys(DOWN)
    assert 'a "note", of two' in reader.saved("json").replace('\\"', '"')


def test_a_reconstruction_is_offered_where_there_is_one(reader):
    hidden = "return document.getElementById('rebuilt').parentElement.hidden"
    assert not reader.js(hidden)
    assert reader.js(f"shown.again = null; draw(); {hidden}")
