"""``python -m crdt_sessions_server`` is ``crdt-sessions``."""

import sys

from crdt_sessions_server.cli import main

sys.exit(main())
