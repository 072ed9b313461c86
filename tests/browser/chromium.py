"""A real Chromium, in a Node process driven over pipes."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from tests.interop.node import AVAILABLE, WHY_NOT, NodePeers
from tests.processes import PATIENCE

needs_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(not AVAILABLE, reason=WHY_NOT),
    pytest.mark.skipif(
        not any(shutil.which(name) for name in ("chromium-headless-shell", "chromium", "google-chrome")),
        reason="needs Chromium: apt-get install chromium-headless-shell",
    ),
]


def in_chromium(test):
    """Mark a test that starts a browser of its own."""
    for mark in needs_chromium:
        test = mark(test)
    return test


PHONE = {"viewport": {"width": 390, "height": 844}, "hasTouch": True, "isMobile": True}


class Chromium(NodePeers):
    """One browser; its pages are people's tabs."""

    def __init__(self):
        super().__init__(
            Path(__file__).parent / "driver.mjs", PATIENCE * 0.8
        )  # it has more to say about what never came
        self._numbers = itertools.count(1)

    def page(self, url=None, *, beside=None, cut=False, clock=False, **context):
        """Open a tab: in a browser profile of its own, or *beside* another one. With *clock*, time may be let pass."""
        page = Page(self, f"p{next(self._numbers)}")
        self("open", page=page.id, context=context, beside=beside and beside.id, clock=clock)
        if cut:
            page.cut(cut=cut)
        if url is not None:
            page.do("goto", url)
        return page


class Page:
    """A tab."""

    def __init__(self, browser, page_id):
        self._browser, self.id = browser, page_id

    def do(self, method, *args):
        """Call a method of Playwright's page."""
        return self._browser("do", page=self.id, method=method, args=args)

    def see(self, selector):
        """Wait until something is visible."""
        self._browser("see", page=self.id, selector=selector)

    def until(self, script):
        """Wait until a JavaScript expression is true."""
        self._browser("until", page=self.id, script=script)

    def says(self, text):
        """Wait until the page's visible text has *text*."""
        self.until(f"document.body.innerText.includes({text!r})")

    def eval(self, script):
        return self.do("evaluate", script)

    def text(self, selector):
        return self.do("textContent", selector)

    def click(self, selector):
        self.do("click", selector)

    def write(self, text):
        """Write a message and send it."""
        self.do("fill", "textarea", text)
        self.do("press", "textarea", "Enter")

    def pass_time(self, seconds):
        self._browser("pass", page=self.id, ms=seconds * 1000)

    def press(self, key):
        self._browser("key", page=self.id, key=key)

    def count(self, selector):
        return self.eval(f"document.querySelectorAll({selector!r}).length")

    def cut(self, *, cut):
        self._browser("cut", page=self.id, cut=cut)

    def axe(self):
        return self._browser("axe", page=self.id)

    def shot(self, name):
        """Take a picture into the folder that SHOTS names, for somebody who wants to look."""
        if folder := os.environ.get("SHOTS"):
            self.do("screenshot", {"path": f"{folder}/{name}"})

    def errors(self):
        return self._browser("errors", page=self.id)

    def close(self):
        self._browser("close", page=self.id)
