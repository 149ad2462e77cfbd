"""Who may do what: bearer tokens with scopes, in a file that holds only their sha256.

    tokens.json   {"phone": {"sha256": "...", "scopes": ["predict", "feedback"], "rate": 50, "created": 1790000000.0}}

A token is 256 random bits and is shown once. A presented token is held against every known one in constant time. The file is read
again when it changes: what is removed from it is refused within a second, and a file that is gone knows no token.
"""

import fcntl
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlearn.core.errors import ArgumentError, EverlearnError, ServeError, StateError, closest

SCOPES = ("predict", "feedback", "read", "admin")
PREFIX = "el_"
LOOK_EVERY = 1.0  # seconds between two looks at the file
log = logging.getLogger("everlearn.serve")


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. rate: rows a second, None for the server's own limit; created: seconds since 1970."""

    name: str
    sha256: str
    scopes: frozenset[str]
    rate: float | None = None
    created: float = 0.0

    def allows(self, scope: str) -> bool:
        """Whether it may do what needs a scope; admin may do everything."""
        return scope in self.scopes or "admin" in self.scopes

    def to_json(self) -> dict[str, Any]:
        """Its entry in the file."""
        rate = {} if self.rate is None else {"rate": self.rate}
        return {"sha256": self.sha256, "scopes": sorted(self.scopes, key=SCOPES.index), **rate, "created": self.created}


def new_token() -> str:
    """A new token: 256 random bits as text of 46 characters.

    >>> len(new_token()), new_token() == new_token()
    (46, False)
    """
    return PREFIX + secrets.token_urlsafe(32)


class Tokens:
    """The tokens in a file. clock: seconds that never go back. Raises StateError where the file cannot be read at first."""

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.monotonic):
        self.path = Path(path)
        self.clock = clock
        self._mark = self._seen()
        self._looked = clock()
        self._tokens = read(self.path)
        self._digests = _digests(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def check(self, authorization: str | None, scope: str | None = None) -> Token:
        """The token of an Authorization header. Raises ServeError: unauthorized, or forbidden where the scope is missing."""
        self._look()
        kind, _, presented = (authorization or "").strip().partition(" ")
        if kind.lower() != "bearer" or not presented.strip():
            raise ServeError("unauthorized", "this needs a token: send the header 'Authorization: Bearer TOKEN'.", 401)
        digest = hashlib.sha256(presented.strip().encode("utf-8", "replace")).digest()
        found: Token | None = None
        for token, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = token
        if found is None:
            raise ServeError("unauthorized", "this server knows no such token; it may have been withdrawn.", 401)
        if scope is not None and not found.allows(scope):
            held = ", ".join(sorted(found.scopes, key=SCOPES.index)) or "none"
            raise ServeError("forbidden", f"the token {found.name!r} has the scopes {held}; this needs {scope}.", 403)
        return found

    def _look(self) -> None:
        """Read the file again where it has changed."""
        now = self.clock()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        mark = self._seen()
        if mark == self._mark:
            return
        try:
            self._tokens = read(self.path) if mark is not None else {}
        except EverlearnError as error:
            log.error("tokens: %s The tokens known before stay valid.", error)
        self._mark = mark
        self._digests = _digests(self._tokens)

    def _seen(self) -> tuple[int, ...] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def read(path: Path) -> dict[str, Token]:
    """The tokens of a file by name. Raises StateError."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StateError(f"there is no file of tokens at {path}; make one with: everlearn token FOLDER NAME.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(f"the tokens in {path} cannot be read ({type(error).__name__}).") from error
    if not isinstance(record, dict):
        raise StateError(f"{path} must hold a JSON object of tokens by name, got {type(record).__name__}.")
    return {name: _token(path, name, entry) for name, entry in record.items()}


def add_token(path: str | Path, name: str, scopes: Iterable[str], rate: float | None = None) -> str:
    """Make a token and store its hash. Returns the token, which is told only now. Raises ArgumentError, StateError."""
    path, token = Path(path), new_token()
    entry = Token(name, hashlib.sha256(token.encode()).hexdigest(), _scopes(scopes), _rate(rate), time.time())
    if not name or len(name) > 100 or not name.isprintable():
        raise ArgumentError(f"tokens: a name must be 1 to 100 printable characters, got {name[:100]!r}.")
    with _edited(path) as tokens:
        if name in tokens:
            raise ArgumentError(f"tokens: {name!r} exists already. Remove it first, or choose another name.")
        tokens[name] = entry
    return token


def remove_token(path: str | Path, name: str) -> None:
    """Withdraw a token; a running server refuses it within a second. Raises ArgumentError, StateError."""
    with _edited(Path(path)) as tokens:
        if name not in tokens:
            raise ArgumentError(f"tokens: {closest('token', name, tokens)}")
        del tokens[name]


@contextmanager
def _edited(path: Path):
    """The tokens of a file while nobody else edits it; written as a whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tokens = read(path) if path.exists() else {}
        yield tokens
        written = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({name: token.to_json() for name, token in tokens.items()}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(written, path)
    finally:
        os.close(lock)


def refuse_open_bind(host: str, tokens: Tokens | None) -> None:
    """Raise ArgumentError where a server would listen beyond this machine without a token."""
    if not is_local(host) and not (tokens is not None and len(tokens)):
        raise ArgumentError(
            f"serve: {host or 'every address'} can be reached from other machines, and no token is set. "
            "Make one with: everlearn token FOLDER NAME, or listen on 127.0.0.1."
        )


def is_local(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("::1"), is_local("0.0.0.0"), is_local("")
    (True, True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _token(path: Path, name: str, entry: Any) -> Token:
    """One entry of the file. Raises StateError."""
    try:
        digest = entry["sha256"].lower()
        if len(bytes.fromhex(digest)) == 32 and set(entry) <= {"sha256", "scopes", "rate", "created"}:
            return Token(name, digest, _scopes(entry["scopes"]), _rate(entry.get("rate")), float(entry.get("created", 0)))
    except ArgumentError as error:
        raise StateError(f"the token {name!r} in {path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise StateError(f"the token {name!r} in {path} must be an object of sha256 (64 hex digits), scopes, rate and created.")


def _scopes(scopes: Iterable[str]) -> frozenset[str]:
    found = frozenset([scopes] if isinstance(scopes, str) else scopes)
    for scope in found - set(SCOPES):
        raise ArgumentError(f"tokens: {closest('scope', str(scope), SCOPES)}")
    if not found:
        raise ArgumentError(f"tokens: at least one scope of {', '.join(SCOPES)} is needed.")
    return found


def _rate(rate: Any) -> float | None:
    if rate is None or (isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 < rate < 1e12):
        return rate
    raise ArgumentError(f"tokens: rate must be rows a second above 0, got {rate!r}.")


def _digests(tokens: dict[str, Token]) -> list[tuple[Token, bytes]]:
    return [(token, bytes.fromhex(token.sha256)) for token in tokens.values()]
