"""One frozen group a room: each field with its default, unit, bounds and a line of docs. `fields.FIELDS` lists them."""

from typing import Annotated, Any, Literal

import msgspec

from mendstream.settings.secret import Secret


def about(doc: str, unit: str = "", **bounds: Any) -> msgspec.Meta:
    """What a field is, in a line; msgspec checks the bounds."""
    return msgspec.Meta(description=doc, extra={"unit": unit}, **bounds)


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all groups."""


Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Run(Group, frozen=True):
    """How the house runs on this machine."""

    data_dir: Annotated[str, about("Where logs, store, models and log files live.", "folder", min_length=1)] = (
        ".mendstream"
    )
    fuse: Annotated[bool, about("The four pipeline stages as one process and one transaction, or a process each.")] = (
        False
    )
    partitions: Annotated[int, about("Partitions of the data topics.", "partitions", ge=1, le=64)] = 1
    replicas: Annotated[
        dict[str, Annotated[int, msgspec.Meta(ge=1, le=64)]],
        about("Processes of a stage that share its partitions; a stage not named has one.", "stage = processes"),
    ] = {}
    seed: Annotated[int, about("Seed of all dice.", ge=0, le=2**63 - 1)] = 0
    assignment: Annotated[
        Literal["house", "group"],
        about("Who shares partitions among replicas: the supervisor of this house, or Kafka's consumer group."),
    ] = "house"
    namespace: Annotated[str, about("Prefix of all topics, where pipelines share a broker.", max_length=64)] = ""


class Bus(Group, frozen=True):
    """The log that everything travels on."""

    kind: Annotated[
        Literal["lmdb", "kafka"], about("lmdb: in the data directory, no server. kafka: brokers, for more machines.")
    ] = "lmdb"
    durability: Annotated[
        Literal["power", "process"],
        about("What a committed turn survives. power: loss of power too. process: the death of any process; faster."),
    ] = "power"
    map_size_mb: Annotated[int, about("Upper limit of each of the two log files.", "MiB", ge=16, le=1 << 20)] = 4096
    max_backlog: Annotated[
        int, about("Unread rows of a stage from which the stages before it wait.", "rows", ge=1, le=100_000_000)
    ] = 200_000
    max_batch_rows: Annotated[int, about("Most rows that one turn reads.", "rows", ge=1, le=100_000)] = 4000
    bootstrap_servers: Annotated[str, about("Kafka brokers, for bus.kind = kafka.", "host:port,...")] = ""
    client: Annotated[
        dict[str, str],
        about("Settings of librdkafka, as for TLS and SASL. Secrets as `env:NAME` or `file:PATH`.", "name = value"),
    ] = {}
    replication: Annotated[
        int, about("Copies of each Kafka topic that is made; -1: the brokers' default.", "brokers", ge=-1, le=16)
    ] = -1
    min_insync_replicas: Annotated[
        int,
        about("Copies of a turn that Kafka must have before it counts as done.", "brokers", ge=1, le=16),
    ] = 1


class Store(Group, frozen=True):
    """The SQL projection of incidents, actions, config history and memory."""

    url: Annotated[
        str, about("sqlite:///FILE or postgresql://USER@HOST:PORT/NAME; empty: SQLite in the data directory.", "URL")
    ] = ""
    password: Annotated[Secret, about("Password for store.url; one inside the URL is taken out and kept here.")] = (
        Secret()
    )
    connect_timeout_s: Annotated[
        int, about("PostgreSQL: how long a connection may take to be made.", "s", ge=2, le=600)
    ] = 5  # fmt: skip
    statement_timeout_s: Annotated[
        int,
        about("PostgreSQL: a statement that takes longer is ended; migrations may take longer.", "s", ge=1, le=3600),
    ] = 10
    pool_size: Annotated[
        int, about("PostgreSQL: connections that one process opens at most.", "connections", ge=1, le=100)
    ] = 4  # fmt: skip
    pool_timeout_s: Annotated[
        int, about("PostgreSQL: how long to wait for a free one of them.", "s", ge=1, le=600)
    ] = 5  # fmt: skip


class Ingestion(Group, frozen=True):
    """Where events come from, and which are refused."""

    source: Annotated[
        str,
        about(
            "file:PATH, stdin, http, kafka:TOPIC, kafka://HOST:PORT/TOPIC or python:MODULE:OBJECT; empty: no events.",
            "source",
        ),
    ] = ""
    client: Annotated[
        dict[str, str],
        about("As bus.client, for a source on a Kafka cluster of its own (kafka://...).", "name = value"),
    ] = {}
    value_format: Annotated[
        Literal["json", "avro", "protobuf", "frame"],
        about("A Kafka source's values: JSON, with a schema registry's number, or frames of mendstream.client."),
    ] = "json"
    schema_registry: Annotated[
        str, about("Schema registry of a Kafka source in avro or protobuf; several after commas.", "URL")
    ] = ""  # fmt: skip
    registry_client: Annotated[
        dict[str, str],
        about("Settings of the registry's client, as for TLS and credentials. Secrets as in bus.client.",
              "name = value"),
    ] = {}  # fmt: skip
    http_port: Annotated[Port, about("Port of the HTTP source.", "port")] = 8080
    http_host: Annotated[str, about("Address that the HTTP source listens on.", "host", min_length=1)] = "127.0.0.1"
    max_record_bytes: Annotated[
        int, about("A longer record becomes a dead letter.", "bytes", ge=64, le=64 << 20)
    ] = 1 << 20  # fmt: skip
    max_ahead_s: Annotated[int, about("An event further in the future becomes a dead letter.", "s", ge=0)] = 300
    max_age_s: Annotated[int, about("An older event becomes a dead letter.", "s", ge=1)] = 31_536_000
    dedupe_window: Annotated[
        int, about("Newest ids of a partition among which a repeat is dropped; 0: none.", "ids", ge=0, le=10_000_000)
    ] = 100_000
    linger_ms: Annotated[
        float,
        about(
            "Least time between two looks at the source: larger batches, less work, that much later.",
            "ms",
            ge=0,
            le=1000,
        ),
    ] = 1.0
    rate: Annotated[float, about("Pace of a python source; 0: unlimited.", "events/s", ge=0, le=10_000_000)] = 0.0


class Slo(Group, frozen=True):
    """What the pipeline promises."""

    latency_ms: Annotated[float, about("End-to-end latency limit; an edge of the latency buckets.", "ms", gt=0)] = 300.0
    accuracy: Annotated[float, about("Least share of right predictions.", "share", ge=0, le=1)] = 0.75


class Monitoring(Group, frozen=True):
    """How the house watches itself."""

    rules: Annotated[
        Literal["default", "brief"],
        about("default: fast and calibrated. brief: the original request's plain thresholds."),
    ] = "default"
    season_s: Annotated[
        float,
        about(
            "One season of the stream (such as a day): shorter windows say nothing about drift.", "s", ge=0, le=86_400
        ),
    ] = 2.0
    season_events: Annotated[
        int, about("The same in events; the longer of the two counts.", "events", ge=256, le=100_000_000)
    ] = 256
    label_ttl_s: Annotated[
        int, about("How long the joiner waits for a label, or a label for its event.", "s", ge=1, le=31_536_000)
    ] = 120
    arl_hours: Annotated[
        float, about("Mean time between false alarms of one detector on calm data.", "hours", gt=0, le=1_000_000)
    ] = 24.0


class Healing(Group, frozen=True):
    """How much proof a cure needs, and how much healing may do."""

    proof_s: Annotated[float, about("Least serving time that proves a cure.", "s", gt=0, le=3600)] = 2.0
    proof_events: Annotated[int, about("Least events that prove a cure.", "events", ge=1)] = 200
    proof_labels: Annotated[int, about("Least labels that prove a cure of accuracy.", "labels", ge=1)] = 100
    release_after_s: Annotated[
        float, about("How long probes must be good before the way out of SAFE_MODE.", "s", gt=0, le=86_400)
    ] = 5.0
    actions_per_hour: Annotated[int, about("Most remedies in any hour.", "actions", ge=1, le=10_000)] = 30
    person_timeout_s: Annotated[
        int, about("How long a proposal waits for a person before it expires.", "s", ge=1, le=31_536_000)
    ] = 3600


class Policy(Group, frozen=True):
    """What healing may do without asking."""

    dir: Annotated[str, about("Folder of your own .cedar files; empty: the shipped policies.", "folder")] = ""
    modes: Annotated[
        dict[str, Literal["observe", "ask", "auto"]],
        about("Per kind of action: only note it, ask a person, or act.", "action = mode"),
    ] = {}
    restarts_per_10min: Annotated[int, about("Most restarts of one target in 10 minutes.", "restarts", ge=0)] = 3


class Models(Group, frozen=True):
    """Where model versions are kept and made."""

    dir: Annotated[str, about("Folder of model versions; empty: `models` in the data directory.", "folder")] = ""
    mlflow_uri: Annotated[str, about("MLflow server; empty: SQLite in the data directory.", "URL")] = ""
    mlflow_password: Annotated[
        Secret, about("Password for models.mlflow_uri; one inside the URL is taken out and kept here.")
    ] = Secret()
    trainer: Annotated[
        Literal["on-demand", "resident"],
        about("Start the trainer when first needed, or with the house, as with an MLflow server."),
    ] = "on-demand"
    initial: Annotated[str, about("Model folder to import as the first version; empty: none.", "folder")] = ""


class Metrics(Group, frozen=True):
    """Prometheus metrics."""

    enabled: Annotated[bool, about("Whether each agent serves its metrics.")] = True
    base_port: Annotated[
        int, about("Port of the first agent; the others follow (8001 to 8007).", "port", ge=1, le=65529)
    ] = 8001
    host: Annotated[str, about("Address that metrics are served on.", "host", min_length=1)] = "127.0.0.1"


class Tracing(Group, frozen=True):
    """OpenTelemetry traces, with the extra `otel`."""

    enabled: Annotated[bool, about("Whether traces are sent: of sampled batches, and of every incident.")] = False
    endpoint: Annotated[
        str, about("Collector, by OTLP over HTTP; OTEL_EXPORTER_OTLP_ENDPOINT sets it too.", "URL", min_length=1)
    ] = "http://127.0.0.1:4318"
    sample: Annotated[
        float, about("Share of the batches that are followed from ingestion to decision.", "share", ge=0, le=1)
    ] = 0.01


class Chaos(Group, frozen=True):
    """Faults on purpose."""

    enabled: Annotated[bool, about("Whether injected faults are obeyed. Never in production.")] = False


class Log(Group, frozen=True):
    """Log files, under the data directory."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], about("The least severe line that is written.")
    ] = "info"  # fmt: skip


class Settings(Group, frozen=True):
    """Everything that a person sets, as it was when the process started."""

    pipeline: Annotated[
        str, about("Your pipeline, importable from the working folder; empty: none.", "module:object")
    ] = ""
    name: Annotated[
        str, about("Name of the house in metrics and reports; empty: the pipeline's own.", max_length=64)
    ] = ""
    run: Run = Run()
    bus: Bus = Bus()
    store: Store = Store()
    ingestion: Ingestion = Ingestion()
    slo: Slo = Slo()
    monitoring: Monitoring = Monitoring()
    healing: Healing = Healing()
    policy: Policy = Policy()
    models: Models = Models()
    metrics: Metrics = Metrics()
    tracing: Tracing = Tracing()
    chaos: Chaos = Chaos()
    log: Log = Log()
