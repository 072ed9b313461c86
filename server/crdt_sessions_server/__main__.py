"""``crdt-sessions`` and ``python -m crdt_sessions_server``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line, or say what to install if the service's packages are missing."""
    try:
        from crdt_sessions_server.cli import main as run
    except ModuleNotFoundError as error:
        print(  # noqa: T201 - there is nothing else to tell it with yet
            f"crdt-sessions: {error.name} is missing; the service needs: pip install 'crdt-sessions[server]'",
            file=sys.stderr,
        )
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
