"""Tokens: what is good, what is not, and why not."""

import base64
import json
import os
import time
from typing import get_args

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from crdt_sessions.errors import AccessDenied, NotAuthenticated, TokenExpired
from crdt_sessions.ids import Millis, session_id
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock
from crdt_sessions_server.auth import (
    Chain,
    Grants,
    JwtTokens,
    KeySource,
    Permission,
    Principal,
    Role,
    StaticTokens,
    mint,
    static,
)
from crdt_sessions_server.auth.jwt import from_file
from crdt_sessions_server.settings import Claim

SECRET = b"an example of a secret that is long enough, even for those who think that more is better"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def clock():
    return FakeClock()


def jwk(key, kid, algorithm):
    maker = {
        "RS256": jwt.algorithms.RSAAlgorithm,
        "ES256": jwt.algorithms.ECAlgorithm,
        "EdDSA": jwt.algorithms.OKPAlgorithm,
    }
    return json.loads(maker[algorithm].to_jwk(key.public_key())) | {"kid": kid, "alg": algorithm, "use": "sig"}


class Issuer:
    """Publishes keys, and counts how often it is asked."""

    def __init__(self, *keys):
        self.keys, self.asked, self.down = list(keys), 0, False

    async def __call__(self):
        self.asked += 1
        if self.down:
            raise OSError("down")
        return {"keys": self.keys}


ISSUER = (jwk(RSA, "rsa", "RS256"), jwk(EC, "ec", "ES256"), jwk(ED, "ed", "EdDSA"))


def claims(clock, **more):
    now = clock.now() / 1000
    return {"sub": "ann", "role": "editor", "iat": now, "exp": now + 60, **more}


def ours(clock, key=SECRET, algorithm="HS256", headers=None, **more):
    return jwt.encode(claims(clock, **more), key, algorithm=algorithm, headers=headers)


async def refused(authorizer, token, match):
    with pytest.raises(NotAuthenticated, match=match):
        await authorizer.authorize(token, None)


async def test_a_token_of_our_own_says_who_and_what(clock):
    authorizer = JwtTokens(clock, secret=SECRET)
    token = mint(
        SECRET, now=clock.now(), ttl_s=60, principal="bot", name="Bot", kind="agent", role="agent", tenant="acme",
        sessions=["trip-*"], agents=["writer"],
    )  # fmt: skip
    principal = await authorizer.authorize(token, None)
    assert (principal.id, principal.name, principal.kind, principal.role) == ("bot", "Bot", "agent", Role.AGENT)
    assert (principal.tenant, principal.sessions, principal.agents) == ("acme", ("trip-*",), ("writer",))
    assert principal.expires_at == clock.now() // 1000 * 1000 + 65_000
    assert principal.token_id
    assert principal.may_see(session_id("trip-1", "acme"))
    for wrong in (session_id("trip-1"), session_id("trip-1", "other"), session_id("home", "acme")):
        assert not principal.may_see(wrong)
    principal.require_agents(["writer"])
    with pytest.raises(AccessDenied, match="editor"):
        principal.require_agents(["writer", "editor"])


@pytest.mark.parametrize(
    ("key", "kid", "algorithm"), [(RSA, "rsa", "RS256"), (EC, "ec", "ES256"), (ED, "ed", "EdDSA")]
)
async def test_an_issuers_tokens_are_verified_by_the_keys_it_publishes(clock, key, kid, algorithm):
    authorizer = JwtTokens(clock, keys=KeySource(Issuer(*ISSUER), clock))
    principal = await authorizer.authorize(ours(clock, key, algorithm, {"kid": kid}), None)
    assert (principal.id, principal.role) == ("ann", Role.EDITOR)
    await refused(authorizer, ours(clock, key, algorithm, {"kid": "unknown"}), "does not publish")
    await refused(authorizer, ours(clock, key, algorithm), "does not publish")


