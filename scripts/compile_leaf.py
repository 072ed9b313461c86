"""The leaf of the library as machine code, made by mypyc: a hook of the build, which puts it into a wheel.

    HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip wheel --no-deps .

Without the variable it does not run, and neither mypy nor a C compiler is needed. The modules stay in the wheel as
Python, too; Python prefers the compiled ones (``docs/decisions/0074-a-compiled-leaf.md``).

``python scripts/compile_leaf.py`` compiles it in the checkout, for all tests to run on it (``make compiled``);
``--remove`` takes it away again.
"""

from __future__ import annotations

import argparse
import shutil
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
    "crdt_sessions/wire/y_sweet.py",  # a class that is interpreted cannot inherit from one that is compiled
    "crdt_sessions/sync/log.py",
    "crdt_sessions/sync/plain.py",
    "server/crdt_sessions_server/serving/framing.py",
)
"""What each token passes through, and what knows neither documents nor sockets."""
ROOT = Path(__file__).resolve().parents[1]


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


def _in_place(root: Path) -> None:
    """Compile the leaf of the checkout *root*, and put what came of it beside its sources."""
    with TemporaryDirectory() as folder:
        for path, name in _compile(root, Path(folder)).items():
            top = root / "server" if name.startswith("crdt_sessions_server/") else root
            shutil.copy(path, top / name)


def compiled(root: Path) -> list[Path]:
    """Return what is compiled in the checkout *root*."""
    folders = (root, *{(root / module).parent for module in LEAF})
    return sorted(file for folder in folders for kind in ("*.so", "*.pyd") for file in folder.glob(kind))


def main() -> None:
    """Compile in the checkout, or take away what was compiled."""
    parser = argparse.ArgumentParser(description="Compile the leaf in this checkout.", allow_abbrev=False)
    parser.add_argument("--remove", action="store_true", help="take away what was compiled")
    chosen = parser.parse_args()
    for file in compiled(ROOT):
        file.unlink()
    if not chosen.remove:
        _in_place(ROOT)


if __name__ == "__main__":
    main()
