"""Promise of `/docs`: in a real browser, with the network cut, it renders and "Try it out" embeds a crop.

Also behind nginx, configured as docs/operations.md says: its text is what runs here.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable, visibility_of_element_located
from selenium.webdriver.support.ui import WebDriverWait

from browsers import chromium, requested_urls
from pictures import picture_bytes
from raw_http import connections
from serving import Service, free_port, until

pytestmark = pytest.mark.once  # a browser runs it

JPEG = picture_bytes()
BEHIND = {"trusted_proxies": {"127.0.0.1"}}
"""The settings of a service behind a proxy on this machine."""
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path / "profile") as browser:
        yield browser


def try_it_out(browser: webdriver.Chrome, base_url: str, folder: Path, *, is_open: bool = False) -> list[str]:
    """Embed a crop on the page under this URL, if it is not open; returns the URLs that the browser asked for."""
    picture = folder / "face.jpg"
    picture.write_bytes(JPEG)
    wait = WebDriverWait(browser, 100)
    if not is_open:
        browser.get(f"{base_url}/docs")
    operation = wait.until(visibility_of_element_located((By.ID, "operations-embedding-embed")))
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
    browser.save_screenshot(str(folder / "docs.png"))
    assert live.find_element(By.CSS_SELECTOR, ".response-col_status").text.startswith("200")
    assert '"embedding_dim": 512' in live.text
    return requested_urls(browser)


def test_try_it_out_embeds_a_crop_without_internet(browser: webdriver.Chrome, service: Service, tmp_path: Path) -> None:
    urls = try_it_out(browser, str(service.base_url), tmp_path)
    assert urls
    assert all(url.startswith(str(service.base_url)) for url in urls), urls


def test_key_is_given_once_and_sent_with_every_request(
    browser: webdriver.Chrome, run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path
) -> None:
    key = "correct-horse-battery-staple"
    (tmp_path / "keys").write_text(f"archive {key}")
    service = run_service(tiny_recogniser, api_keys_file=tmp_path / "keys")
    wait = WebDriverWait(browser, 100)
    browser.get(f"{service.base_url}/docs")
    wait.until(element_to_be_clickable((By.CSS_SELECTOR, ".scheme-container .authorize"))).click()
    wait.until(visibility_of_element_located((By.CSS_SELECTOR, ".auth-container input"))).send_keys(key)
    browser.find_element(By.CSS_SELECTOR, ".auth-btn-wrapper .authorize").click()
    browser.find_element(By.CSS_SELECTOR, ".auth-btn-wrapper .btn-done").click()
    urls = try_it_out(browser, str(service.base_url), tmp_path, is_open=True)
    assert not [url for url in urls if key in url]


# ── behind nginx ───────────────────────────────────────────────────────────────────────────────────────────────────

Nginx = Callable[[Service, str], str]


def configurations() -> dict[str, str]:
    """Those of the documentation: its first block takes the prefix away, its second one is a location that keeps it."""
    server, location = re.findall(r"```nginx\n(.*?)```", OPERATIONS.read_text(encoding="utf-8"), re.DOTALL)
    its_own = re.compile(r"^ *location .*?\}\n", re.DOTALL | re.MULTILINE)
    assert len(its_own.findall(server)) == 1
    header = "proxy_set_header X-Forwarded-Prefix /face;"
    assert header in server
    return {
        "stripped": server,
        "stripped, not announced": server.replace(header, ""),
        "kept": its_own.sub(lambda _: location, server),
    }


@pytest.fixture
def run_nginx(tmp_path: Path) -> Iterator[Nginx]:
    """Put nginx in front of a service, with a configuration of the documentation; gives its URL with the prefix."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    with ExitStack() as at_end:

        def run(service: Service, configuration: str) -> str:
            port = free_port()
            text = configuration
            for stated, here in (
                ("127.0.0.1:5555", f"127.0.0.1:{service.base_url.port}"),
                ("listen 80;", f"listen 127.0.0.1:{port};"),
            ):
                assert stated in text
                text = text.replace(stated, here)
            temporary = [f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")]
            user = "user root;" if os.getuid() == 0 else ""  # who else may not search this folder
            (tmp_path / "nginx.conf").write_text(
                f"daemon off; worker_processes 1; pid nginx.pid; error_log stderr warn; {user}\n"
                f"events {{}}\nhttp {{ access_log off; {' '.join(temporary)}\n{text}}}\n"
            )
            command = [nginx, "-e", "stderr", "-p", str(tmp_path), "-c", "nginx.conf"]
            process = at_end.enter_context(subprocess.Popen(command))
            at_end.callback(process.terminate)

            def answers() -> bool:
                assert process.poll() is None, "nginx ended"
                with closing(socket.socket()) as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0

            until(answers)
            return f"http://127.0.0.1:{port}/face"

        yield run


@pytest.mark.parametrize(
    ("configuration", "settings"),
    [("stripped", BEHIND), ("stripped, not announced", {"root_path": "/face"}), ("kept", {"root_path": "/face"})],
)
def test_try_it_out_embeds_a_crop_behind_nginx(
    browser: webdriver.Chrome,
    run_nginx: Nginx,
    run_service: Callable[..., Service],
    tiny_recogniser: Path,
    tmp_path: Path,
    configuration: str,
    settings: dict[str, object],
) -> None:
    url = run_nginx(run_service(tiny_recogniser, **settings), configurations()[configuration])
    urls = try_it_out(browser, url, tmp_path)
    asked = {Path(httpx.URL(requested).path).name for requested in urls}
    assert asked >= {"docs", "swagger-ui-bundle.js", "swagger-ui.css", "openapi.json", "embed"}
    assert all(requested.startswith(f"{url}/") for requested in urls), urls
    browser.get(url)  # the page of its own, which asks for what it shows
    urls = until(lambda: [*urls, *found] if f"{url}/info" in (found := requested_urls(browser)) else None)
    assert {f"{url}/page/page.js", f"{url}/page/page.css"} <= set(urls)
    assert all(requested.startswith(url) for requested in urls), urls
    # longer than what nginx reads by default, and as long as a batch may be
    big = httpx.post(
        f"{url}/embed", content=JPEG + bytes(19_000_000), headers={"Content-Type": "image/jpeg"}, timeout=100
    )
    assert big.status_code == 200
    many = httpx.post(f"{url}/embed/batch", files=[("files", JPEG + bytes(13_000_000))] * 5, timeout=100)
    assert many.status_code == 200


@pytest.mark.parametrize(
    ("configuration", "settings", "servers"),
    [
        ("stripped", BEHIND, [{"url": "/face"}]),
        ("stripped", {"trusted_proxies": {"192.0.2.7"}}, None),
        ("stripped, not announced", {"trusted_proxies": {"192.0.2.7"}}, None),
        ("stripped", {"root_path": "/set"}, [{"url": "/set"}]),
        ("kept", {"root_path": "/face"}, [{"url": "/face"}]),
    ],
)
def test_prefix_that_a_caller_sends_has_no_effect_behind_nginx(
    run_nginx: Nginx,
    run_service: Callable[..., Service],
    tiny_recogniser: Path,
    configuration: str,
    settings: dict[str, object],
    servers: list[dict[str, str]] | None,
) -> None:
    url = run_nginx(run_service(tiny_recogniser, **settings), configurations()[configuration])
    document = httpx.get(f"{url}/openapi.json", headers={"X-Forwarded-Prefix": "/sent"}, timeout=100).json()
    assert document.get("servers") == servers


@pytest.mark.parametrize("configuration", ["stripped", "kept"])
def test_nginx_keeps_its_connections_to_the_service(
    run_nginx: Nginx,
    run_service: Callable[..., Service],
    tiny_recogniser: Path,
    configuration: str,
) -> None:
    service = run_service(tiny_recogniser, root_path="/face")
    url = run_nginx(service, configurations()[configuration])
    for _ in range(20):  # each on a connection of its own to nginx
        assert httpx.post(f"{url}/embed", files={"file": JPEG}, timeout=100).status_code == 200
    assert connections(service) == 1
