"""A bench's own database on a real server: there while it measures, and gone afterwards."""

import psycopg
import pytest

from mendstream.bench.database import database
from mendstream.contracts.errors import CouldNot, UsageError

pytestmark = [pytest.mark.services, pytest.mark.timeout(60)]


def names(server):
    with psycopg.connect(server) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database")}


def test_it_is_there_within_and_dropped_afterwards_whoever_is_still_connected(postgres):
    before = names(postgres.url)
    with database(postgres.url) as url:
        (made,) = names(postgres.url) - before
        assert url.endswith(f"/{made}")
        left = psycopg.connect(url)
    left.close()
    assert names(postgres.url) == before


def test_a_server_that_is_not_there_is_told_with_what_starts_one():
    with pytest.raises(CouldNot, match="CREATE DATABASE") as caught, database("postgresql://nobody@127.0.0.1:1/none"):
        pass
    assert "scripts/services up postgres" in caught.value.hint


def test_what_is_no_url_is_a_usage_error():
    with pytest.raises(UsageError, match="is no URL"), database("a server"):
        pass
