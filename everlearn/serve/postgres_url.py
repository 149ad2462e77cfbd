"""Where a Postgres database is, and why it cannot be used: texts that never hold a password."""

import re
from typing import Any

from everlearn.core.errors import ArgumentError, optional

NAMES = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def take_schema(url: str) -> tuple[str, str | None]:
    """A URL without the word `schema` of its query, which libpq does not know, and that word.

    >>> take_schema("postgresql://h/sales?schema=churn&sslmode=require")
    ('postgresql://h/sales?sslmode=require', 'churn')
    """
    place, _, query = url.partition("?")
    words = [word for word in query.split("&") if word]
    schemas = [word.removeprefix("schema=") for word in words if word.startswith("schema=")]
    rest = "&".join(word for word in words if not word.startswith("schema="))
    return (f"{place}?{rest}" if rest else place), (schemas[-1] if schemas else None)


def read_url(url: str) -> dict[str, Any]:
    """The parts of a URL or of a libpq text. Raises ArgumentError, which shows nothing of it: it may hold a password."""
    psycopg = optional("psycopg", "serve", "a log in Postgres")
    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        parts = {}
    hosts, ports = str(parts.get("host") or ""), str(parts.get("port") or "")
    if not parts or "@" in hosts or not re.fullmatch(r"[0-9,]*", ports):
        raise ArgumentError(
            "the database URL cannot be read (it is not shown, since it may hold a password). Write it as "
            "postgresql://user:password@host:port/database, with %40 for an @ in the password."
        )
    return {key: value for key, value in parts.items() if value is not None}


def shown(parameters: dict[str, Any]) -> str:
    """Where a database is, in words that hold no password."""
    port = f":{parameters['port']}" if "port" in parameters else ""
    host = parameters.get("host") or parameters.get("hostaddr") or "the local socket"
    return f"database {parameters.get('dbname') or parameters.get('user') or 'by default'!r} at {host}{port}"


def refusal(error: Exception, parameters: dict[str, Any]) -> str:
    """The sentence for a database that cannot be used, and the nearest fix."""
    said = " ".join(str(error).split())
    user = parameters.get("user")
    named = "the default user" if user is None else f"the user {user!r}"
    place = shown(parameters)
    if "password authentication failed" in said or "no password supplied" in said:
        return f"{place} does not accept the password of {named}. Put the right one into the URL, or into ~/.pgpass."
    if re.search(r'role ".*" does not exist', said):
        return f"{place} does not know {named}. Make it with: createuser {user or ''}".rstrip()
    if re.search(r'database ".*" does not exist', said):
        return f"there is no {place}. Make it with: createdb {parameters.get('dbname') or user or ''}".rstrip()
    if "permission denied" in said:
        return f"{named} may not make a schema in the {place} ({said}). Grant it CREATE there, or make the schema for it."
    return f"{place} cannot be reached ({said}). Is Postgres running there, and may this machine connect?"


def checked_schema(name: str) -> str:
    """The name of a schema. Raises ArgumentError for one that would have to be quoted."""
    if NAMES.fullmatch(name):
        return name
    near = re.sub(r"[^a-z0-9_]", "_", name.lower())[:62]
    near = near if NAMES.fullmatch(near) else f"_{near}"
    raise ArgumentError(f"postgres: name must be lower-case letters, digits and _, at most 63, got {name!r}. Try {near!r}.")
