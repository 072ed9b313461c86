"""Presence over REST is of the principal whose token it is, as presence from sockets is."""

import httpx

from tests.access.conftest import bearer


def client(service, *who):
    return httpx.Client(base_url=service.url, headers=bearer(*who), timeout=60)


def here(http, room):
    return [each["state"]["user"] for each in http.get(f"/v1/sessions/{room}/presence").json()["present"]]


def test_one_is_present_as_oneself_and_a_backend_as_its_users(service, room):
    url = f"/v1/sessions/{room}/presence"
    with client(service, "back", "service") as back, client(service, "vera", "viewer") as vera:
        back.post("/v1/sessions", json={"id": room})
        for body in ({"state": {"user": {"id": "bob"}}}, {"principal": "bob"}):
            assert vera.put(url, json=body).status_code == 403
        assert vera.put(url, json={"state": {"user": {"name": "Vera V."}}}).status_code == 200
        assert back.put(url, json={"principal": "bob"}).status_code == 200
        assert sorted(each["id"] for each in here(back, room)) == ["bob", "vera"]
        assert vera.delete(url, params={"principal": "bob"}).status_code == 403
        assert vera.delete(url).status_code == 204
        assert [each["id"] for each in here(back, room)] == ["bob"]


def test_who_is_erased_or_has_another_role_is_present_no_more(service, room):
    url = f"/v1/sessions/{room}/presence"
    with client(service, "back", "service") as back:
        back.post("/v1/sessions", json={"id": room})
        back.put(url, json={"principal": "carl"})
        assert back.delete("/v1/principals/carl").json()["presences"] == 1
        assert here(back, room) == []
