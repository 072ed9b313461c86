"""Takes the picture of the README: the demo with two people, two agents, an approval and the shared notes.

    .venv/bin/python -m tests.browser.picture [FOLDER]

It starts the demo on an empty database, plays Ann and Bob in Chromium, and writes ``demo.png`` and ``demo-dark.png``.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.browser.chromium import Chromium
from tests.processes import PATIENCE, ROOT, Process, free_port

SIZE = {"width": 1280, "height": 900}
IN_NOTES = "document.querySelector('#editor .cm-content').innerText.includes"


def play(ann, bob):
    """Have the two of them do what the picture shows; leave it where Bob is asked to decide."""
    for page, other in ((ann, "Bob"), (bob, "Ann")):
        page.see("#status.good")
        page.see(f'#present li[data-name="{other}"]')
        for agent in ("assistant", "planner"):
            page.see(f'#present li[data-name="{agent}"]')
    ann.click("#editor .cm-content")
    ann.do("type", "#editor .cm-content", "Meet at the Opera, Friday at six.\n\n")
    bob.click("button.suggestion:has-text('packing list')")
    bob.until(f"{IN_NOTES}('excellent') && !document.querySelector('.message.writing')")
    ann.write("What do we do if it rains?")
    bob.until("document.body.innerText.includes('any weather') && !document.querySelector('.message.writing')")
    ann.click("#editor .cm-content")
    ann.press("Control+End")
    ann.do("type", "#editor .cm-content", "\nAnn brings the thermos, Bob the map")
    bob.until(f"{IN_NOTES}('the map')")
    bob.click("button.suggestion:has-text('Book two seats')")
    bob.see(".question button")
    bob.until("!document.querySelector('.message.writing')")
    bob.do("hover", ".cm-ySelectionCaret")


def main(folder: Path) -> None:
    """Play and take the pictures."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        demo = Process(
            sys.executable, ROOT / "examples/demo.py", "--port", free_port(), "--database", scratch / "d.db",
            "--rate", "60",
        )  # fmt: skip
        stack.callback(demo.terminate)
        chromium = Chromium()
        stack.callback(chromium.close)
        url = demo.wait_for(r"Ann +(http\S+)&as=Ann", 3 * PATIENCE)[1]
        ann = chromium.page(f"{url}&as=Ann", viewport=SIZE)
        bob = chromium.page(f"{url}&as=Bob", viewport=SIZE, deviceScaleFactor=2, reducedMotion="reduce")
        play(ann, bob)
        for scheme, name in (("light", "demo.png"), ("dark", "demo-dark.png")):
            bob.do("emulateMedia", {"colorScheme": scheme})
            bob.do("screenshot", {"path": str(folder / name), "animations": "disabled", "caret": "hide"})
            print(folder / name, flush=True)
        if errors := ann.errors() + bob.errors():
            sys.exit(f"the console of the pages says: {errors}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/images")
