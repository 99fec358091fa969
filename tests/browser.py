"""A headless Chromium, driven through chromedriver by plain HTTP: the W3C WebDriver protocol."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

MISSING = "needs chromium and chromedriver: apt-get install chromium chromium-driver"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # how the protocol names references to elements
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000"]


def available() -> bool:
    """Return whether a browser can be started here."""
    return all(shutil.which(name) for name in ("chromium", "chromedriver"))


class Browser(NamedTuple):
    """A session."""

    url: str
    seconds: int = 30  # how long an answer may take

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Send a command, and return its value."""
        content = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(self.url + path, content, {"Content-Type": "application/json"}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=self.seconds) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        """Open a page."""
        self.call("POST", "/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function in the page; a promise is waited for."""
        return self.call("POST", "/execute/sync", script=script, args=list(arguments))

    def patient(self, seconds: int) -> "Browser":
        """Return the session with more time for each answer, and for each script."""
        self.call("POST", "/timeouts", script=1000 * seconds)
        return self._replace(seconds=seconds)

    def find(self, selector: str) -> Mapping[str, str]:
        """Find an element."""
        return self.call("POST", "/element", using="css selector", value=selector)

    def click(self, selector: str) -> None:
        """Click on an element as a user does: it must be visible."""
        self.call("POST", f"/element/{self.find(selector)[ELEMENT]}/click")

    def press(self, key: str) -> None:
        """Press a key, wherever the focus is."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("POST", "/actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def point(self, selector: str) -> None:
        """Move the pointer to the middle of an element, and a little on."""
        moves = [
            {"type": "pointerMove", "duration": 0, "origin": self.find(selector), "x": x, "y": 0} for x in (0, 1, 2)
        ]
        self.call("POST", "/actions", actions=[{"type": "pointer", "id": "mouse", "actions": moves}])

    def emulate(self, **features: str) -> None:
        """Set media features, such as prefers_color_scheme="dark"."""
        values = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("POST", "/goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": values})

    def messages(self) -> list[str]:
        """Return the messages of the console since the last call."""
        return [entry["message"] for entry in self.call("POST", "/se/log", type="browser")]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.call("POST", "/se/log", type="performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser for a block."""
    with subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as driver:
        try:
            assert driver.stdout is not None
            port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
            wanted = {
                "goog:chromeOptions": {"args": ARGUMENTS},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            start = Browser(f"http://127.0.0.1:{port}/session")
            started = start.call("POST", "", capabilities={"alwaysMatch": wanted})
            session = Browser(f"{start.url}/{started['sessionId']}")
            try:
                yield session
            finally:
                session.call("DELETE", "")
        finally:
            driver.terminate()
