"""The build hook that puts the leaf of the library into a wheel as machine code, made by mypyc.

    HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip wheel --no-deps .

Without the variable it does not run, and neither mypy nor a C compiler is needed. The modules stay in the wheel as
Python, too; Python prefers the compiled ones (``docs/decisions/0074-a-compiled-leaf.md``).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LEAF = (
    "crdt_sessions/wire/varint.py",
    "crdt_sessions/wire/any_value.py",
    "crdt_sessions/wire/frames.py",
    "crdt_sessions/wire/update_v1.py",
    "crdt_sessions/wire/insertions.py",
    "crdt_sessions/wire/codec.py",
    "crdt_sessions/sync/log.py",
    "crdt_sessions/sync/plain.py",
    "server/crdt_sessions_server/serving/framing.py",
)
"""What each token passes through, and what knows neither documents nor sockets."""


class CompiledLeaf(BuildHookInterface[Any]):
    """Compiles :data:`LEAF`, and has the wheel say for which interpreter and system it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add what came of it to the wheel. An editable install stays Python, since it is edited."""
        if version == "editable":
            self.app.display_warning("an editable install is not compiled")
            return
        self._folder = TemporaryDirectory()
        compiled = _compile(Path(self.root), Path(self._folder.name))
        build_data["force_include"].update({str(path): name for path, name in compiled.items()})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built outside the wheel."""
        if version != "editable":
            self._folder.cleanup()


def _compile(root: Path, folder: Path) -> dict[Path, str]:
    """Compile the leaf of the checkout *root* in *folder*; return the files, and where they belong in a wheel."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    # Types of other modules are not looked at: `make check` does, and this then needs none of the dependencies.
    checks = [
        "--config-file=",
        f"--cache-dir={folder / 'cache'}",
        "--follow-imports=skip",
        "--ignore-missing-imports",
    ]
    extensions = mypycify(
        [*checks, *(str(root / module) for module in LEAF)],
        opt_level="2",
        debug_level="0",
        group_name="crdt_sessions",
        target_dir=str(folder / "c"),
    )
    build = build_ext(Distribution({"ext_modules": extensions}))
    build.build_lib, build.build_temp = str(folder / "lib"), str(folder / "temp")
    build.ensure_finalized()
    build.run()
    library = folder / "lib"
    return {path: str(path.relative_to(library)) for path in library.rglob("*") if path.is_file()}
