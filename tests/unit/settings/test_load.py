"""Settings come from four places; each value knows where it stood, and each mistake names its line."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mendstream.contracts.errors import CouldNot, SettingsError
from mendstream.settings import FIELDS, Secret, Settings, load, mlflow_uri, store_url, to_environment
from mendstream.settings.fields import GROUP_DOCS
from mendstream.settings.load import value_of

BRIEF = {
    "KAFKA_BOOTSTRAP_SERVERS": "localhost:29092",
    "DB_HOST": "localhost",
    "DB_PORT": "5432",
    "DB_USER": "agentic_user",
    "DB_PASSWORD": "canary-7f3a",
    "DB_NAME": "agentic_db",
    "MLFLOW_TRACKING_URI": "http://localhost:5000",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str, name: str = "mendstream.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def refusal(**given) -> SettingsError:
    given.setdefault("env", {})
    with pytest.raises(SettingsError) as caught:
        load(**given)
    return caught.value


def test_without_any_source_every_value_is_its_default():
    loaded = load(env={})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_the_file_beats_the_default_the_environment_the_file_and_the_command_line_all():
    written('[run]\ndata_dir = "of-file"\npartitions = 2\nseed = 3\n')
    loaded = load(
        env={"MENDSTREAM_RUN_PARTITIONS": "4", "MENDSTREAM_RUN_SEED": "5"}, overrides={"run.seed": 6, "run.fuse": True}
    )
    assert loaded.settings.run.data_dir == "of-file"
    assert loaded.settings.run.partitions == 4
    assert loaded.settings.run.seed == 6
    assert loaded.origins["run.data_dir"] == "mendstream.toml:2"
    assert loaded.origins["run.partitions"] == "environment MENDSTREAM_RUN_PARTITIONS"
    assert loaded.origins["run.seed"] == "command line"
    assert loaded.origins["run.namespace"] == "default"


def test_a_named_file_is_read_instead_of_the_one_in_the_working_folder():
    written("[run]\nseed = 1\n")
    loaded = load(written("[run]\nseed = 2\n", "other.toml"), env={})
    assert loaded.settings.run.seed == 2
    assert loaded.origins["run.seed"] == "other.toml:2"


def test_values_that_come_as_text_are_read_in_the_type_of_their_field():
    loaded = load(
        env={
            "MENDSTREAM_RUN_FUSE": "true",
            "MENDSTREAM_INGESTION_RATE": "500",
            "MENDSTREAM_RUN_REPLICAS": "model=2, feature=3",
            "MENDSTREAM_POLICY_MODES": '{"RESTART": "ask"}',
        },
        overrides={"metrics.enabled": "false", "pipeline": "shop:fraud"},
    )
    assert loaded.settings.run.fuse is True
    assert loaded.settings.ingestion.rate == 500.0
    assert loaded.settings.run.replicas == {"model": 2, "feature": 3}
    assert loaded.settings.policy.modes == {"RESTART": "ask"}
    assert loaded.settings.metrics.enabled is False
    assert loaded.settings.pipeline == "shop:fraud"


def test_an_unknown_key_names_its_file_its_line_and_the_nearest_key():
    written("# mine\n[run]\nseed = 1\nfused = true\n")
    error = refusal()
    assert str(error) == "mendstream.toml:4: unknown key run.fused"
    assert error.hint == "did you mean run.fuse?"


@pytest.mark.parametrize(
    ("text", "line", "what", "hint"),
    [
        ("[bsu]\nkind = 'lmdb'\n", 1, "unknown table bsu", "did you mean bus?"),
        ("\nfuse = true\n", 2, "unknown key fuse", "did you mean run.fuse?"),
        ("[slo]\nlatency_ms = 300\n\n[run]\nrate = 3\n", 5, "unknown key run.rate", "did you mean ingestion.rate?"),
        ("[run]\npipeline = 'a:b'\n", 2, "unknown key run.pipeline", "did you mean pipeline?"),
        ("run = 5\n", 1, "run is a table", "write [run] above its keys"),
        ("[run]\nnote = '''\nseed = 2\n'''\nseed = 'x'\n", 2, "unknown key run.note", ""),
        ("run.partitions = 65\n", 1, "run.partitions: Expected int <= 64", "int, 1 to 64, partitions, default 1"),
        ("\nrun = { seed = 1, fuse = 2 }\n", 2, "run.fuse: Expected bool, got int", "bool, default false"),
        ("[run]\n'seed' = 1.5\n", 2, "run.seed: Expected int, got float", "0 to 9223372036854775807"),
        ("[bus]\nkind = 'lmbd'\n", 2, "bus.kind: must be lmdb or kafka", "did you mean lmdb?"),
        ("[slo]\nlatency_ms = 320\n", 2, "slo.latency_ms must be an edge", ""),
        ("[slo]\naccuracy = nan\n", 2, "slo.accuracy", ""),
        ("[monitoring]\narl_hours = 0\n", 2, "monitoring.arl_hours: Expected float > 0", "above 0, at most"),
        ("[run.replicas]\nmodel = 0\n", 1, "run.replicas: Expected int >= 1", ""),
        ("[run.replicas]\nmodle = 2\n", 1, "run.replicas 'modle' is no stage: ingestion", ""),
        ("[policy.modes]\nREBOOT = 'ask'\n", 1, "policy.modes 'REBOOT' is no kind of action: SAFE_MODE_ON", ""),
        ("[ingestion]\nsource = 'kafka'\n", 2, "ingestion.source must be file:PATH, stdin", ""),
        ("pipeline = 'shop'\n", 1, "pipeline must be module:object", ""),
        ("[run]\nseed = \n", 2, "not TOML", "texts stand in quotes"),
        ("[run]\nseed = 1\nseed = 2\n", 3, "not TOML", ""),
    ],
)
def test_a_mistake_in_the_file_names_its_line(text, line, what, hint):
    written(text)
    error = refusal()
    problem = next(row for row in str(error).splitlines() if what in row)
    assert problem.strip().startswith(f"mendstream.toml:{line}: ")
    assert hint in error.hint + problem


def test_all_problems_are_told_at_once():
    written("[run]\nfused = true\npartitions = 0\n")
    error = refusal(env={"MENDSTREAM_RUN_SEDE": "1"}, overrides={"bus.kinds": "lmdb"})
    assert str(error).splitlines() == [
        "4 problems in the settings",
        "  mendstream.toml:2: unknown key run.fused (did you mean run.fuse?)",
        "  environment MENDSTREAM_RUN_SEDE: unknown setting MENDSTREAM_RUN_SEDE (did you mean MENDSTREAM_RUN_SEED?)",
        "  command line: unknown setting bus.kinds (did you mean bus.kind?)",
        "  mendstream.toml:3: run.partitions: Expected int >= 1 (int, 1 to 64, partitions, default 1)",
    ]


def test_a_named_file_that_is_not_there_is_a_settings_error_and_an_unreadable_one_a_could_not(folder):
    assert "there is no file nope.toml" in str(refusal(file=Path("nope.toml")))
    with pytest.raises(CouldNot, match="cannot read"):
        load(folder, env={})
    Path("latin.toml").write_bytes(b"name = '\xe9'\n")
    assert "not UTF-8 (byte 8)" in str(refusal(file=Path("latin.toml")))


def test_names_of_the_environment_beat_the_same_names_of_dotenv():
    written("# other people's\nPOSTGRES=1\nexport MENDSTREAM_RUN_SEED=1 # mine\nMENDSTREAM_NAME='a b'\n", ".env")
    loaded = load(env={"MENDSTREAM_RUN_SEED": "2"})
    assert (loaded.settings.run.seed, loaded.settings.name) == (2, "a b")
    assert loaded.origins["name"] == ".env:4 MENDSTREAM_NAME"


def test_a_line_of_dotenv_that_is_none_is_told_without_its_text():
    written("canary-7f3a\n", ".env")
    assert str(refusal()) == ".env:1: not NAME=value"


def test_the_briefs_names_select_their_backends_from_the_environment_and_from_dotenv():
    written("".join(f"{name}={value}\n" for name, value in BRIEF.items()), ".env")
    for loaded in (load(env=BRIEF, dotenv=None), load(env={})):
        assert loaded.settings.bus.kind == "kafka"
        assert loaded.settings.bus.bootstrap_servers == "localhost:29092"
        assert loaded.settings.store.url == "postgresql://agentic_user@localhost:5432/agentic_db"
        assert loaded.settings.store.password.reveal() == "canary-7f3a"
        url, _, limits = store_url(loaded.settings).partition("?")
        assert url == "postgresql://agentic_user:canary-7f3a@localhost:5432/agentic_db"
        assert limits == "connect_timeout=5&statement_timeout=10&pool_size=4&pool_timeout=5"
        assert mlflow_uri(loaded.settings) == "http://localhost:5000"


def test_the_demo_ignores_the_briefs_names():
    assert load(env=BRIEF, ignore_brief_names=True).settings == Settings()


def test_a_brief_name_that_is_empty_counts_as_not_set():
    assert load(env=dict.fromkeys(BRIEF, "")).settings == Settings()


def test_a_port_of_the_brief_out_of_bounds_is_a_problem():
    assert str(refusal(env={"DB_PORT": "99999"})) == "environment DB_PORT: DB_PORT must be a port: 1 to 65535"


def test_kafka_is_selected_by_the_briefs_name():
    loaded = load(env={"KAFKA_BOOTSTRAP_SERVERS": "b:1"})
    assert (loaded.settings.bus.kind, loaded.settings.bus.bootstrap_servers) == ("kafka", "b:1")
    assert loaded.origins["bus.kind"] == "environment KAFKA_BOOTSTRAP_SERVERS"


@pytest.mark.parametrize(
    "given", [{"env": {"DB_HOST": "h", "DB_NAME": "d"}}, {"env": {}, "overrides": {"store.url": "postgresql://h/d"}}]
)
def test_postgresql_is_selected_by_the_briefs_names_or_by_its_url(given):
    loaded = load(**given)
    assert store_url(loaded.settings).startswith("postgresql://h")


def test_a_limit_that_stands_in_the_stores_url_is_not_said_twice():
    given = {"store.url": "postgresql://h/d?pool_size=2&sslmode=require", "store.pool_timeout_s": 9}
    query = store_url(load(env={}, overrides=given).settings).partition("?")[2]
    assert query == "pool_size=2&sslmode=require&connect_timeout=5&statement_timeout=10&pool_timeout=9"


def test_bus_and_store_of_the_command_line_say_otherwise():
    loaded = load(env=BRIEF, overrides={"bus.kind": "lmdb", "store.url": ""})
    assert store_url(loaded.settings) == f"sqlite:///{Path('.mendstream/mendstream.db').absolute()}"
    assert not loaded.settings.store.password


def test_a_child_process_gets_the_very_same_settings_through_its_environment():
    written("[run]\nseed = 1\nfuse = true\n")
    loaded = load(env=BRIEF, overrides={"run.seed": 0, "run.replicas": {"model": 2}, "store.url": "sqlite:///x.db"})
    assert load(env={**BRIEF, **to_environment(loaded.settings)}).settings == loaded.settings


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.key)
def test_every_field_has_docs_a_default_within_its_bounds_and_a_name_in_the_environment(field):
    assert field.doc.endswith(".") or field.doc.endswith(")."), field.key
    assert len(field.doc) <= 120
    if field.kind != "secret":
        given = msgspec.convert(field.default, field.type)
        assert given == field.default
    # Said again in the environment, the default is the default.
    text = to_environment(Settings())[field.env]
    assert value_of(load(env={field.env: text}).settings, field.key) == field.default


def test_every_group_has_docs():
    assert all(GROUP_DOCS.values())


def test_the_settings_import_no_numpy_and_no_arrow():
    code = "import sys, mendstream.settings; print([m for m in ('numpy', 'pyarrow') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --- secrets ---------------------------------------------------------------------------------------------------------

CANARY = "canary-7f3a"


@pytest.mark.parametrize(
    "given",
    [
        {"env": {"DB_HOST": "h", "DB_PASSWORD": CANARY}},
        {"env": {"MENDSTREAM_STORE_PASSWORD": CANARY}},
        {"env": {"MENDSTREAM_STORE_URL": f"postgresql+psycopg://u:{CANARY}@h/d"}},
        {"env": {"MENDSTREAM_STORE_URL": f"postgresql://u:a/{CANARY}@h/d"}},
        {"env": {"MENDSTREAM_STORE_URL": f"postgresql://h/d?user=u&password={CANARY}&sslmode=require"}},
        {"env": {"MLFLOW_TRACKING_URI": f"https://u:{CANARY}@host/path"}},
        {"env": {}, "overrides": {"store.url": f"postgresql://u:p%40{CANARY}@h/d"}},
        {"env": {}, "overrides": {"store.password": Secret(CANARY)}},
    ],
)
def test_no_secret_is_printed(given):
    loaded = load(**given)
    settings = loaded.settings
    printed = [repr(loaded), str(settings), f"{settings.store.password}", json.dumps(loaded.shown())]
    printed.append(repr(msgspec.structs.asdict(settings.store)))
    assert not any(CANARY in text for text in printed)
    assert any(CANARY in text for text in (store_url(settings), mlflow_uri(settings), settings.store.password.reveal()))
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)


@pytest.mark.parametrize(
    "given",
    [
        {"env": {"MENDSTREAM_STORE_URL": f"postgres//u:{CANARY}@h"}},
        {"env": {"MENDSTREAM_DB_PASSWORD": CANARY}},
        {"env": {"MENDSTREAM_BUS_KIND": CANARY}},
        {"env": {}, "overrides": {"store.pasword": CANARY}},
        {"env": {}, "overrides": {"run.partitions": CANARY}},
        {"env": {}, "overrides": {"run.replicas": CANARY}},
        {"env": {}, "overrides": {"models.mlflow_uri": f"u:{CANARY}@h"}},
    ],
)
def test_no_secret_is_in_an_error(given):
    error = refusal(**given)
    assert CANARY not in str(error) + error.hint


def test_no_secret_of_the_file_is_in_an_error():
    written(f'[store]\npassword = "{CANARY}\n')
    error = refusal()
    assert CANARY not in str(error) + error.hint


@pytest.mark.parametrize(
    ("url", "bare", "password"),
    [
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db", ""),
        ("http://host:5000/a?x=b:c@d", "http://host:5000/a?x=b:c@d", ""),
        ("postgresql://u@h/d", "postgresql://u@h/d", ""),
        ("postgresql://u:p%2Fq@h/d", "postgresql://u@h/d", "p/q"),
        ("postgresql://u:p/q@h/d", "postgresql://u@h/d", "p/q"),
        ("postgresql://h/d?password=p&a=b", "postgresql://h/d?a=b", "p"),
        ("postgresql://h/d?a=b&password=p", "postgresql://h/d?a=b", "p"),
    ],
)
def test_a_password_is_taken_out_of_a_url_and_put_back_for_the_library(url, bare, password):
    settings = load(env={}, overrides={"models.mlflow_uri": url}).settings
    assert (settings.models.mlflow_uri, settings.models.mlflow_password.reveal()) == (bare, password)
    again = load(env={}, overrides={"models.mlflow_uri": mlflow_uri(settings)}).settings
    assert again.models.mlflow_password == settings.models.mlflow_password
    assert again.models.mlflow_uri.replace("//@", "//") == bare


def test_a_password_in_the_file_stands_with_its_url_in_any_order_and_falls_with_it():
    written(f'[store]\npassword = "{CANARY}"\nurl = "postgresql://u@h/d"\n')
    assert load(env={}).settings.store.password == Secret(CANARY)
    assert not load(env={}, overrides={"store.url": "postgresql://other/d"}).settings.store.password
