"""Promises of the page at `/`, in a real Chromium with the network cut, against the real service.

Each test leaves a screenshot in its folder. What axe-core checks needs its script, which a test dependency bundles.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources, util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from test_align_route import MANIFEST, oblong_model, png, portrait

from arcface_api.api.app import DirectApp
from arcface_api.api.page import page_routes
from arcface_api.face.head_pose import head_pose, mean_shape
from arcface_api.face.quality import QualityWarning
from browsers import chromium, requested_urls
from conftest import FaceCrop
from pictures import decoded_by_opencv, picture_bytes
from serving import Service
from tiny_models import linear_model, rotation

pytestmark = pytest.mark.once  # a browser runs it

STATIC = Path(__file__).parents[2] / "src" / "arcface_api" / "api" / "page" / "static"
ONE, OTHER = STATIC / "example-1.jpg", STATIC / "example-2.jpg"
SHOWN_IN_THE_PAGE: dict[str, bool | str] = {"normalize": True, "align": "auto"}
Run = Callable[..., Service]
Open = Callable[..., "Shown"]

MINUS = "\N{MINUS SIGN}"
PIXELS = """
const image = arguments[0], canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
canvas.getContext("2d").drawImage(image, 0, 0);
return [canvas.height, canvas.width, [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]];
"""


class Shown:
    """The page as a person meets it."""

    def __init__(self, browser: webdriver.Chrome, url: str, folder: Path) -> None:
        self.browser, self.url, self.folder = browser, url, folder
        browser.get(url)
        self.until(lambda: self.all("[data-state=ready], [data-state=unreachable], [data-state=locked]"))

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def attribute(self, selector: str, name: str) -> str:
        return (self.one(selector).get_attribute(name) or "").replace("\N{NO-BREAK SPACE}", " ")

    def heard(self) -> str:
        """What screen readers have read out last."""
        return self.attribute("#announcement", "textContent")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, found: Callable[[], Any]) -> Any:
        stale = (StaleElementReferenceException,)  # the page replaces what it has just shown
        return WebDriverWait(self.browser, 100, ignored_exceptions=stale).until(lambda _: found())

    def press_when_there(self, selector: str) -> None:
        def press() -> bool:
            self.one(selector).click()
            return True

        self.until(press)

    def choose(self, place: int, *files: Path, until: str = "done") -> WebElement:
        """Choose files in a slot; returns it when it has this state."""
        self.one(f"[data-slot='{place}'] input[type=file]").send_keys("\n".join(map(str, files)))
        return self.slot(place, until)

    def slot(self, place: int, state: str) -> WebElement:
        slot: WebElement = self.until(lambda: self.all(f"[data-slot='{place}'][data-state={state}]"))[0]
        return slot

    def compare(self, one: Path = ONE, other: Path = OTHER) -> float:
        """Choose two pictures; returns the similarity as the page shows it."""
        self.choose(0, one)
        self.choose(1, other)
        self.until(lambda: self.one("#similarity").is_displayed())
        return float(self.text(".figure").replace(MINUS, "-").replace(",", "."))

    def shoot(self, name: str = "page") -> None:
        size = self.run("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        options = {"captureBeyondViewport": True, "clip": clip}
        picture = self.browser.execute_cdp_cmd("Page.captureScreenshot", options)
        (self.folder / f"{name}.png").write_bytes(base64.b64decode(picture["data"]))

    def focused(self) -> WebElement:
        return self.browser.switch_to.active_element

    def press(self, *keys: str) -> None:
        self.focused().send_keys(*keys)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for all tests, with a camera that shows a test picture."""
    with chromium(tmp_path_factory.mktemp("browser"), ["--use-fake-device-for-media-stream"]) as browser:
        yield browser


@pytest.fixture
def browser(window: webdriver.Chrome) -> webdriver.Chrome:
    """The browser as a person has it who has changed no setting: light, English, wide, connected."""
    speak(window, "en-GB")
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme("light")]})
    window.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    window.execute_cdp_cmd("Browser.resetPermissions", {})
    connect(window)
    window.get_log("browser")  # type: ignore[no-untyped-call]  # selenium
    return window


def scheme(name: str) -> dict[str, str]:
    return {"name": "prefers-color-scheme", "value": name}


def speak(browser: webdriver.Chrome, language: str) -> None:
    agent = browser.execute_script("return navigator.userAgent")
    browser.execute_cdp_cmd("Emulation.setUserAgentOverride", {"userAgent": agent, "acceptLanguage": language})


def connect(browser: webdriver.Chrome, *, is_connected: bool = True) -> None:
    browser.execute_cdp_cmd("Network.enable", {})
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": not is_connected, **conditions})


def permit_camera(browser: webdriver.Chrome, setting: str) -> None:
    permission = {"permission": {"name": "camera"}, "setting": setting}
    browser.execute_cdp_cmd("Browser.setPermission", permission)


