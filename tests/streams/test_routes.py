"""What the service adds to the protocol: limits, problem documents, audit; and what bad requests get."""

import gzip
import socket

import pytest

from tests.processes import PROBLEM

TEXT = {"Content-Type": "text/plain"}

ODD = ["", " ", "x", "-1", "1.0", "01", "9" * 400, "true", "\x7f", "é", "a,b", "2024-13-99T99:99:99Z", "0_0", "null"]
HEADERS = [
    "Content-Type", "Stream-TTL", "Stream-Expires-At", "Stream-Closed", "Stream-Seq", "Producer-Id", "Producer-Epoch",
    "Producer-Seq", "Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset", "If-None-Match",
]  # fmt: skip


def slug(answer):
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return answer.status_code, answer.json()["type"].removeprefix(PROBLEM)


def test_what_was_written_is_read(http, path):
    made = http.put(path, headers=TEXT, content="Hello")
    assert (made.status_code, made.headers["Location"]) == (201, str(made.url))
    assert http.post(path, headers=TEXT, content=" world").status_code == 204
    assert http.get(path).text == "Hello world"
    assert http.get(path, params={"offset": made.headers["Stream-Next-Offset"]}).text == " world"
    assert http.get(path.replace("/v1/streams/", "/v1/stream/")).text == "Hello world", "the reference's prefix"


def test_what_is_refused_is_a_problem_with_the_headers_of_the_protocol(http, path):
    assert slug(http.get(path)) == (404, "stream-not-found")
    http.put(path, headers=TEXT)
    assert slug(http.put(path, headers={"Content-Type": "a/b"})) == (409, "stream-exists")
    batch = {"Producer-Id": "p", "Producer-Epoch": "1", "Producer-Seq": "0"}
    http.post(path, headers=TEXT | batch, content="x")
    stale = http.post(path, headers=TEXT | batch | {"Producer-Epoch": "0"}, content="x")
    assert (slug(stale), stale.headers["Producer-Epoch"]) == ((403, "stale-producer"), "1")
    gap = http.post(path, headers=TEXT | batch | {"Producer-Seq": "5"}, content="x")
    assert (slug(gap), gap.headers["Producer-Expected-Seq"]) == ((409, "producer-gap"), "1")
    http.post(path, headers={"Stream-Closed": "true"})
    ended = http.post(path, headers=TEXT, content="x")
    assert (slug(ended), ended.headers["Stream-Closed"]) == ((409, "stream-ended"), "true")
    assert slug(http.get(path, params={"offset": "x"})) == (400, "bad-stream-request")
    assert slug(http.get(path, params={"offset": "-1", "live": "often"})) == (400, "bad-stream-request")


PRODUCER = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
APPENDS = [
    ({}, "x"),
    ({"Stream-Seq": "b"}, "x"),
    ({"Stream-Seq": "a"}, "x"),
    (PRODUCER, "x"),
    (PRODUCER, "x"),
    (PRODUCER | {"Producer-Seq": "7"}, "x"),
    ({"Producer-Id": "p"}, "x"),
    ({"Content-Type": "a/b"}, "x"),
    ({}, ""),
    ({"Origin": "https://elsewhere.example"}, "x"),
    ({}, "x" * 3000),
    ({"Stream-Closed": "true"}, "x"),
    ({}, "x"),
]


def test_an_append_is_answered_alike_in_front_of_the_framework_and_behind_it(http, path):
    """What is not ordinary takes the long way: here a path that has to be decoded."""
    *folders, name = path.split("/")
    ways = {name: path, f"{name}-2": "/".join([*folders, f"%{ord(name[0]):x}{name[1:]}-2"])}
    told = []
    for its_name, way in ways.items():
        assert http.put(way, headers=TEXT).status_code == 201
        answers = [http.post(way, headers=TEXT | more, content=body) for more, body in APPENDS]
        told.append([(each.status_code, each.text.replace(its_name, name), _headers(each)) for each in answers])
    assert told[0] == told[1]
    assert {status for status, _, _ in told[0]} == {200, 204, 400, 403, 409, 413}
    assert [http.get(way).text for way in ways.values()] == ["xxxx", "xxxx"]


def _headers(answer):
    other = ("date", "content-length", "connection", *(() if answer.text else ("content-type",)))
    return sorted((key, value) for key, value in answer.headers.items() if key not in other)


def test_a_compressed_append_is_inflated(http, path):
    http.put(path, headers=TEXT)
    answer = http.post(path, headers=TEXT | {"Content-Encoding": "gzip"}, content=gzip.compress(b"Hello"))
    assert (answer.status_code, http.get(path).text) == (204, "Hello")


