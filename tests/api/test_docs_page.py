"""Promise of `/docs`: in a real browser, with the network cut, it renders and "Try it out" embeds a crop."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable, visibility_of_element_located
from selenium.webdriver.support.ui import WebDriverWait

from pictures import picture_bytes
from serving import Service


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and ChromeDriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1200,1800",
        f"--user-data-dir={tmp_path / 'profile'}",
        # The network is cut: every name but this machine's is unknown.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def requested_urls(browser: webdriver.Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]  # type: ignore[no-untyped-call]  # selenium
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def test_try_it_out_embeds_a_crop_without_internet(browser: webdriver.Chrome, service: Service, tmp_path: Path) -> None:
    picture = tmp_path / "face.jpg"
    picture.write_bytes(picture_bytes())
    wait = WebDriverWait(browser, 30)
    browser.get(f"{service.base_url}/docs")
    operation = wait.until(visibility_of_element_located((By.ID, "operations-embedding-embed_embed_post")))
    operation.find_element(By.CSS_SELECTOR, ".opblock-summary-control").click()
    wait.until(element_to_be_clickable((By.CSS_SELECTOR, ".try-out__btn"))).click()
    file_input = wait.until(visibility_of_element_located((By.CSS_SELECTOR, "input[type=file]")))
    file_input.send_keys(str(picture))
    landmarks = operation.find_element(By.CSS_SELECTOR, "[placeholder=landmarks]")  # to be typed, and left out here
    assert (landmarks.get_attribute("type"), landmarks.get_attribute("value")) == ("text", "")
    operation.find_element(By.CSS_SELECTOR, ".execute").click()
    live = wait.until(visibility_of_element_located((By.CSS_SELECTOR, ".live-responses-table .response")))
    wait.until(lambda _: "embedding_dim" in live.text)
    browser.execute_script("arguments[0].scrollIntoView()", operation)
    browser.save_screenshot(str(tmp_path / "docs.png"))
    assert live.find_element(By.CSS_SELECTOR, ".response-col_status").text.startswith("200")
    assert '"embedding_dim": 512' in live.text
    urls = [url for url in requested_urls(browser) if not url.startswith(("data:", "blob:", "chrome"))]
    assert urls
    assert all(url.startswith(str(service.base_url)) for url in urls), urls