def narrow(browser: webdriver.Chrome, width: int = 400) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.fixture
def open_pack(run_named: Callable[[str], Service]) -> Service:
    """The pack that has thresholds, attributes, and an input of 150x150 with a template of its own."""
    return run_named("open")


@pytest.fixture
def elsewhere(run_service: Run, tiny_recogniser: Path) -> str:
    """The page under a name for which browsers have no secure context."""
    service = run_service(tiny_recogniser, allowed_hosts={"elsewhere.test"})
    return f"http://elsewhere.test:{service.base_url.port}/"


@pytest.fixture
def open_page(browser: webdriver.Chrome, tmp_path: Path) -> Callable[..., Shown]:
    """Open the page of a service."""
    return lambda service, path="/": Shown(browser, f"{service.base_url}{path}", tmp_path)


def embedded(service: Service, picture: Path, **query: Any) -> dict[str, Any]:
    answer = service.post("/embed", files={"file": picture.read_bytes()}, params=SHOWN_IN_THE_PAGE | query)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


# ── one picture ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_crop_shown_is_to_the_pixel_what_the_recogniser_got(
    open_page: Open, service: Service, face_crops: list[FaceCrop], tmp_path: Path
) -> None:
    page = open_page(service)
    for number, crop in enumerate(face_crops[:4]):
        path = tmp_path / f"crop-{number}"
        path.write_bytes(crop.content)
        page.choose(0, path)
        height, width, values = page.run(PIXELS, page.one(".crop"))
        shown = np.array(values, np.uint8).reshape(height, width, 4)[..., 2::-1]
        expected = decoded_by_opencv(base64.b64decode(embedded(service, path, include_crop=True)["crop"]))
        assert shown.shape == (112, 112, 3)
        assert np.array_equal(shown, expected), crop.name
        page.one("[data-slot='0'] .quiet").click()
        page.slot(0, "empty")


def test_landmarks_lie_on_the_picture_where_the_service_found_them(open_page: Open, open_pack: Service) -> None:
    page = open_page(open_pack)
    page.choose(0, OTHER)
    dots = page.until(lambda: page.all(".landmarks .dot"))
    boxes = page.run(
        "return arguments[0].map((dot) => dot.getBoundingClientRect()).map((b) => [b.x + b.width / 2,"
        " b.y + b.height / 2])",
        dots,
    )
    image = page.run(
        "const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width, b.height,"
        " arguments[0].naturalWidth, arguments[0].naturalHeight]",
        page.one(".picture img"),
    )
    x, y, width, height, natural_width, natural_height = image
    scale = min(width / natural_width, height / natural_height)
    corner = np.array([x + (width - scale * natural_width) / 2, y + (height - scale * natural_height) / 2])
    expected = (np.array(embedded(open_pack, OTHER, include_landmarks=True)["landmarks"]) + 0.5) * scale + corner
    assert np.allclose(boxes, expected, atol=1)


def test_attributes_quality_and_time_are_shown(open_page: Open, open_pack: Service) -> None:
    page = open_page(open_pack)
    page.choose(0, ONE)
    body = embedded(open_pack, ONE, include_attributes=True, include_quality=True)
    values = dict(
        zip([each.text for each in page.all(".values dt")], [each.text for each in page.all(".values dd")], strict=True)
    )
    assert values["age"] == str(body["attributes"]["age"])
    assert values["gender"] == body["attributes"]["gender"]
    assert values["face size"] == f"{body['quality']['face_size_px']:.0f} px"
    assert values["brightness"] == f"{body['quality']['brightness']:.2f}"
    assert values["time"].endswith(" ms")
    assert page.text(".slot .good") == "No quality warnings."
    angles = page.text(".angles").replace(MINUS, "-")
    assert [int(angle) for angle in re.findall(r"-?\d+", angles)] == [
        round(body["attributes"]["pose"][name]) for name in ("yaw", "pitch", "roll")
    ]
    assert page.attribute(".pose", "aria-label").startswith("Head pose: yaw ")
    page.shoot()


@pytest.mark.parametrize("pose", [(20, 0, 0), (0, 15, 0), (0, 0, -30), (20, -10, 5)])
def test_head_is_drawn_as_the_service_measures_poses(
    open_page: Open, service: Service, pose: tuple[float, float, float]
) -> None:
    """Each point of the head, turned by the page, is where the service finds that pose."""
    page = open_page(service)
    script = """
    const [pose, done] = arguments;
    import("/page/draw.js").then(async ({ loadShape, turned }) =>
      done((await loadShape()).map((point) => turned(point, pose))));
    """
    points = page.browser.execute_async_script(script, dict(zip(("yaw", "pitch", "roll"), pose, strict=True)))
    assert np.allclose(points, mean_shape() @ rotation(*pose).T, atol=1e-5)
    found = head_pose(np.array(points, np.float32))
    assert (found.yaw, found.pitch, found.roll) == pytest.approx(pose, abs=0.01)


def test_pack_without_attributes_is_not_asked_for_them(open_page: Open, service: Service) -> None:
    page = open_page(service)
    page.choose(0, ONE)
    assert "estimates no age" in page.text("[data-slot='0']")
    assert "include_attributes" not in page.text("#code")


