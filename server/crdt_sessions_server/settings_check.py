"""Whether settings agree with each other: what each must be by itself stands where it is declared."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from crdt_sessions_server.cluster.addresses import Address
from crdt_sessions_server.cluster.hop import MIN_SECRET_BYTES
from crdt_sessions_server.settings import Settings

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/")
"""How a URL begins that was taken for the name of a file. The drives of Windows have one letter."""


def check_settings(settings: Settings) -> None:
    """Return if *settings* agree with each other.

    Raises:
        ValueError: they do not; the message says what to do.
    """
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise ValueError("TLS takes both: --tls-certificate and --tls-key")
    if settings.jwks_url is not None and settings.jwks_file is not None:
        raise ValueError("the issuer's keys come from one place: --jwks-url or --jwks-file")
    if settings.durability == "quorum" and isinstance(settings.database, Path):
        raise ValueError("a SQLite file has no standby: --durability quorum goes with --database postgresql://...")
    _check_database(settings.database)
    _check_cluster(settings)
    _check_workers(settings)


def _check_database(database: Path | str) -> None:
    scheme = _SCHEME.match(str(database))
    if isinstance(database, Path) and scheme is not None:
        raise ValueError(
            f"--database is the name of a SQLite file, such as sessions.db, or postgresql://...; there is no store"
            f" for {scheme[1]}"
        )


def _check_workers(settings: Settings) -> None:
    if settings.workers > 1 and isinstance(settings.database, Path):
        raise ValueError(
            "one process owns a SQLite file: --workers goes with --database postgresql://..., which several"
            " nodes share; crdt-sessions import moves a file there"
        )
    if (settings.workers > 1 or settings.reuse_port) and sys.platform != "linux":
        raise ValueError("--workers and --reuse-port need Linux, which spreads connections over processes")


def _check_cluster(settings: Settings) -> None:
    given = [settings.cluster_listen, settings.cluster_address, settings.cluster_secret_file]
    if all(each is None for each in given):
        return
    if settings.cluster_listen is None or settings.cluster_secret_file is None:
        raise ValueError("a node that others reach takes both: --cluster-listen and --cluster-secret-file")
    if isinstance(settings.database, Path):
        raise ValueError(
            "one process owns a SQLite file: --cluster-listen goes with --database postgresql://..., which"
            " several nodes share"
        )
    if Address.parse(settings.cluster_listen).anywhere and settings.cluster_address is None:
        raise ValueError(
            f"nobody can reach {settings.cluster_listen} from elsewhere: say with --cluster-address where others"
            " reach this node"
        )
    if settings.cluster_address is not None:
        Address.parse(settings.cluster_address)
    if len(settings.cluster_secret) < MIN_SECRET_BYTES:
        raise ValueError(f"--cluster-secret-file holds less than {MIN_SECRET_BYTES} bytes")
