"""``crdt-sessions`` and ``python -m crdt_sessions_server``."""

from __future__ import annotations

import sys

_INTERRUPTED = 128 + 2
"""What shells say of a command that SIGINT ended."""


def main() -> int:
    """Run the command line, or say what to install if the service's packages are missing."""
    extra = "mcp" if sys.argv[1:2] == ["mcp"] else "server"
    try:
        if extra == "mcp":  # which is of use where there is no service
            from crdt_sessions_server.mcp.command import main as run
        else:
            from crdt_sessions_server.cli import main as run
        return run()  # a command imports what it needs
    except ModuleNotFoundError as error:
        needs = "the service" if extra == "server" else "crdt-sessions mcp"
        print(  # noqa: T201 - there is nothing else to tell it with yet
            f"crdt-sessions: {error.name} is missing; {needs} needs: pip install 'crdt-sessions[{extra}]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
