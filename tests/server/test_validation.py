"""The decorators that hold bodies, queries and answers against models, on an application of their own."""

import pytest
from pydantic import TypeAdapter

from crdt_sessions_server.http import problem_documents
from crdt_sessions_server.http.describing import described, tag
from crdt_sessions_server.http.schemas import Answer, Api, Body, Query
from crdt_sessions_server.http.validation import (
    validate_later,
    validate_querystring,
    validate_request,
    validate_response,
)


class Order(Body):
    size: int
    note: str | None = None


class Which(Query):
    one: int = 0
    many: list[str] | None = None


class Receipt(Answer):
    paid_by: str
    note: str | None = None
    kinds: frozenset[str] = frozenset()


@pytest.fixture
def app():
    app = Api(__name__)
    problem_documents.install(app)

    @app.post("/orders")
    @validate_request(Order)
    @validate_response(Receipt, 201)
    async def order(data):
        made = {"paid_by": "Ann", "note": data.note} if data.size else Receipt(paid_by="nobody", kinds={"a"})
        return made, 201 if data.size < 5 else 202, {"X-Size": str(data.size)}

    @app.get("/orders")
    @validate_querystring(Which)
    async def orders(query_args):
        return [query_args, {"none": None}]

    return app


async def test_a_body_is_given_as_a_model_and_an_answer_is_made_one(app):
    answer = await app.test_client().post("/orders", json={"size": 1})
    assert (answer.status_code, answer.headers["X-Size"]) == (201, "1")
    assert await answer.get_json() == {"paidBy": "Ann", "kinds": []}
    answer = await app.test_client().post("/orders", json={"size": 0})
    assert await answer.get_json() == {"paidBy": "nobody", "kinds": ["a"]}


async def test_an_answer_of_another_status_is_what_the_function_returned(app):
    answer = await app.test_client().post("/orders", json={"size": 5, "note": "x"})
    assert (answer.status_code, await answer.get_json()) == (202, {"paid_by": "Ann", "note": "x"})


async def test_a_query_is_given_as_a_model_and_what_it_says_twice_is_a_list(app):
    answer = await app.test_client().get("/orders?one=3&many=a&many=b&token=t")
    assert await answer.get_json() == [{"one": 3, "many": ["a", "b"]}, {"none": None}]


async def test_what_does_not_fit_is_refused_with_its_fields(app):
    answer = await app.test_client().post("/orders", json={"size": "many"})
    told = await answer.get_json(force=True)
    assert (answer.status_code, [each["field"] for each in told["errors"]]) == (422, ["size"])
    answer = await app.test_client().get("/orders?one=x&two=2")
    told = await answer.get_json(force=True)
    assert (answer.status_code, [each["field"] for each in told["errors"]]) == (422, ["one", "two"])
    told = await (await app.test_client().post("/orders", json=[1])).get_json(force=True)
    assert "the body should be a JSON object" in told["detail"]


async def test_no_request_makes_a_validator_of_its_own(app, monkeypatch):
    """To make one took a hundred times what it takes to use one."""
    made = []
    monkeypatch.setattr(TypeAdapter, "__init__", lambda *args, **given: made.append(args))
    client = app.test_client()
    assert (await client.post("/orders", json={"size": 1})).status_code == 201
    assert (await client.get("/orders?one=3&many=a&many=b")).status_code == 200
    assert made == []


async def test_a_model_can_be_imported_when_the_first_request_comes(app):
    asked = []

    @app.post("/later")
    @tag(["orders"])
    @validate_later(lambda: asked.append("imported") or Order)
    async def later(data):
        return {"size": data.size}

    assert asked == []
    assert await (await app.test_client().post("/later", json={"size": 2})).get_json() == {"size": 2}
    assert asked == ["imported"]
    assert (described(later).tags, described(later).request()) == (["orders"], Order)