@pytest.mark.parametrize("pieces", [[b"", b"Hello"], [b"Hel", b"lo"], [b"Hello"]])
def test_an_append_may_come_in_pieces(service, http, path, pieces):
    http.put(path, headers=TEXT)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n".encode()
        connection.sendall(head + pieces[0])
        for piece in pieces[1:]:
            assert http.get(path).text == ""  # the service has turned meanwhile
            connection.sendall(piece)
        assert connection.recv(1000).startswith(b"HTTP/1.1 204 ")
    assert http.get(path).text == "Hello"


def test_a_writer_that_leaves_appends_nothing(service, http, path):
    http.put(path, headers=TEXT)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nHel".encode()
        )
    assert http.post(path, headers=TEXT, content="lo").status_code == 204
    assert http.get(path).text == "lo"


def test_a_stream_has_a_largest_size(http, path):
    assert http.put(path, headers=TEXT, content="x" * 2000).status_code == 201
    assert http.post(path, headers=TEXT, content="x" * 48).status_code == 204
    assert slug(http.post(path, headers=TEXT, content="x")) == (413, "too-large")
    assert slug(http.put(f"{path}-2", headers=TEXT, content="x" * 2049)) == (413, "too-large")
    assert len(http.get(path).text) == 2048


def test_a_tenant_has_so_many_streams(http, path):
    made = []
    while (answer := http.put(f"{path}/{len(made)}")).status_code == 201:
        made.append(answer.url)
    assert slug(answer) == (429, "too-many")
    assert len(made) <= 40
    http.delete(made[0])
    assert http.put(f"{path}/again").status_code == 201
    for url in [*made[1:], f"{path}/again"]:
        assert http.delete(url).status_code == 204


def test_what_happens_to_streams_is_in_the_audit_log(http, path):
    http.put(path)
    http.post(path, headers={"Stream-Closed": "true"})
    http.delete(path)
    name = path.removeprefix("/v1/streams/")
    entries = http.get("/v1/audit", params={"limit": 500}).json()["entries"]
    told = [entry["action"] for entry in entries if (entry.get("detail") or {}).get("path") == name]
    assert told == ["stream.create", "stream.close", "stream.delete"]


@pytest.mark.parametrize("bad", ["sessions/x", "__ds/x", "a//b", "%2E%2E/x", "a/%2E", "a%00b", "x" * 501, ""])
def test_a_path_that_is_none_is_refused(http, bad):
    assert http.put(f"/v1/streams/{bad}").status_code in (400, 404, 405)


@pytest.mark.parametrize("name", HEADERS)
def test_odd_headers_are_refused_or_taken(http, path, name):
    for number, odd in enumerate(odd for odd in ODD if odd.strip() == odd and odd.isprintable()):
        url = f"{path}/{number}"
        headers = [(name.encode(), odd.encode())]
        for method in ("PUT", "POST", "GET", "HEAD"):
            more = [(b"Stream-Forked-From", path.encode())] if name.startswith("Stream-Fork-") else []
            content = b"x" if method in ("PUT", "POST") else None
            answer = http.request(method, url, headers=[*headers, *more], content=content)
            assert answer.status_code < 500, (method, name, odd)
        http.delete(url)


def test_odd_offsets_are_refused_or_read(http, path):
    http.put(path, headers={"Content-Type": "application/json"}, content='["é", 1]')
    for odd in [*ODD, "now", "0" * 16 + "_" + "0" * 15 + "1", "9" * 16 + "_" + "9" * 16, "-2", "NOW"]:
        for live in ({}, {"live": "long-poll"}, {"live": odd}):
            with http.stream("GET", path, params={"offset": odd, "cursor": odd, **live}) as answer:
                assert answer.status_code in (200, 204, 400), (odd, live)


def test_half_a_character_waits_for_its_other_half(http, path):
    http.put(path, headers=TEXT)
    http.post(path, headers=TEXT, content="é".encode()[:1])
    first = http.get(path)
    assert first.content == b""
    assert first.headers["Stream-Up-To-Date"] == "true", "there is no more to be told for now"
    waiting = http.get(path, params={"offset": first.headers["Stream-Next-Offset"], "live": "long-poll"})
    assert (waiting.status_code, waiting.headers["Stream-Next-Offset"]) == (204, first.headers["Stream-Next-Offset"])
    http.post(path, headers=TEXT, content="é".encode()[1:])
    assert http.get(path, params={"offset": first.headers["Stream-Next-Offset"]}).text == "é"
