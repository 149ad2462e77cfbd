"""Tokens: made once, kept as hashes, checked in constant time, read anew when their file changes, and never logged."""

import hashlib
import hmac
import json
import logging
import os
import stat
import threading

import pytest

from everlearn.core.errors import ArgumentError, ServeError, StateError
from everlearn.serve import auth
from everlearn.serve.auth import Tokens, add_token, is_local, new_token, refuse_open_bind, remove_token


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def refused(tokens, header, scope=None):
    with pytest.raises(ServeError) as caught:
        tokens.check(header, scope)
    return caught.value


def test_a_token_has_256_random_bits():
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(token.startswith("el_") and len(token) == 3 + 43 for token in made)


def test_a_made_token_is_known_and_only_its_hash_is_kept(tmp_path):
    path = tmp_path / "tokens.json"
    token = add_token(path, "phone", ["predict", "feedback"], rate=5)
    text = path.read_text()
    assert token not in text
    entry = json.loads(text)["phone"]
    assert entry["sha256"] == hashlib.sha256(token.encode()).hexdigest()
    assert (entry["scopes"], entry["rate"]) == (["predict", "feedback"], 5)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = Tokens(path).check(f"Bearer {token}", "predict")
    assert (found.name, found.rate) == ("phone", 5)


def test_the_scheme_is_read_without_regard_to_case_and_spaces(tmp_path):
    token = add_token(tmp_path / "t", "a", "read")
    assert Tokens(tmp_path / "t").check(f"  bEARER   {token} ").name == "a"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dTpw", "el_abc"])
def test_without_a_token_the_answer_says_how_to_send_one(tmp_path, header):
    add_token(tmp_path / "t", "a", "read")
    error = refused(Tokens(tmp_path / "t"), header)
    assert (error.code, error.status) == ("unauthorized", 401)
    assert "Authorization: Bearer" in str(error)


@pytest.mark.parametrize("presented", ["el_wrong", "\ud800", "é" * 50, "a b", "x" * 100_000])
def test_a_wrong_token_is_refused_and_not_repeated(tmp_path, presented):
    add_token(tmp_path / "t", "a", "read")
    error = refused(Tokens(tmp_path / "t"), f"Bearer {presented}")
    assert (error.code, error.status) == ("unauthorized", 401)
    assert presented not in str(error)


def test_a_scope_that_is_missing_is_named_and_admin_has_all(tmp_path):
    few, all_ = add_token(tmp_path / "t", "phone", ["predict"]), add_token(tmp_path / "t", "boss", ["admin"])
    tokens = Tokens(tmp_path / "t")
    error = refused(tokens, f"Bearer {few}", "admin")
    assert (error.code, error.status) == ("forbidden", 403)
    assert str(error) == "the token 'phone' has the scopes predict; this needs admin."
    for scope in auth.SCOPES:
        assert tokens.check(f"Bearer {all_}", scope).name == "boss"


def test_every_known_hash_is_compared_in_constant_time(tmp_path, monkeypatch):
    tokens_made = [add_token(tmp_path / "t", name, "read") for name in "abcde"]
    tokens = Tokens(tmp_path / "t")
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: compared.append(1) or real(a, b))
    for token in (tokens_made[0], tokens_made[4], "el_wrong"):
        compared.clear()
        try:
            tokens.check(f"Bearer {token}")
        except ServeError:
            assert token == "el_wrong"
        assert len(compared) == 5  # the first found does not end it


def test_a_change_of_the_file_counts_within_a_second(tmp_path):
    clock, path = Clock(), tmp_path / "t"
    first = add_token(path, "first", "read")
    tokens = Tokens(path, clock=clock)
    second = add_token(path, "second", "read")
    remove_token(path, "first")
    assert tokens.check(f"Bearer {first}").name == "first"  # not looked at again yet
    clock.now = 1.0
    assert tokens.check(f"Bearer {second}").name == "second"
    assert refused(tokens, f"Bearer {first}").code == "unauthorized"
    assert len(tokens) == 1


