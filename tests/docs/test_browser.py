"""The built site in a browser: no error, no request to another host, search, axe, dark mode, a telephone's width."""

import contextlib
import functools
import http.server
import importlib.util
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from blocks import DOCS
from browser import MISSING, available, browser

pytestmark = [pytest.mark.proof, pytest.mark.skipif(not available(), reason=MISSING)]
SCHEMES = {"light": "default", "dark": "slate"}  # what a reader prefers, and the name of it in the theme


# Every rule of axe. That of contrast takes most of the time, so it looks at three words of each kind:
# of the same colours, size and weight.
LOOK = """
const kinds = {};
for (const element of document.querySelectorAll("body *")) {
  const written = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (!written || !element.getClientRects().length) continue;
  let behind = element;
  while (behind.parentElement && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
    behind = behind.parentElement;
  const { color, fontSize, fontWeight, opacity } = getComputedStyle(element);
  (kinds[[color, fontSize, fontWeight, opacity, getComputedStyle(behind).backgroundColor]] ??= []).push(element);
}
const some = Object.values(kinds).flatMap((elements) => elements.slice(0, 3));
const look = (where, options) => axe.run(where, { resultTypes: ["violations"], ...options });
return look(document, { rules: { "color-contrast": { enabled: false } } }).then((first) =>
  look({ include: some }, { runOnly: ["color-contrast"] }).then((second) => [...first.violations, ...second.violations]));
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each on standard error."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site as `make docs` does, and serve it: its folder and its address."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def web():
    with browser() as session:
        yield session


def pages(site):
    folder, address = site
    found = sorted(path.relative_to(folder).parent.as_posix() for path in folder.rglob("index.html"))
    return [f"{address}/{'' if path == '.' else path + '/'}" for path in found]


def until(check, seconds=20):
    """Wait until a check holds, and return its value."""
    end = time.monotonic() + seconds
    while not (value := check()) and time.monotonic() < end:
        time.sleep(0.1)
    return value


def test_pages_open_without_an_error_and_without_another_host(site, web):
    assert len(pages(site)) > 60
    for page in pages(site):
        web.open(page)
        assert until(lambda: web.run("return document.querySelectorAll('main h1').length") == 1), page
        assert web.messages() == [], page
        others = [url for url in web.requests() if not url.startswith((site[1], "data:", "blob:"))]
        assert others == [], page


def test_search_finds_a_name_and_leads_to_it(site, web):
    web.open(f"{site[1]}/")
    web.run("document.querySelector('[data-md-toggle=search]').click()")
    box = web.find("[data-md-component=search-query]")["element-6066-11e4-a52e-4f735466cecf"]
    web.call("POST", f"/element/{box}/value", text="laplacian")
    links = "return [...document.querySelectorAll('.md-search-result__link')].map((link) => link.href)"
    found = until(lambda: web.run(links))
    assert any("/reference/operators/" in link for link in found)
    web.open(next(link for link in found if "/reference/operators/" in link))
    assert "Differential operators" in web.run("return document.querySelector('main').innerText")


def axe():
    """The script of axe-core."""
    spec = importlib.util.find_spec("axe_playwright_python")  # its `axe.min.js` alone: playwright is not needed
    if spec is None or spec.origin is None:
        pytest.skip("needs axe's script: make docs-browser")
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def prefer(web, address, name):
    """Become a reader who prefers light or dark pages, and has not been here before."""
    web.open("about:blank")  # an open page would store its scheme again when the preference changes
    web.call("POST", "/goog/cdp/execute", cmd="Storage.clearDataForOrigin",
             params={"origin": address, "storageTypes": "local_storage"})  # fmt: skip
    web.emulate(prefers_color_scheme=name)


@contextlib.contextmanager
def scheme(web, address, name):
    """A new reader who prefers light or dark pages."""
    prefer(web, address, name)
    try:
        yield
    finally:
        prefer(web, address, "light")


@pytest.mark.parametrize("name", SCHEMES)
def test_axe_finds_nothing(site, web, name):
    script, faults = axe(), []
    web = web.patient(600)
    with scheme(web, site[1], name):
        for page in pages(site):
            web.open(page)
            assert web.run("return document.body.dataset.mdColorScheme") == SCHEMES[name]
            web.run(script)
            faults += [(page, fault["id"], node["html"][:200]) for fault in web.run(LOOK) for node in fault["nodes"]]
    assert faults == []


def test_axe_finds_a_word_that_is_hard_to_read(site, web):
    web.patient(600).open(f"{site[1]}/tutorial/01-functional/")
    web.run(axe())
    web.run("document.querySelectorAll('pre .n')[9].style.color = '#999'")
    assert [fault["id"] for fault in web.run(LOOK)] == ["color-contrast"]


def test_dark_mode_is_dark_and_a_button_switches(site, web):
    shade = "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
    with scheme(web, site[1], "dark"):
        web.open(f"{site[1]}/")
        assert max(web.run(shade)) < 80
        web.click("form[data-md-component=palette] label:not([hidden])")
        assert until(lambda: min(web.run(shade)) > 200)
    web.open(f"{site[1]}/")
    assert min(web.run(shade)) > 200


def test_a_telephone_shows_all_without_scrolling_sideways(site, web):
    web.call("POST", "/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride",
             params={"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True})  # fmt: skip
    try:
        for page in pages(site):
            web.open(page)
            assert web.run("return document.documentElement.scrollWidth") <= 390, page
    finally:
        web.call("POST", "/goog/cdp/execute", cmd="Emulation.clearDeviceMetricsOverride", params={})


def test_a_keyboard_reaches_the_content(site, web):
    web.open(f"{site[1]}/article/")
    web.press("\ue004")  # tab: the first stop is the skip link
    assert web.run("return document.activeElement.className").startswith("md-skip")
    web.press("\ue007")
    assert web.run("return location.hash") != ""