def test_warnings_are_explained_in_words(open_page: Open, service: Service, tmp_path: Path) -> None:
    (tmp_path / "no face.png").write_bytes(picture_bytes("PNG"))
    page = open_page(service)
    page.choose(0, tmp_path / "no face.png")
    warnings = page.text(".warnings")
    assert "Landmarks unsure." in warnings
    assert "Probably no face." in warnings
    assert page.all(".landmarks.unsure")
    texts = all_texts(page)["en"]
    assert all({code, f"{code}_text"} <= set(texts) for code in QualityWarning)
    page.shoot()


def test_as_it_is_shows_the_whole_picture_as_the_crop(open_page: Open, service: Service) -> None:
    page = open_page(service)
    aligned = page.compare()
    page.one("input[name=align][value=none]").click()
    page.until(lambda: "not aligned" in page.text("[data-slot='1']") and page.one("#similarity").is_displayed())
    assert float(page.text(".figure").replace(MINUS, "-")) != aligned
    expected = embedded(service, OTHER, align="none", include_crop=True)["crop"]
    assert page.attribute("[data-slot='1'] .crop", "src").endswith(expected)
    assert "That is what the service does unless asked" in page.text("#align-hint")


def test_model_whose_input_is_not_square_is_not_asked_to_align(
    open_page: Open, run_service: Run, tmp_path: Path
) -> None:
    onnx.save(oblong_model(), tmp_path / "model.onnx")
    (tmp_path / "pack.toml").write_text(MANIFEST.format(more="", height=56))
    page = open_page(run_service(tmp_path))
    assert not page.one("input[name=align][value=auto]").is_enabled()
    assert page.one("input[name=align][value=none]").is_selected()
    assert "not square" in page.text("#align-hint")
    page.compare()
    assert page.run(
        "const { naturalWidth, naturalHeight } = arguments[0]; return [naturalWidth, naturalHeight]", page.one(".crop")
    ) == [112, 56]


# ── two pictures ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_similarity_is_that_of_the_embeddings(open_page: Open, service: Service) -> None:
    shown = open_page(service).compare()
    one, other = (np.array(embedded(service, picture)["embedding"]) for picture in (ONE, OTHER))
    assert shown == pytest.approx(float(one @ other), abs=5e-4)


def test_similarity_stands_beside_the_thresholds_and_what_they_mean(open_page: Open, open_pack: Service) -> None:
    page = open_page(open_pack)
    value = page.compare()
    assert value > 0.95
    assert page.text(".says") == "Of pairs of different people, about 1 of 100 reach 0.910. This pair does, too."
    rows = [row.text for row in page.all(".similarity tbody tr")]
    assert rows == ["0.878 1 of 10 above", "0.910 1 of 100 above"]
    x = "return arguments[0].getBoundingClientRect()[arguments[1]]"
    track, reach = page.one(".track"), page.one(".reach")
    start, end = page.run(x, track, "left"), page.run(x, track, "right")
    low = float(page.text(".tick"))
    for mark, similarity in zip(page.all(".mark"), (0.878, 0.91), strict=True):
        middle = (page.run(x, mark, "left") + page.run(x, mark, "right")) / 2
        assert (middle - start) / (end - start) == pytest.approx((similarity - low) / (1 - low), abs=0.003)
    assert (page.run(x, reach, "right") - start) / (end - start) == pytest.approx((value - low) / (1 - low), abs=0.003)
    assert "0.878: 1 of 10; 0.910: 1 of 100" in page.attribute(".scale", "aria-label")
    page.shoot()


