"""The figures that ``/metrics`` tells, as Prometheus' library wants them."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from crdt_sessions.ids import tenant_of
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.runtime.load import LATE_S
from crdt_sessions_server.auth import Admission
from crdt_sessions_server.http.request_forwarding import Traffic, current_forwarder


def told(registry: SessionRegistry, admission: Admission, tenant: str | None) -> bytes:
    """Return the figures of a tenant, in Prometheus' text format; of all, and of the process, if None."""
    collectors = CollectorRegistry()
    collectors.register(_Figures(registry, admission, tenant))
    return generate_latest(collectors)


class _Figures(Collector):
    def __init__(self, registry: SessionRegistry, admission: Admission, tenant: str | None) -> None:
        self._registry = registry
        self._admission = admission
        self._tenant = tenant

    def collect(self) -> Iterable[Metric]:
        """Yield all figures."""
        registry = self._registry
        live = Counter(tenant_of(session.id) for session in registry.live)
        yield self._by_tenant("crdt_sessions_live", "Sessions in memory.", live)
        yield self._by_tenant("crdt_sessions_connections", "WebSocket connections.", registry.capacity.by_tenant)
        broken = CounterMetricFamily(
            "crdt_sessions_violations", "Writes that were refused or put back, by rule.", labels=["tenant", "rule"]
        )
        for (tenant, rule), count in registry.audit.violations.items():
            if self._tenant in (None, tenant):
                broken.add_metric([tenant, rule], count)
        yield broken
        if self._tenant is None:
            yield from self._of_the_process()

    def _by_tenant(self, name: str, what: str, counts: Counter[str]) -> Metric:
        family = GaugeMetricFamily(name, what, labels=["tenant"])
        for tenant, count in counts.items():
            if self._tenant in (None, tenant):
                family.add_metric([tenant], count)
        return family

    def _of_the_process(self) -> Iterable[Metric]:
        if node := self._registry.store.node:
            labels = {"node": node, "name": socket.gethostname(), "version": version("crdt-sessions")}
            which = GaugeMetricFamily(
                "crdt_sessions_node", "Which of the nodes this is: see crdt-sessions nodes.", labels=list(labels)
            )
            which.add_metric(list(labels.values()), 1)
            yield which
        if (forwarder := current_forwarder()) is not None:
            yield from _of_other_nodes(forwarder.traffic)
        refused = CounterMetricFamily(
            "crdt_sessions_refused", "Requests that were turned away at the door, by error.", labels=["error"]
        )
        for error, count in self._admission.refused.items():
            refused.add_metric([error], count)
        yield refused
        yield GaugeMetricFamily(
            "crdt_sessions_quarantined", "Sessions that cannot be loaded.", value=len(self._registry.quarantined)
        )
        if (load := self._registry.capacity.load) is not None:
            bounds = [*map(str, LATE_S), "+Inf"]
            yield HistogramMetricFamily(
                "crdt_sessions_loop_lag_seconds",
                "How late the event loop was, looked at ten times a second.",
                buckets=list(zip(bounds, accumulate(load.late), strict=True)),
                sum_value=load.late_s,
            )
        storing = self._registry.health.error is None
        yield GaugeMetricFamily("crdt_sessions_storing", "1 while the store takes writes.", value=int(storing))


def _of_other_nodes(traffic: Traffic) -> Iterable[Metric]:
    passed = CounterMetricFamily(
        "crdt_sessions_passed_on", "What was passed on to the nodes that have the sessions, by kind.", labels=["kind"]
    )
    failed = CounterMetricFamily(
        "crdt_sessions_hop_errors", "What went wrong on the way to another node, by reason.", labels=["reason"]
    )
    for family, counts in ((passed, traffic.passed), (failed, traffic.failed)):
        for label, count in counts.items():
            family.add_metric([label], count)
        yield family
    yield GaugeMetricFamily(
        "crdt_sessions_passed_on_sockets", "WebSockets that are passed on to other nodes now.", value=traffic.open
    )
