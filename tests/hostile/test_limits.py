"""Every limit has its case, its code and its place in the documents."""

import dataclasses
import re

import pytest

from crdt_sessions.limits import Limits, RunRules, Timing
from crdt_sessions_server.settings import Settings
from tests.processes import ROOT

TABLE = ROOT / "docs/reference/limits.md"


def rows():
    for line in TABLE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if found := re.fullmatch(r"`(\w+)`", cells[0]):
            yield found.group(1), cells[1:]


def test_the_table_of_limits_is_what_the_code_says():
    documented = dict(rows())
    fields = {field.name: field.default for field in dataclasses.fields(Limits)}
    assert set(documented) == set(fields)
    for name, (default, what_happens, _) in documented.items():
        assert default == f"{fields[name]:g}" if isinstance(fields[name], float) else default == str(fields[name])
        assert what_happens, name


def test_every_limit_names_a_test_that_exceeds_it():
    for name, (_, _, where) in rows():
        found = re.fullmatch(r"`(tests/[\w/]+\.py)::(\w+)`", where)
        assert found, f"{name}: {where}"
        source = (ROOT / found.group(1)).read_text("utf-8")
        assert re.search(rf"def {found.group(2)}\b", source), f"{name}: there is no {where}"


def test_limits_that_operators_tune_are_settings():
    internal = {"max_unread_acks", "max_ack_bytes", "max_presences_per_connection"}
    assert {field.name for field in dataclasses.fields(Limits)} - internal <= set(Settings.model_fields)


def test_what_the_settings_say_reaches_the_library():
    changed = {field.name: field.default + 1 for field in dataclasses.fields(Limits)}
    settings = Settings(**{name: value for name, value in changed.items() if name in Settings.model_fields})
    for name, value in changed.items():
        if name in Settings.model_fields:
            assert getattr(settings.limits, name) == value


@pytest.mark.parametrize("group", [Limits, Timing, RunRules])
def test_a_setting_that_the_library_has_too_is_declared_there_only(group):
    shared = [field for field in dataclasses.fields(group) if field.name in Settings.model_fields]
    assert len(shared) > 2
    for field in shared:
        setting = Settings.model_fields[field.name]
        if field.name != "default_agent":  # the service answers by whoever is there, a library does not
            assert (setting.default, setting.description) == (field.default, field.metadata["text"])
        for bound, number in field.metadata["least"].items():
            assert number in [getattr(each, bound, None) for each in setting.metadata]
