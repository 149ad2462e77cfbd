"""Where a database is, without its password; names and URLs that cannot be are refused with one that can."""

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.serve.postgres import Postgres
from everlearn.serve.postgres_url import checked_schema, read_url, refusal, shown, take_schema


def test_a_missing_role_is_named():
    told = refusal(Exception('FATAL: role "ann" does not exist'), {"user": "ann", "dbname": "x"})
    assert told == "database 'x' at the local socket does not know the user 'ann'. Make it with: createuser ann"


@pytest.mark.parametrize("url", ["postgresql://a:pa@ss@127.0.0.1:1/x", "postgresql://a:pa/ss@h:p/x", "nonsense", "", "a=b"])
def test_a_url_that_cannot_be_read_is_not_shown(url):
    with pytest.raises(ArgumentError, match=r"cannot be read.*postgresql://user:password@host:port/database") as caught:
        read_url(url)
    assert "ss@" not in str(caught.value) and caught.value.__cause__ is None


def test_a_schema_that_is_no_name_is_refused_with_one_that_is():
    with pytest.raises(ArgumentError, match=r"got 'My Model'\. Try 'my_model'"):
        Postgres("postgresql://h/x", name="My Model")
    with pytest.raises(ArgumentError, match=r"got '1st'\. Try '_1st'"):
        Postgres("postgresql://h/x", name="1st")
    with pytest.raises(ArgumentError, match="durability must be one of full, normal, got 'off'"):
        Postgres("postgresql://h/x", "off")


def test_a_url_names_the_schema_and_an_argument_goes_before():
    assert Postgres("postgresql://h/x").schema == "everlearn"
    database = Postgres("postgresql://h/x?sslmode=disable&schema=churn")
    assert database.schema == "churn" and database.parameters == {"host": "h", "dbname": "x", "sslmode": "disable"}
    assert Postgres("postgresql://h/x?schema=churn", name="other").schema == "other"
    with pytest.raises(ArgumentError, match=r"got 'a-b'\. Try 'a_b'"):
        Postgres("postgresql://h/x?schema=a-b")


def test_where_a_database_is_shows_no_password():
    parts = read_url("postgresql://ann:hush@example.org:5433/sales")
    assert shown(parts) == "database 'sales' at example.org:5433"
    assert shown(read_url("postgresql:///sales")) == "database 'sales' at the local socket"


def test_the_schema_is_taken_out_of_a_query():
    assert take_schema("postgresql://h/x") == ("postgresql://h/x", None)
    assert take_schema("postgresql://h/x?schema=a") == ("postgresql://h/x", "a")
    assert take_schema("postgresql://h/x?a=1&schema=b&c=2") == ("postgresql://h/x?a=1&c=2", "b")


def test_names_are_as_long_as_postgres_keeps_them():
    assert checked_schema("a" * 63) == "a" * 63
    with pytest.raises(ArgumentError, match="at most 63"):
        checked_schema("a" * 64)