async def test_forged_and_confused_tokens_are_refused(clock):
    both = JwtTokens(clock, secret=SECRET, keys=KeySource(Issuer(*ISSUER), clock), audience="us", issuer="them")
    good = {"aud": "us", "iss": "them"}
    assert (await both.authorize(ours(clock, **good), None)).id == "ann"
    public = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"rsa"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims(clock, **good)).encode()).rstrip(b"=")
    confused = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(header + b"." + body, public)
    tokens = {
        "alg none": jwt.encode(claims(clock, **good), None, algorithm="none"),
        "another secret": ours(clock, b"x" * 80, **good),
        "another key": ours(clock, OTHER, "RS256", {"kid": "rsa"}, **good),
        "a public key as a secret": b".".join(
            (header, body, base64.urlsafe_b64encode(confused).rstrip(b"="))
        ).decode(),
        "another algorithm of the family": ours(clock, SECRET, "HS512", **good),
        "another algorithm with the key": ours(clock, RSA, "PS256", {"kid": "rsa"}, **good),
        "for somebody else": ours(clock, **good | {"aud": "others"}),
        "for nobody": ours(clock, iss="them"),
        "by somebody else": ours(clock, **good | {"iss": "others"}),
        "changed": ours(clock, **good)[:-4] + "AAAA",
        "cut": ours(clock, **good)[:40],
        "no token": "",
        "text": "let me in",
        "huge": "a" * 20_000,
        "not text": "\udcff.\udcff.\udcff",
    }
    for what, token in tokens.items():
        with pytest.raises(NotAuthenticated):
            await both.authorize(token, None)
            pytest.fail(what)
    only_keys = JwtTokens(clock, keys=KeySource(Issuer(*ISSUER), clock))
    await refused(only_keys, ours(clock), "not accepted here")
    await refused(JwtTokens(clock, secret=SECRET), ours(clock, RSA, "RS256", {"kid": "rsa"}), "not accepted here")
    await refused(JwtTokens(clock, secret=SECRET), ours(clock, aud="us"), "udience")


async def test_what_is_no_token_at_all_is_called_that_and_not_in_the_words_of_a_library(clock):
    for text in ("abc", "a.b", "a.b.c", "let me in"):
        await refused(JwtTokens(clock, secret=SECRET), text, "not a JSON Web Token, or a part of it is missing")


async def test_a_token_counts_only_within_its_times(clock):
    authorizer = JwtTokens(clock, secret=SECRET)
    now = clock.now() / 1000
    with pytest.raises(TokenExpired):
        await authorizer.authorize(ours(clock, exp=now - 6), None)
    await authorizer.authorize(ours(clock, exp=now - 4), None)  # clocks differ a little
    await refused(authorizer, ours(clock, nbf=now + 60), "not good yet")
    await refused(authorizer, ours(clock, iat=now + 60), "not good yet")
    await refused(authorizer, jwt.encode({"sub": "ann", "role": "editor"}, SECRET), "exp")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"sub": ""}, "sub"),
        ({"role": "king"}, "role"),
        ({"kind": "ghost"}, "kind"),
        ({"tenant": "a/b"}, "tenant"),
        ({"sessions": [7]}, "sessions"),
        ({"exp": "soon"}, "exp|Expiration"),
        ({"exp": 1e306}, "exp"),
        ({"iat": -1e306}, "iat"),
        ({"role": None}, "role"),
    ],
)
async def test_a_claim_that_says_nothing_sensible_is_named(clock, wrong, match):
    await refused(JwtTokens(clock, secret=SECRET), ours(clock, **wrong), match)


async def test_an_issuer_may_call_claims_what_it_likes(clock):
    authorizer = JwtTokens(
        clock, secret=SECRET, default_role=Role.EDITOR,
        claims={"tenant": "org_id", "role": "https://app.example/role", "sub": "uid"},
    )  # fmt: skip
    now = clock.now() / 1000
    token = jwt.encode({"uid": "u1", "sub": "x", "org_id": "acme", "exp": now + 60, "tenant": "forged"}, SECRET)
    principal = await authorizer.authorize(token, None)
    assert (principal.id, principal.tenant, principal.role) == ("u1", "acme", Role.EDITOR)
    token = jwt.encode({"uid": "u1", "sub": "x", "exp": now + 60, "https://app.example/role": "viewer"}, SECRET)
    principal = await authorizer.authorize(token, None)
    assert (principal.tenant, principal.role) == ("", Role.VIEWER)
    token = jwt.encode({"uid": "u1", "sub": "x", "exp": now + 60, "sessions": "a b-*"}, SECRET)
    assert (await authorizer.authorize(token, None)).sessions == ("a", "b-*")


