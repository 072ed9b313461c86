"""The contract of stores, as test classes to inherit from: one for each concern, and two for a whole store.

::

    class TestMyStore(DurableStoreContract):
        @asynccontextmanager
        async def open(self, path):
            async with MyStore(path / "x") as store:
                yield store

:class:`StoreContract` is everything that an :class:`UpdateStore` promises, :class:`DurableStoreContract` is for one
that outlives its process. Each of the others is for one of the Protocols that :class:`UpdateStore` is made of; most
of them create sessions, so they need a :class:`SessionLog` beside. A store whose lists and audit log may be behind
for a moment overrides :meth:`StoreSuite.settle`.

Needs pytest with anyio's plugin in ``auto`` mode, or any other runner of coroutine tests.
"""

from crdt_sessions.testing.store_contract.access import AccessContract
from crdt_sessions.testing.store_contract.audit import AuditContract
from crdt_sessions.testing.store_contract.changes import ChangesContract
from crdt_sessions.testing.store_contract.deliveries import DeliveryContract
from crdt_sessions.testing.store_contract.durable import DurableStoreContract
from crdt_sessions.testing.store_contract.index import IndexContract
from crdt_sessions.testing.store_contract.log import LogContract
from crdt_sessions.testing.store_contract.runs import RunContract
from crdt_sessions.testing.store_contract.streams import StreamContract
from crdt_sessions.testing.store_contract.suite import KEEP, NOW, A, B, StoreSuite, delivery, rows, run
from crdt_sessions.testing.store_contract.usage import UsageContract
from crdt_sessions.testing.store_contract.versions import VersionContract
from crdt_sessions.testing.store_contract.whole import StoreContract

__all__ = [
    "KEEP",
    "NOW",
    "A",
    "AccessContract",
    "AuditContract",
    "B",
    "ChangesContract",
    "DeliveryContract",
    "DurableStoreContract",
    "IndexContract",
    "LogContract",
    "RunContract",
    "StoreContract",
    "StoreSuite",
    "StreamContract",
    "UsageContract",
    "VersionContract",
    "delivery",
    "rows",
    "run",
]