def test_pair_below_all_thresholds_is_said_to_mean_little(open_page: Open, open_pack: Service, tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(png(portrait()))  # a real person is like no synthetic face
    page = open_page(open_pack)
    assert page.compare(ONE, tmp_path / "other.png") < 0.878
    says = "Of pairs of different people, more than 1 of 10 are at least as similar as this pair."
    assert page.text(".says") == says
    assert [row.text.split()[-1] for row in page.all(".similarity tbody tr")] == ["below", "below"]


def test_pack_without_thresholds_says_so_and_how_to_get_one(open_page: Open, service: Service) -> None:
    page = open_page(service)
    page.compare()
    assert "This pack has no thresholds" in page.text(".says")
    assert "arcface-api evaluate" in page.text(".meaning")
    assert not page.all(".similarity table, .mark")


def test_no_verdict_is_given_in_any_language(open_page: Open, open_pack: Service) -> None:
    page = open_page(open_pack)
    page.compare()
    for language, verdict in (("en", r"same person|match|identical"), ("ru", r"один и тот же|совпад|тот же человек")):
        page.one(f"[data-language={language}]").click()
        assert not re.search(verdict, page.text("#similarity"), re.IGNORECASE)


def test_thresholds_hold_for_aligned_faces_and_one_recipe(open_page: Open, open_pack: Service, tmp_path: Path) -> None:
    page = open_page(open_pack)
    page.compare()
    page.one("input[name=align][value=none]").click()
    page.until(lambda: page.all(".caveats"))
    assert "these were embedded as they are" in page.text(".caveats")
    page.one("input[name=align][value=auto]").click()
    page.slot(1, "done")
    page.one("[data-slot='1'] .quiet").click()
    (tmp_path / "no face.png").write_bytes(picture_bytes("PNG"))
    page.choose(1, tmp_path / "no face.png")
    assert "One face was aligned and the other was not" in page.text(".caveats")
    assert "There are warnings" in page.text(".caveats")


def test_embeddings_of_two_models_are_not_compared(open_page: Open, service: Service) -> None:
    page = open_page(service)
    script = """
    const done = arguments[0];
    import("/page/comparison.js").then(({ comparison }) => {
      const answer = (fingerprint) => ({ answer: { fingerprint, embedding: [1, 0], warnings: [] } });
      const section = document.getElementById("similarity");
      comparison(section, [answer("a"), answer("b")], { thresholds: [] }, () => {});
      done(section.textContent);
    });
    """
    text = page.browser.execute_async_script(script)
    assert "must not be compared" in text
    assert not re.search(r"\d", text)


def test_thresholds_say_where_they_come_from(open_page: Open, service: Service) -> None:
    """As far as the service says; only an https:// address becomes a link."""
    page = open_page(service)
    script = """
    const done = arguments[0];
    import("/page/comparison.js").then(({ comparison }) => {
      const slot = { answer: { fingerprint: "a", embedding: [0.6, 0.8], warnings: [], alignment: "auto" } };
      const section = document.getElementById("similarity");
      const others = { basis: "published", data_set: "LFW, all pairs", source: "https://results.test/lfw.txt" };
      section.hidden = false;
      comparison(section, [slot, slot], { thresholds: [
        { far: 0.01, similarity: 0.148, ...others }, { far: 0.001, similarity: 0.209, ...others },
        { far: 0.0001, similarity: 0.3, ...others, source: "javascript:alert(1)" },
      ] }, () => {});
      done();
    });
    """
    page.browser.execute_async_script(script)
    page.shoot()
    assert [line.text for line in page.all(".similarity table ~ .fine")] == [
        "Published by others; pairs: LFW, all pairs · source",
        "Published by others; pairs: LFW, all pairs",
    ]
    assert [link.get_attribute("href") for link in page.all("#similarity a")] == ["https://results.test/lfw.txt"]
    boxes = [text.rect for text in page.all(".mark-text")]
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            apart = one["x"] + one["width"] <= other["x"] or one["y"] != other["y"]
            assert apart, "names of thresholds overlap"


def test_two_files_at_once_fill_both_slots(open_page: Open, service: Service) -> None:
    page = open_page(service)
    page.choose(0, ONE, OTHER)
    page.slot(1, "done")
    assert [name.text for name in page.all(".file-name")] == ["example-1.jpg", "example-2.jpg"]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_pictures_can_be_dropped_and_pasted(open_page: Open, service: Service, event: str) -> None:
    page = open_page(service)
    script = """
    const [event, content, name] = arguments;
    const files = new DataTransfer();
    files.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name, { type: "image/jpeg" }));
    const options = { bubbles: true, cancelable: true };
    const made = event === "drop" ? new DragEvent(event, { ...options, dataTransfer: files })
                                  : new ClipboardEvent(event, { ...options, clipboardData: files });
    document.querySelector("[data-slot='1']").dispatchEvent(made);
    """
    page.run(script, event, base64.b64encode(ONE.read_bytes()).decode(), "dropped.jpg")
    slot = page.slot(1 if event == "drop" else 0, "done")
    assert slot.find_element(By.CSS_SELECTOR, ".file-name").text == "dropped.jpg"


def test_examples_are_a_click_away(open_page: Open, open_pack: Service) -> None:
    page = open_page(open_pack)
    page.one("#examples").click()
    page.until(lambda: page.one("#similarity").is_displayed())
    assert page.text(".figure").startswith("0.9")
    assert not page.one("#examples").is_displayed()


# ── what goes wrong ────────────────────────────────────────────────────────────────────────────────────────────────


def test_refusal_is_shown_in_the_service_s_own_words(open_page: Open, service: Service, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\xef\xbf\xbdPNG\r\n")
    page = open_page(service)
    slot = page.choose(0, tmp_path / "bad.png", until="refused")
    problem = service.post("/embed", files={"file": (tmp_path / "bad.png").read_bytes()}).json()
    assert slot.find_element(By.CSS_SELECTOR, ".detail").text == problem["detail"]
    assert slot.find_element(By.CSS_SELECTOR, ".detail").get_attribute("lang") == "en"
    assert f"415 {problem['code']}" in slot.text
    page.until(lambda: problem["detail"] in page.heard())
    page.shoot()
    page.choose(0, ONE)


def test_file_name_is_text_and_never_markup(open_page: Open, service: Service, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>';\"`$(x).jpg"
    (tmp_path / name).write_bytes(ONE.read_bytes())
    page = open_page(service)
    page.choose(0, tmp_path / name)
    assert page.text(".file-name") == name
    assert len(page.all("[data-slot='0'] img")) == 2


def test_busy_service_is_asked_again_when_it_says(
    open_page: Open, make_app: Callable[..., DirectApp], tiny_recogniser: Path
) -> None:
    app = make_app(tiny_recogniser, queue_capacity=1, max_batch_files=1)
    with Service(app) as service:
        try:
            page = open_page(service)
            app.embedder.inside = 1  # another caller's picture
            page.choose(0, ONE, until="refused")
            said = r"(?s)The service is busy.*429 queue_full.*Next try in \d+ s"  # not while it tries again
            page.until(lambda: re.search(said, page.text("[data-slot='0']")))
            page.until(lambda: "Next try in" in page.heard())
            page.shoot()
            app.embedder._leave(1)
            page.slot(0, "done")
        finally:
            service.stop()


def test_service_that_is_down_is_asked_again_until_it_answers(
    open_page: Open, browser: webdriver.Chrome, service: Service
) -> None:
    page = open_page(service)
    connect(browser, is_connected=False)
    page.choose(0, ONE, until="refused")
    page.until(lambda: "The service does not answer" in page.text("[data-slot='0']"))
    assert page.text("#state-text") == "No answer; trying again"
    page.shoot()
    page.press_when_there("[data-slot='0'] .note button")  # try now: in vain
    page.until(lambda: "Next try in 4 s" in page.text("[data-slot='0']"))
    connect(browser)
    page.slot(0, "done")
    assert page.text("#state-text").startswith("Ready")


def test_service_that_has_ended_is_said_to_be_down(open_page: Open, run_service: Run, tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser)
    page = open_page(service)
    service.stop()
    page.choose(0, ONE, until="refused")
    page.until(lambda: "The service does not answer" in page.text("[data-slot='0']"))


def test_page_that_finds_no_service_connects_when_there_is_one(
    open_page: Open, browser: webdriver.Chrome, service: Service
) -> None:
    page = open_page(service)
    script = """
    window.really = window.fetch;
    window.fetch = (path, options) => path === "info" ? Promise.reject(new TypeError()) : window.really(path, options);
    """
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        browser.refresh()
        page.until(lambda: page.all("[data-state=unreachable]"))
        assert page.text("#state-text") == "No answer; trying again"
        page.run("window.fetch = window.really")
        page.until(lambda: page.all("[data-state=ready]"))
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_page_asks_for_the_key_that_the_service_asks_for(
    open_page: Open, browser: webdriver.Chrome, run_service: Run, tiny_recogniser: Path, tmp_path: Path
) -> None:
    key = "correct-horse-battery-staple"
    (tmp_path / "keys").write_text(f"archive {key}")
    page = open_page(run_service(tiny_recogniser, api_keys_file=tmp_path / "keys"))
    assert page.text("#state-text") == "Asks for an API key"
    assert "the person who runs it gives you one" in page.text("#key-text")
    page.shoot("locked")
    requested_urls(browser)
    page.one("#key").send_keys("a-wrong-one", Keys.ENTER)
    page.until(lambda: "does not know this key" in page.text("#key-text"))
    page.one("#key").send_keys(key, Keys.ENTER)
    page.until(lambda: page.all("[data-state=ready]"))
    assert not page.one("#key-form").is_displayed()
    page.compare()
    assert 'curl -H "X-API-Key: $API_KEY" -F' in page.text("#code")
    browser.refresh()
    page.until(lambda: page.all("[data-state=ready]"))
    kept = page.run("return JSON.stringify([localStorage, document.cookie, location.href, document.body.innerHTML])")
    assert key not in kept
    assert not [url for url in requested_urls(browser) if key in url]
    (tmp_path / "keys").write_text("archive a-new-key-for-everybody")
    page.until(
        lambda: (
            page.run("return fetch('info', { headers: { 'X-API-Key': arguments[0] } }).then((a) => a.status)", key)
            == 401
        )
    )
    page.choose(0, ONE, until="refused")
    page.until(lambda: page.one("#key-form").is_displayed())
    page.one("#key").send_keys("a-new-key-for-everybody", Keys.ENTER)
    page.slot(0, "done")
    page.run("sessionStorage.clear()")


def test_doubt_of_the_service_is_shown(open_page: Open, run_service: Run, tmp_path: Path) -> None:
    onnx.save(linear_model(112, 512, bias=np.full(512, 5, np.float32)), tmp_path / "useless.onnx")
    page = open_page(run_service(tmp_path / "useless.onnx"))
    assert page.one("#doubt").is_displayed()
    assert "The service doubts its own model" in page.text("#doubt")


# ── the camera ─────────────────────────────────────────────────────────────────────────────────────────────────────


def take_a_photo(page: Shown) -> WebElement:
    page.all("[data-slot='0'] .actions button")[1].click()
    dialog = page.one("#camera")
    assert dialog.is_displayed()
    return dialog


def test_camera_takes_the_square_around_the_outline(
    open_page: Open, browser: webdriver.Chrome, service: Service
) -> None:
    permit_camera(browser, "granted")
    page = open_page(service)
    take_a_photo(page)
    page.until(lambda: page.one("#shoot").is_displayed())
    page.shoot()
    short = page.run(
        "const video = arguments[0]; return Math.min(video.videoWidth, video.videoHeight)", page.one("#video")
    )
    page.one("#shoot").click()
    slot = page.slot(0, "done")
    assert not page.one("#camera").is_displayed()
    assert slot.find_element(By.CSS_SELECTOR, ".file-name").text == "photo.jpg"
    size = page.run("return [arguments[0].naturalWidth, arguments[0].naturalHeight]", page.one(".picture img"))
    assert size == [round(0.8 * short)] * 2
    assert page.run("return document.getElementById('video').srcObject") is None, "and the camera is off"


def test_denied_camera_is_explained(open_page: Open, browser: webdriver.Chrome, service: Service) -> None:
    permit_camera(browser, "denied")
    page = open_page(service)
    dialog = take_a_photo(page)
    page.until(lambda: "does not allow" in dialog.text)
    assert not page.one("#shoot").is_displayed()
    page.shoot()
    page.press(Keys.ESCAPE)
    page.until(lambda: not dialog.is_displayed())


def test_page_without_a_secure_context_says_why_there_is_no_camera(
    browser: webdriver.Chrome, elsewhere: str, tmp_path: Path
) -> None:
    page = Shown(browser, elsewhere, tmp_path)
    dialog = take_a_photo(page)
    page.until(lambda: "https://" in dialog.text)
    assert elsewhere.rstrip("/") in dialog.text


# ── the same request ───────────────────────────────────────────────────────────────────────────────────────────────


def test_requests_shown_run_and_give_the_same(open_page: Open, open_pack: Service) -> None:
    page = open_page(open_pack)
    shown = page.compare()
    printed = {}
    for program, command in (
        ("curl", ["bash", "-euc"]),
        ("Python", [sys.executable, "-c"]),
        ("Node.js", ["node", "--input-type=module", "-e"]),
    ):
        page.one(f"[data-program='{program}']").click()
        code = page.attribute("#code", "textContent")
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run([*command, code], cwd=STATIC, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        printed[program] = done.stdout
    one, other = (json.loads(line) for line in printed.pop("curl").replace("}{", "}\n{").splitlines())
    assert {"attributes", "quality", "warnings"} < set(one)
    assert float(np.dot(one["embedding"], other["embedding"])) == pytest.approx(shown, abs=5e-4)
    assert "Python" in printed
    for text in printed.values():
        assert float(text.split()[1]) == pytest.approx(shown, abs=5e-4)


def test_odd_file_names_are_quoted(open_page: Open, open_pack: Service, tmp_path: Path) -> None:
    name = 'it\'s a; "face", $(touch oh).jpg'
    (tmp_path / name).write_bytes(ONE.read_bytes())
    page = open_page(open_pack)
    page.choose(0, tmp_path / name)
    for program, command in (("curl", ["bash", "-euc"]), ("Python", [sys.executable, "-c"])):
        page.one(f"[data-program='{program}']").click()
        code = page.attribute("#code", "textContent")
        done = subprocess.run([*command, code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert "128" in done.stdout, done.stderr
    assert not (tmp_path / "oh").exists()


def test_code_can_be_copied(open_page: Open, browser: webdriver.Chrome, service: Service) -> None:
    page = open_page(service)
    browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    page.one("#copy").click()
    page.until(lambda: page.text("#copy") == "Copied")
    page.until(lambda: page.heard() == "Copied")
    copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == page.attribute("#code", "textContent")


def test_code_can_be_copied_without_a_secure_context(browser: webdriver.Chrome, elsewhere: str, tmp_path: Path) -> None:
    page = Shown(browser, elsewhere, tmp_path)
    page.one("#copy").click()
    page.until(lambda: page.text("#copy") == "Copied")
    assert page.run("return String(getSelection())").strip() == page.text("#code")


def test_page_shows_what_runs(open_page: Open, open_pack: Service) -> None:
    page = open_page(open_pack)
    page.choose(0, ONE)
    facts, info = page.text("#facts"), open_pack.get("/info").json()
    answer = open_pack.post("/embed", files={"file": ONE.read_bytes()}, params=SHOWN_IN_THE_PAGE)
    for fact in ("pack", "model", "provider", "precision", "fingerprint", "version"):
        assert info[fact] in facts
    assert answer.headers["x-embedding-recipe"] in facts
    assert info["licence"]["name"] in facts


# ── for everybody ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_colours_follow_the_system_and_a_switch(open_page: Open, browser: webdriver.Chrome, open_pack: Service) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme("dark")]})
    page = open_page(open_pack)
    page.compare()
    page.shoot()
    background = "return getComputedStyle(document.body).backgroundColor"
    dark = page.run(background)
    assert max(map(int, re.findall(r"\d+", dark))) < 60
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme("light")]})
    page.until(lambda: page.run(background) != dark)
    light = page.run(background)
    assert min(map(int, re.findall(r"\d+", light))) > 230
    seen = []
    for _ in range(3):
        page.one("#theme").click()
        seen.append((page.attribute("#theme", "aria-label"), page.run(background)))
    assert seen == [("Colours: light", light), ("Colours: dark", dark), ("Colours: as the system", light)]
    page.one("#theme").click()
    page.one("#theme").click()
    browser.refresh()
    page.until(lambda: page.all("[data-state=ready]"))
    assert page.run(background) == dark, "the choice is remembered"
    page.run("localStorage.clear()")


def test_russian_follows_the_browser_and_a_switch(
    open_page: Open, browser: webdriver.Chrome, open_pack: Service
) -> None:
    speak(browser, "ru-RU")
    page = open_page(open_pack)
    page.compare()
    assert page.run("return document.documentElement.lang") == "ru"
    assert page.text("h1") == "Насколько похожи два лица?"
    assert page.text(".figure").startswith("0,9")
    assert "1 из 100" in page.text(".says")
    page.shoot()
    page.one("[data-language=en]").click()
    assert page.text("h1") == "How alike are two faces?"
    browser.refresh()
    page.until(lambda: page.text("h1") == "How alike are two faces?")
    page.run("localStorage.clear()")


def test_all_texts_exist_in_both_languages(open_page: Open, service: Service) -> None:
    texts = all_texts(open_page(service))
    assert texts["en"].keys() == texts["ru"].keys()
    places = r"\{\w+\}|</?b>"
    for name, text in texts["en"].items():
        assert sorted(re.findall(places, text)) == sorted(re.findall(places, texts["ru"][name])), name
    source = "".join(
        file.read_text(encoding="utf-8")
        for file in STATIC.glob("*.*")
        if file.suffix in {".js", ".html"} and file.name != "texts.js"
    )
    used = set(re.findall(r"""\b(?:t|rich|show)\("(\w+)"|data-(?:t|label)="(\w+)\"""", source))
    assert {name or label for name, label in used} <= texts["en"].keys()
    begun = set(re.findall(r"\bt\(`(\w+)\$", source))  # the other half is what the service says, or a number
    said_by_the_service = {*QualityWarning, *(f"{code}_text" for code in QualityWarning), "female", "male"}
    said_by_the_service |= {"measured", "published"}
    unused = texts["en"].keys() - said_by_the_service - set(re.findall(r"\w+", source))
    assert not [name for name in unused if not name.startswith(tuple(begun))]


def all_texts(page: Shown) -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = page.browser.execute_async_script(
        "import('/page/texts.js').then((texts) => arguments[0](texts.TEXTS))"
    )
    return texts


@pytest.mark.parametrize("language", ["en-GB", "ru-RU"])
def test_phone_of_400_pixels_shows_all_of_it(
    open_page: Open, browser: webdriver.Chrome, open_pack: Service, language: str
) -> None:
    speak(browser, language)
    narrow(browser)
    page = open_page(open_pack)
    page.compare()
    page.shoot()
    assert page.run("return document.documentElement.scrollWidth") <= 400
    outside = """
    return [...document.querySelectorAll("main *, header *, footer *")]
      .filter((element) => element.checkVisibility() && !element.closest(".unseen, svg, table"))
      .filter((element) => element.getBoundingClientRect().right > 400.5)
      .map((element) => element.outerHTML.slice(0, 90));
    """
    assert page.run(outside) == []
    small = """
    return [...document.querySelectorAll("button, a")].filter((element) => element.checkVisibility())
      .filter((element) => element.getBoundingClientRect().height < 24).map((element) => element.outerHTML);
    """
    assert page.run(small) == [], "fingers need 24 pixels"


def test_keyboard_reaches_and_works_everything(open_page: Open, browser: webdriver.Chrome, open_pack: Service) -> None:
    page = open_page(open_pack)
    page.run("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")

    def tab_to(selector: str) -> WebElement:
        for _ in range(40):
            page.press(Keys.TAB)
            focused = page.focused()
            if page.run("return arguments[0].matches(arguments[1])", focused, selector):
                ring = page.run("return getComputedStyle(arguments[0]).outlineStyle", focused)
                near = page.run(
                    "return getComputedStyle(arguments[0].nextElementSibling ?? arguments[0]).outlineStyle", focused
                )
                assert "solid" in (ring, near), f"the focus on {selector} cannot be seen"
                return focused
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("#theme")
    tab_to("#examples")
    page.press(Keys.ENTER)
    page.until(lambda: page.one("#similarity").is_displayed())
    assert page.focused().text == "First face", "where the button was that has gone"
    tab_to("[data-slot='1'] .quiet")
    page.press(Keys.SPACE)
    page.slot(1, "empty")
    assert page.focused().text == "Choose a file"
    assert not page.one("#similarity").is_displayed()
    tab_to("input[name=align]")
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: "not aligned" in page.text("[data-slot='0']"))
    tab_to("[role=tab]")
    page.press(Keys.ARROW_RIGHT)
    assert page.focused().text == "Python"
    assert "arcface_api.client" in page.text("#code")
    tab_to("[role=tabpanel]")


def test_screen_readers_hear_what_happens(open_page: Open, open_pack: Service) -> None:
    page = open_page(open_pack)
    heard = """
    window.heard = [];
    const region = document.getElementById("announcement");
    new MutationObserver(() => window.heard.push(region.textContent)).observe(region, { childList: true });
    """
    page.run(heard)
    page.compare()
    said = page.until(lambda: [each for each in [page.run("return window.heard")] if "Similarity" in each[-1]])[0]
    assert "First face: example-1.jpg is being embedded." in " ".join(said)
    assert said[-1].endswith(f"Second face: example-2.jpg is embedded. Similarity {page.text('.figure')}.")


def refuse(page: Shown, folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"bad")
    page.choose(0, folder / "bad.png", until="refused")


def warn(page: Shown, folder: Path) -> None:
    (folder / "no face.png").write_bytes(picture_bytes("PNG"))
    page.compare(ONE, folder / "no face.png")


STATES: dict[str, Callable[[Shown, Path], object]] = {
    "empty": lambda page, _: page,
    "two": lambda page, _: page.compare(),
    "refused": refuse,
    "camera": lambda page, _: take_a_photo(page),
    "warnings": warn,
}


@pytest.fixture
def axe() -> str:
    """axe-core's script."""
    if util.find_spec("axe_playwright_python") is None:
        pytest.skip("needs axe-core's script, which axe-playwright-python bundles (pip install --no-deps)")
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def test_axe_finds_nothing_where_a_key_is_asked_for(
    open_page: Open, browser: webdriver.Chrome, run_service: Run, tiny_recogniser: Path, tmp_path: Path, axe: str
) -> None:
    (tmp_path / "keys").write_text("archive correct-horse-battery-staple")
    service = run_service(tiny_recogniser, api_keys_file=tmp_path / "keys")
    for colours in ("light", "dark"):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme(colours)]})
        page = open_page(service)
        assert page.one("#key-form").is_displayed()
        assert not violations(page, axe)
        page.shoot(colours)


