"""Somebody who does what a page says, to the letter, and looks whether what it promises comes about."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.docs.page import Block, blocks, pattern
from tests.processes import PATIENCE, ROOT, Process, free_port

_PORT = re.compile(r"((?:127\.0\.0\.1|0\.0\.0\.0|localhost)(?::|\", )|--port )(\d{4,5})\b")
_SHELL = re.compile(r"[|&;<>$`()\n]")
PACKAGES = ROOT / "tests/gateways/js/node_modules"
"""What the pages install is there."""


def link_packages(installed: Path, folder: Path) -> None:
    """Make *folder* have the npm packages of another one, and a ``node_modules`` of its own for what tools keep there."""
    own = folder / "node_modules"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    for each in installed.iterdir():
        if not each.name.startswith(".") or each.name == ".bin":
            (own / each.name).symlink_to(each)


class Reader:
    """A reader with a folder and terminals of their own. Ports that a page names are others for each reader.

    Programs are those of the project's environment, and Python ones are forked from a process that has imported
    them; to install something is to look whether it is there.

    Args:
        folder: an empty one.
        env: what the reader has in the environment, such as the key of a model.
    """

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self._ports: dict[str, str] = {}
        self._terminals: dict[str, Process] = {}
        self._read: dict[str, int] = {}
        """How many lines of a terminal were looked at."""
        self._last: Block | None = None
        self._printed = ""
        self._env = {
            **os.environ,
            **env,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "CRDT_SESSIONS_PORT": self._port("8000"),
        }

    def follow(self, blocks: list[Block]) -> None:
        """Do what the blocks say, one after the other.

        Raises:
            AssertionError: something does not come about as the page says.
        """
        for block in blocks:
            if not {"tested", "not-run"} & set(block.options):
                try:
                    self._do(block)
                except (AssertionError, ValueError) as error:
                    raise AssertionError(f"{block.place}: {error}") from error

    def close(self) -> None:
        """End what still runs."""
        for terminal in self._terminals.values():
            terminal.close()

    # -- what blocks ask for ---------------------------------------------------------------------------------------

    def _do(self, block: Block) -> None:
        options, text = block.options, self._mapped(block.text)
        if "output" in options:
            self._look(options["output"], text)
        if "file" in options:
            path = self.folder / options["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        elif block.language == "sh":
            by_hand = {"kill": self._kill, "interrupt": self._interrupt, "read": self._look, "copy": self._copy}
            word, _, rest = text.strip().partition(" ")
            if block.hidden and word in by_hand:
                by_hand[word](*rest.split(" ", 1))
            elif "terminal" in options:
                self._start(options["terminal"], text.strip())
            else:
                self._type(text)

    def _look(self, terminal: str, expected: str) -> None:
        """See what is expected in a terminal, below what was seen there; or as all that was printed last."""
        if terminal:
            seen = self._terminals[terminal].wait_for_lines(pattern(expected), after=self._read[terminal])
            self._read[terminal] = seen
        else:
            assert re.fullmatch(pattern(expected), self._printed), f"printed was\n{self._printed}"

    def _start(self, terminal: str, command: str) -> None:
        """Begin what goes on; what the terminal had before is to have ended."""
        if terminal in self._terminals:
            self._terminals[terminal].child.wait(PATIENCE)
            self._terminals[terminal].close()
        self._terminals[terminal] = self._process(command)
        self._read[terminal] = 0

    def _type(self, text: str) -> None:
        """Run commands to their ends, which are to be good ones."""
        commands = text.replace("\\\n", "").strip()
        self._printed = ""
        for command in [commands] if _SHELL.search(commands.replace("\n", "")) else commands.split("\n"):
            if self._installs(command):
                continue
            process = self._process(command)
            try:
                status = process.child.wait(10 * PATIENCE if " install " in command else PATIENCE)
            finally:
                process.close()
            said = "".join(f"{line.rstrip()}\n" for line in process.lines)
            assert status == 0, f"{command!r} ended with {status}:\n{said}"
            self._printed += "" if " install " in command else said
            self._keep_variables()

    def _copy(self, name: str, rest: str) -> None:
        """Take a file that another page has."""
        page = ROOT / rest.removeprefix("from ")
        (found,) = (block for block in blocks(page) if block.options.get("file") == name)
        self._do(found)

    def _keep_variables(self) -> None:
        """What a command has set is there in the next one."""
        with contextlib.suppress(FileNotFoundError):
            said = (self.folder / ".variables").read_text("utf-8")
            self._env |= dict(line.split("=", 1) for line in said.rstrip("\0").split("\0"))

    def _kill(self, terminal: str) -> None:
        """Kill -9 what runs in a terminal."""
        self._terminals[terminal].kill()

    def _interrupt(self, terminal: str) -> None:
        """Press Ctrl-C in a terminal; what runs there ends."""
        self._terminals[terminal].child.send_signal(signal.SIGINT)
        self._terminals[terminal].child.wait(PATIENCE)

    # -- how programs are run --------------------------------------------------------------------------------------

    def _process(self, command: str) -> Process:
        if _SHELL.search(command):
            script = f"set -ea\n{command}\nenv -0 > .variables"
            return Process("bash", "-c", script, env=self._env, folder=self.folder, group=True)
        return self._program(*shlex.split(command))

    def _program(self, name: str, *arguments: str) -> Process:
        if name == "crdt-sessions":
            name, arguments = "python", ("-m", "crdt_sessions_server", *arguments)
        if name == "python":
            return Process(sys.executable, *arguments, env=self._env, fork=True, folder=self.folder)
        return Process(name, *arguments, env=self._env, folder=self.folder)

    def _installs(self, command: str) -> bool:
        """Whether the command installs something, which is to be there then."""
        words = shlex.split(command)
        if words[:2] == ["pip", "install"]:
            for word in words[2:]:
                self._has_python_package(Requirement(word))
            return True
        if words[:2] == ["npm", "install"]:
            self._link_node_packages([word for word in words[2:] if not word.startswith("-")])
            return True
        return False

    def _has_python_package(self, wanted: Requirement) -> None:
        found = distribution(wanted.name)
        for line in found.requires or ():
            needed = Requirement(line)
            if any(needed.marker is None or needed.marker.evaluate({"extra": extra}) for extra in wanted.extras):
                try:
                    distribution(needed.name)
                except PackageNotFoundError:
                    raise AssertionError(f"{wanted} needs {needed}, which is not installed") from None

    def _link_node_packages(self, names: list[str]) -> None:
        missing = [name for name in names if not (PACKAGES / name).is_dir()]
        assert missing == [], f"{PACKAGES.parent}/package.json lacks {', '.join(missing)}"
        link_packages(PACKAGES, self.folder)

    # -- ports -----------------------------------------------------------------------------------------------------

    def _mapped(self, text: str) -> str:
        return _PORT.sub(lambda match: match[1] + self._port(match[2]), text)

    def _port(self, named: str) -> str:
        if named not in self._ports:
            self._ports[named] = str(free_port())
        return self._ports[named]


class FreshReader(Reader):
    """A reader with an empty virtual environment and an empty folder: only what the page installs is there.

    Whoever reads a how-to has installed the project before.

    Args:
        folder: an empty one.
        env: what the reader has in the environment.
        wheels: where the wheel of the project lies, which no index has.
    """

    def __init__(self, folder: Path, env: dict[str, str], wheels: Path) -> None:
        super().__init__(folder, env)
        programs = folder / ".venv/bin"
        subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True, timeout=PATIENCE)
        (wheel,) = wheels.glob("*.whl")
        constraint = folder / ".venv/constraint.txt"
        constraint.write_text(f"crdt-sessions == {wheel.name.split('-')[1]}\n", "utf-8")
        for name in [name for name in self._env if name.startswith("PYTHON")]:
            del self._env[name]
        self._env |= {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PIP_CONSTRAINT": str(constraint),
            "PIP_FIND_LINKS": str(wheels),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "npm_config_audit": "false",
            "npm_config_fund": "false",
        }

    def follow(self, blocks: list[Block]) -> None:
        """See :meth:`Reader.follow`."""
        if not any("pip install 'crdt-sessions" in block.text for block in blocks):
            self._type("pip install --quiet 'crdt-sessions[server]'")
        super().follow(blocks)

    def _installs(self, command: str) -> bool:
        return False

    def _program(self, name: str, *arguments: str) -> Process:
        program = shutil.which(name, path=self._env["PATH"])
        assert program is not None, f"there is no program {name}"
        return Process(program, *arguments, env=self._env, folder=self.folder)