def test_a_file_that_is_gone_knows_no_token(tmp_path):
    clock, path = Clock(), tmp_path / "t"
    token = add_token(path, "a", "read")
    tokens = Tokens(path, clock=clock)
    path.unlink()
    clock.now = 2.0
    assert refused(tokens, f"Bearer {token}").code == "unauthorized"
    again = add_token(path, "a", "read")
    clock.now = 4.0
    assert tokens.check(f"Bearer {again}").name == "a"


def test_a_file_that_was_garbled_is_reported_once_and_the_old_tokens_stay(tmp_path, caplog):
    clock, path = Clock(), tmp_path / "t"
    token = add_token(path, "a", "read")
    tokens = Tokens(path, clock=clock)
    path.write_text('{"a": ')
    with caplog.at_level(logging.ERROR):
        for clock.now in (2.0, 4.0, 6.0):
            assert tokens.check(f"Bearer {token}").name == "a"
    assert len(caplog.records) == 1
    assert "stay valid" in caplog.text
    assert token not in caplog.text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "must hold a JSON object of tokens by name, got list"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"a": 1}', "the token 'a' in"),
        ('{"a": {"sha256": "00", "scopes": ["read"]}}', "64 hex digits"),
        ('{"a": {"sha256": "%s", "scopes": ["raed"]}}' % ("0" * 64), "unknown scope 'raed'; did you mean 'read'?"),
        ('{"a": {"sha256": "%s", "scopes": []}}' % ("0" * 64), "at least one scope"),
        ('{"a": {"sha256": "%s", "scopes": ["read"], "rate": -1}}' % ("0" * 64), "rate must be rows a second above 0"),
        ('{"a": {"sha256": "%s", "scopes": ["read"], "scope": 1}}' % ("0" * 64), "must be an object of sha256"),
    ],
)
def test_a_file_that_is_none_is_refused_at_the_start(tmp_path, text, told):
    (tmp_path / "t").write_text(text)
    with pytest.raises(StateError, match="(?s)" + told.replace("?", r"\?")):
        Tokens(tmp_path / "t")


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(StateError, match="everlearn token FOLDER NAME"):
        Tokens(tmp_path / "none")


def test_names_are_taken_once_and_withdrawn_by_name(tmp_path):
    add_token(tmp_path / "t", "phone", "read")
    with pytest.raises(ArgumentError, match="'phone' exists already"):
        add_token(tmp_path / "t", "phone", "read")
    with pytest.raises(ArgumentError, match="unknown token 'phon'; did you mean 'phone'"):
        remove_token(tmp_path / "t", "phon")
    with pytest.raises(ArgumentError, match="1 to 100 printable"):
        add_token(tmp_path / "t", "a\nb", "read")
    assert list(auth.read(tmp_path / "t")) == ["phone"]


def test_tokens_made_at_the_same_time_are_all_kept(tmp_path):
    path = tmp_path / "deep" / "t"
    threads = [threading.Thread(target=add_token, args=(path, f"n{number}", "read")) for number in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(auth.read(path)) == 12
    assert sorted(os.listdir(path.parent)) == ["t", "t.lock"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_an_address_of_this_machine_needs_no_token(host):
    assert is_local(host)
    refuse_open_bind(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.5", "example.org", "127.0.0.1.evil.org"])
def test_beyond_this_machine_a_token_is_needed(tmp_path, host):
    with pytest.raises(ArgumentError, match="no token is set"):
        refuse_open_bind(host, None)
    (tmp_path / "empty").write_text("{}")
    with pytest.raises(ArgumentError, match="no token is set"):
        refuse_open_bind(host, Tokens(tmp_path / "empty"))
    add_token(tmp_path / "t", "a", "read")
    refuse_open_bind(host, Tokens(tmp_path / "t"))
