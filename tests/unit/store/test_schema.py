"""init_db, upgrade, downgrade: every way to a database ends in the same tables, or in an error that helps."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from textwrap import dedent

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import URL

from mendstream.adapters.store import columns, database, schema
from mendstream.adapters.store.models import Base
from mendstream.contracts.errors import CouldNot, DataDirError, LogFull, SettingsError

OPTIONS = {
    "render_as_batch": True,
    "render_item": schema.render_item,
    "target_metadata": Base.metadata,
    "version_table": schema.VERSION_TABLE,
}


def tables(path):
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return {(kind, name): "".join(text.split()) for kind, name, text in found}


def stamp(path, version):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE mendstream_version SET version_num = ?", (version,))
        connection.commit()


def test_a_new_database_has_the_schema_that_the_migrations_make(url, path, tmp_path):
    schema.upgrade(f"sqlite:///{tmp_path}/migrated.db")
    assert tables(path) == tables(tmp_path / "migrated.db")
    assert len(tables(path)) == 6 + 9  # tables, indexes


def test_head_is_the_newest_migration():
    script = ScriptDirectory(str(schema._MIGRATIONS))
    assert script.get_heads() == [schema.HEAD]


def test_the_migrations_leave_nothing_for_autogenerate_to_find(url):
    engine = database.engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, **OPTIONS})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_generated_migration_spells_our_column_types_so_that_it_can_run(tmp_path):
    engine = database.engine(f"sqlite:///{tmp_path}/empty.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=OPTIONS)
        made = produce_migrations(context, Base.metadata)
        code = render_python_code(made.upgrade_ops, render_as_batch=True, render_item=schema.render_item)
    engine.dispose()
    assert "columns.Json()" in code
    assert "columns.UtcDateTime()" in code
    assert "sa.Column('status', sa.String(length=32)" in code
    assert "JSONB" not in code
    operations = Operations(MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True}))
    exec(dedent(" " * 4 + code), {"op": operations, "sa": sqlalchemy, "columns": columns})


def test_upgrade_downgrade_and_upgrade_again(tmp_path):
    path, url = tmp_path / "store.db", f"sqlite:///{tmp_path}/store.db"
    schema.upgrade(url)
    first = tables(path)
    schema.downgrade(url, "base")
    assert set(tables(path)) == {("table", "mendstream_version")}
    assert schema.current(url) is None
    schema.init_db(url)
    assert tables(path) == first
    assert schema.current(url) == schema.HEAD


def test_a_current_database_is_recognised_without_sqlalchemy_and_a_new_one_is_made_without_alembic(tmp_path):
    code = (
        "import sys; from mendstream.adapters.store.schema import init_db;"
        "init_db(sys.argv[1]); print('alembic' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    run = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/store.db"]
    said = [subprocess.run(run, capture_output=True, text=True, check=True).stdout.split() for _ in range(2)]
    assert said == [["False", "True"], ["False", "False"]]


def test_processes_that_start_at_once_make_one_database(tmp_path, path):
    code = "import sys; from mendstream.adapters.store.schema import init_db; init_db(sys.argv[1])"
    run = [sys.executable, "-c", code, f"sqlite:///{path}"]
    started = [subprocess.Popen(run) for _ in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    schema.upgrade(f"sqlite:///{tmp_path}/migrated.db")
    assert tables(path) == tables(tmp_path / "migrated.db")


@pytest.mark.parametrize("way", [schema.init_db, schema.upgrade])
def test_a_database_of_a_newer_version_is_refused_and_left_alone(url, path, way):
    stamp(path, "9999")
    with pytest.raises(DataDirError, match="at version 9999, this mendstream knows versions up to 0001") as caught:
        way(url)
    assert "newer mendstream" in caught.value.hint
    assert schema.current(url) == "9999"


def test_a_read_only_database_is_refused_with_the_fix(url, path):
    readonly = f"sqlite:///file:{path}?mode=ro&uri=true"
    schema.downgrade(url, "base")
    with pytest.raises(DataDirError, match="readonly") as caught:
        schema.init_db(readonly)
    assert "write permission" in caught.value.hint


def test_a_file_without_write_permission_is_refused_before_the_first_incident(url, monkeypatch):
    # As SQLite opens a file that it may not write; permissions themselves would not stop a test that root runs.
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **how: real(f"file:{path}?mode=ro", uri=True, **how))
    with pytest.raises(DataDirError, match="readonly"):
        schema.init_db(url)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataDirError, match=r"missing/store\.db: unable to open") as caught:
        schema.init_db(f"sqlite:///{tmp_path}/missing/store.db")
    assert "folder must exist" in caught.value.hint


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database, it is a page of text\n" * 40)
    with pytest.raises(DataDirError, match="not a database"):
        schema.init_db(f"sqlite:///{path}")
    assert path.read_text().startswith("this is not")


def test_a_full_disk_is_said_and_nothing_is_half_made(tmp_path, monkeypatch):
    path = tmp_path / "store.db"
    real = database._tame_sqlite

    def small(made, **how):
        real(made, **how)
        database.event.listen(made, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 4"))

    monkeypatch.setattr(database, "_tame_sqlite", small)
    with pytest.raises(LogFull, match="full"):
        schema.init_db(f"sqlite:///{path}")
    assert tables(path) == {}


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/x", "postgresql+asyncpg://localhost/x", "postgresql://me:secret@host:port/x", "no url",
        "sqlite://", "sqlite:///:memory:", "excel:///a.xls",
    ],
)  # fmt: skip
def test_what_is_no_store_is_a_setting_to_mend(url):
    with pytest.raises(SettingsError) as caught:
        schema.init_db(url)
    assert "sqlite:///PATH" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_current_of_a_missing_file_makes_no_file(tmp_path):
    assert schema.current(f"sqlite:///{tmp_path}/none.db") is None
    assert list(tmp_path.iterdir()) == []


def test_reading_a_missing_database_makes_no_file(tmp_path):
    with pytest.raises(CouldNot, match="no database at"), database.reading(f"sqlite:///{tmp_path}/none.db"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_a_percent_sign_works(tmp_path):
    path = tmp_path / "100%20 done?.db"
    url = URL.create("sqlite", database=str(path)).render_as_string()
    schema.init_db(url)
    assert schema.current(url) == schema.HEAD
    schema.downgrade(url, "base")
    schema.init_db(url)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_every_constraint_and_every_own_type_is_the_same_on_postgresql():
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    made = {t.name: str(CreateTable(t).compile(dialect=postgresql.dialect())) for t in Base.metadata.sorted_tables}
    assert "metrics_snapshot JSONB NOT NULL" in made["incidents"]
    assert "detected_at TIMESTAMP WITH TIME ZONE NOT NULL" in made["incidents"]
    assert "status VARCHAR(32) NOT NULL" in made["incidents"]
    assert "mttr_seconds DOUBLE PRECISION" in made["incidents"]
    assert all("CONSTRAINT pk_" in text for text in made.values())
    assert columns.Json.cache_ok
