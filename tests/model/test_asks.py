"""Forms: which ones people can be shown, and which answers fit them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from crdt_sessions.errors import BadValue
from crdt_sessions.model import ApprovalRequest, Decision, check_form, why_no_answer, why_unfit
from crdt_sessions.model.asks import ANSWER_VALUES, DEPTH

HOTEL = {
    "type": "object",
    "properties": {
        "nights": {"type": "integer", "minimum": 1, "maximum": 14, "default": 2},
        "room": {"oneOf": [{"const": "single", "title": "Single"}, {"const": "double", "title": "Double"}]},
        "name": {"type": "string", "minLength": 1},
        "extras": {"type": "array", "items": {"enum": ["breakfast", "parking"]}, "uniqueItems": True},
    },
    "required": ["nights", "name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"pattern": "(a+)+$"}, "schema"),
        ({"$ref": "https://example.com/evil.json"}, "schema"),
        ({"properties": {"a": {"$ref": "#"}}}, "schema.properties.a"),
        ({"patternProperties": {".*": {}}}, "schema"),
        ({"items": {"not": {}}}, "schema.items"),
        ({"oneOf": [{"type": "string"}]}, "schema.oneOf"),
        ({"additionalProperties": {"type": "string"}}, "schema.additionalProperties"),
        ({"type": "text"}, "schema.type"),
        ({"minimum": "1"}, "schema.minimum"),
        ({"title": "x" * 20_000}, "schema"),
        ([], "schema"),
    ],
)
def test_unsupported_parts_of_a_form_are_refused_and_named(schema, where):
    with pytest.raises(BadValue) as refused:
        check_form(schema)
    assert refused.value.where == where


def test_a_form_that_is_nested_too_deeply_is_refused():
    schema = {"type": "string"}
    for _ in range(DEPTH):
        schema = {"type": "array", "items": schema}
    with pytest.raises(BadValue, match="nested"):
        check_form(schema)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"nights": 2, "name": "Ann"}, None),
        ({"nights": 2, "name": "Ann", "room": "double", "extras": ["parking"]}, None),
        ({"nights": 0, "name": "Ann"}, "nights: 0 is less than the minimum of 1"),
        ({"nights": 2}, "'name' is a required property"),
        ({"nights": 2, "name": "Ann", "pets": 1}, "Additional properties are not allowed ('pets' was unexpected)"),
        ({"nights": 2, "name": "Ann", "room": "suite"}, "room: 'suite' is not valid under any of the given schemas"),
        ({"nights": 2, "name": "Ann", "extras": ["parking", "parking"]}, "has non-unique elements"),
        ("two", "'two' is not of type 'object'"),
    ],
)
def test_an_answer_must_fit_its_form(value, why):
    said = why_unfit(value, check_form(HOTEL))
    assert (said is None) if why is None else (why in said)


@pytest.mark.parametrize("value", [[0] * ANSWER_VALUES, "x" * 70_000, [[[[[[[[[[1]]]]]]]]]], {"a": 2**60}])
def test_an_answer_has_bounds_whatever_the_form_says(value):
    assert why_unfit(value, None) is not None


LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner))


@given(VALUES, st.sampled_from([HOTEL, {"enum": [1, "a", None]}, {"type": ["string", "null"]}, {}]))
def test_answers_are_judged_as_json_schema_says(value, schema):
    try:
        json.dumps(value)
        expected = Draft202012Validator(schema).is_valid(value)
    except ValueError:
        return
    assert (why_unfit(value, schema) is None) == expected


@pytest.mark.parametrize(
    ("request_", "said", "fits"),
    [
        ({}, {"approved": True}, True),
        ({}, {"approved": True, "value": 1}, False),
        ({"kind": "choose", "schema": {"enum": ["a", "b"]}}, {"approved": True, "value": "a"}, True),
        ({"kind": "choose", "schema": {"enum": ["a", "b"]}}, {"approved": True, "value": "c"}, False),
        ({"kind": "choose", "schema": {"enum": ["a", "b"]}}, {"approved": True}, False),
        ({"kind": "choose", "schema": {"enum": ["a", "b"]}}, {"approved": False}, True),
        ({"kind": "edit"}, {"approved": True}, True),
        ({"kind": "edit"}, {"approved": True, "value": {"seat": 2}}, True),
        ({"kind": "edit", "schema": HOTEL}, {"approved": True, "value": {"seat": 2}}, False),
    ],
)
def test_a_decision_must_fit_its_kind_of_request(request_, said, fits):
    request = ApprovalRequest.model_validate({"requestedAt": 1, **request_})
    assert (why_no_answer(request, Decision.model_validate({"at": 2, **said})) is None) == fits


@pytest.mark.parametrize(
    "request_",
    [
        {"kind": "form"},
        {"schema": HOTEL},
        {"default": True},
        {"kind": "choose", "schema": {"enum": ["a"]}, "default": "b"},
        {"kind": "form", "schema": {"pattern": "x"}},
        {"kind": "guess"},
    ],
)
def test_a_question_that_makes_no_sense_is_refused(request_):
    with pytest.raises(ValidationError):
        ApprovalRequest.model_validate({"requestedAt": 1, **request_})


def test_a_question_of_an_earlier_release_reads_as_before():
    old = {"approvers": ["ann"], "needs": "any", "requestedAt": 5}
    assert ApprovalRequest.model_validate(old).json_value() == old