@pytest.mark.parametrize("name", get_args(Claim))
async def test_every_claim_that_may_be_renamed_is_looked_for_under_its_new_name(clock, name):
    authorizer = JwtTokens(clock, secret=SECRET, claims={name: "theirs"})
    await refused(authorizer, ours(clock, theirs={"no": "sense"}), f"the token's claim {name}: ")


async def test_keys_are_kept_rotated_and_missed_only_for_a_while(clock):
    issuer = Issuer(ISSUER[0])
    authorizer = JwtTokens(clock, keys=KeySource(issuer, clock))
    old, new = (
        ours(clock, RSA, "RS256", {"kid": "rsa"}, exp=clock.now()),
        ours(clock, EC, "ES256", {"kid": "ec"}, exp=clock.now()),
    )
    for _ in range(3):
        await authorizer.authorize(old, None)
    assert issuer.asked == 1
    for _ in range(3):
        await refused(authorizer, new, "does not publish")
    assert issuer.asked == 1, "an unknown key is asked for every ten seconds at the most"
    issuer.keys = [ISSUER[1]]
    await clock.advance(11)
    await authorizer.authorize(new, None)
    await refused(authorizer, old, "does not publish")
    assert issuer.asked == 2
    issuer.down = True
    await clock.advance(301)
    await authorizer.authorize(new, None)
    assert issuer.asked == 3, "an issuer that is down does not lock out whom we know"