def test_axe_finds_nothing(
    open_page: Open, browser: webdriver.Chrome, open_pack: Service, tmp_path: Path, axe: str
) -> None:
    permit_camera(browser, "denied")
    for state, reach in STATES.items():
        for colours in ("light", "dark"):
            for language in ("en-GB", "ru-RU"):
                speak(browser, language)
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme(colours)]})
                page = open_page(open_pack)
                reach(page, tmp_path)
                summary = violations(page, axe)
                assert not summary, (state, colours, language, summary)


def violations(page: Shown, axe: str) -> list[tuple[str, str, list[str]]]:
    page.run(axe)
    found = page.browser.execute_async_script("axe.run().then((found) => arguments[0](found.violations))")
    return [(each["id"], each["impact"], [node["html"] for node in each["nodes"]]) for each in found]


# ── safety ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_page_asks_nobody_else_and_breaks_no_policy(
    open_page: Open, browser: webdriver.Chrome, open_pack: Service
) -> None:
    requested_urls(browser)
    page = open_page(open_pack)
    page.compare()
    urls = requested_urls(browser)
    assert all(url.startswith(str(open_pack.base_url)) for url in urls), urls
    paths = {url.removeprefix(str(open_pack.base_url)).split("?")[0] for url in urls}
    unused = {"/page/example-1.jpg", "/page/example-2.jpg"}
    assert paths - {"/docs"} == {*page_routes(), "/info", "/embed"} - unused
    complaints = [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]  # selenium
    assert not complaints


def test_policy_stops_what_was_smuggled_in(open_page: Open, service: Service) -> None:
    page = open_page(service)
    script = """
    const done = arguments[0], refused = [];
    document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
    try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch { /* Trusted Types */ }
    const inline = document.createElement("style");
    inline.textContent = "h1 { color: red }";
    document.head.append(inline);
    document.body.append(Object.assign(document.createElement("img"), { src: "http://elsewhere.test/face" }));
    fetch("http://elsewhere.test/").catch(() => setTimeout(() => done(refused), 100));
    """
    refused = set(page.browser.execute_async_script(script))
    assert refused >= {"require-trusted-types-for", "style-src-elem", "img-src", "connect-src"}


@pytest.mark.parametrize("path", ["/apis/face", "/apis/face/"])
def test_page_works_under_a_prefix(open_page: Open, run_service: Run, tiny_recogniser: Path, path: str) -> None:
    page = open_page(run_service(tiny_recogniser, root_path="/apis/face"), path)
    page.compare()
    assert "/apis/face/embed?" in page.text("#code")
    assert page.attribute("nav a", "href").endswith("/apis/face/docs")