async def test_keys_are_read_from_a_file(clock, tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": ISSUER}), "utf-8")
    authorizer = JwtTokens(clock, keys=KeySource(from_file(path), clock))
    assert (await authorizer.authorize(ours(clock, RSA, "RS256", {"kid": "rsa"}), None)).id == "ann"
    for content in ("not json", "[]", "{}", '{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "rsa"}]}'):
        path.write_text(content, "utf-8")
        fresh = JwtTokens(clock, keys=KeySource(from_file(path), clock))
        await refused(fresh, ours(clock, RSA, "RS256", {"kid": "rsa"}), "does not publish")


def test_a_short_secret_is_refused(clock):
    with pytest.raises(ValueError, match="needs 32; make one with"):
        JwtTokens(clock, secret=b"short")
    with pytest.raises(ValueError, match="needs 32"):
        mint(b"short", now=Millis(0), ttl_s=1, principal="ann")


# -- the file ----------------------------------------------------------------------------------------------------------


async def test_a_file_of_tokens_is_read_anew_when_it_changes(tmp_path):
    path = tmp_path / "tokens.json"

    def write(tokens):
        path.write_text(json.dumps(tokens), "utf-8")
        os.utime(path, ns=(time.time_ns(), time.time_ns() + write.count))
        write.count += 1_000_000

    write.count = 0
    write({"t": {"principal": "ann", "canWrite": False}, "a": {"principal": "bot", "kind": "agent"}})
    tokens = StaticTokens.from_file(path)
    assert (await tokens.authorize("t", None)).role is Role.VIEWER
    assert (await tokens.authorize("a", None)).role is Role.AGENT
    first = tokens.revision()
    write({"t": {"principal": "ann", "role": "owner", "tenant": "acme", "sessions": ["x"]}})
    assert tokens.revision() > first
    principal = await tokens.authorize("t", None)
    assert (principal.role, principal.tenant, principal.sessions) == (Role.OWNER, "acme", ("x",))
    await refused(tokens, "a", "valid token")
    second = tokens.revision()
    write({"t": {"principal": ""}})
    assert tokens.revision() == second
    assert (await tokens.authorize("t", None)).id == "ann", "a file that is broken changes nothing"


async def test_several_sources_are_asked_one_after_the_other(clock):
    chain = Chain([StaticTokens({"t": Principal("ann")}), JwtTokens(clock, secret=SECRET)])
    assert (await chain.authorize("t", None)).id == "ann"
    assert (await chain.authorize(ours(clock, sub="bob"), None)).id == "bob"
    await refused(chain, "x", "not good")


# -- grants -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def grants(clock):
    store = MemoryStore()
    await store.create(session_id("room"), b"", generation=1, title=None, now=clock.now())
    tokens = StaticTokens({"s": Principal("cleo", role=Role.VIEWER, sessions=("room", "my-*"))})
    return Grants(Chain([tokens, JwtTokens(clock, secret=SECRET)]), store, clock)


async def test_a_session_may_give_somebody_another_role(grants, clock):
    changes = []
    grants.on_change = changes.append
    token, room = ours(clock), session_id("room")
    assert (await grants.authorize(token, "room")).role is Role.EDITOR
    await grants.set_member(room, "ann", Role.VIEWER)
    assert (await grants.authorize(token, "room")).role is Role.VIEWER
    assert (await grants.authorize(token, "other")).role is Role.EDITOR
    with pytest.raises(AccessDenied, match="viewer may not write"):
        await grants.authorize(token, "room", Permission.WRITE)
    await grants.set_member(room, "ann", None)
    assert (await grants.authorize(token, "room", Permission.WRITE)).role is Role.EDITOR
    assert [(each.principal, each.session) for each in changes] == [("ann", "room")] * 2
    assert not changes[0].concerns(Principal("bob"), "room")
    assert not changes[0].concerns(Principal("ann", tenant="acme"), "room")
    assert not changes[0].concerns(Principal("ann"), "other")


async def test_a_token_is_for_the_sessions_it_names(grants):
    for name in ("room", "my-notes"):
        assert (await grants.authorize("s", name)).id == "cleo"
    for name in ("rooms", "my", "roo"):
        with pytest.raises(AccessDenied, match="not for that session"):
            await grants.authorize("s", name)


async def test_tokens_are_revoked_one_by_one_or_all_that_somebody_has(grants, clock):
    token = ours(clock, jti="t1")
    assert await grants.authorize(token, None)
    await grants.revoke("acme", "token", "t1")
    assert await grants.authorize(token, None), "that was another tenant's"
    await grants.revoke("", "token", "t1")
    with pytest.raises(NotAuthenticated, match="was revoked"):
        await grants.authorize(token, None)
    other = ours(clock, jti="t2")
    assert await grants.authorize(other, None)
    await clock.advance(1)
    await grants.revoke("", "principal", "ann")
    with pytest.raises(NotAuthenticated, match="were revoked"):
        await grants.authorize(other, None)
    await clock.advance(1)
    assert await grants.authorize(ours(clock, jti="t3"), None), "made afterwards"
    await grants.revoke("", "principal", "cleo")
    with pytest.raises(NotAuthenticated, match="were revoked"):
        await grants.authorize("s", None)
    fresh = Grants(grants.authorizer, grants._store, clock)
    await fresh.start()
    with pytest.raises(NotAuthenticated, match="was revoked"):
        await fresh.authorize(token, None)


async def test_a_file_of_tokens_is_not_looked_at_for_each_request(tmp_path, monkeypatch):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"t": {"principal": "ann"}}), "utf-8")
    grants = Grants(StaticTokens.from_file(path), MemoryStore(), FakeClock())
    monkeypatch.setattr(static, "_stamp", lambda _: pytest.fail("the file was looked at"))
    states = [grants.state for _ in range(3)]
    assert [(await grants.authorize("t", None)).id for _ in states] == ["ann"] * len(states)
    monkeypatch.undo()
    assert not grants.refresh()
    path.write_text(json.dumps({"t": {"principal": "ann"}, "u": {"principal": "bob"}}), "utf-8")
    assert grants.refresh()
    assert grants.state not in states
    assert (await grants.authorize("u", None)).id == "bob"
