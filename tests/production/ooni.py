"""OONI's own tables, as they stand on its three replicas."""

from dev.cluster.cluster import Cluster
from dev.samples.measurements import FASTPATH, JSONL

CITIZENLAB = """
    CREATE TABLE ooni.{table}
    (`domain` String, `url` String, `cc` FixedString(32), `category_code` String)
    ENGINE = ReplicatedReplacingMergeTree(
        '/clickhouse/{{cluster}}/tables/ooni/{table}/{{shard}}', '{{replica}}'
    )
    ORDER BY (domain, url, cc, category_code) SETTINGS index_granularity = 4
"""
FINGERPRINTS = """
    CREATE TABLE ooni.{table}
    (
        `name` String,
        `scope` Enum('nat' = 1, 'isp' = 2, 'prod' = 3, 'inst' = 4, 'vbw' = 5, 'fp' = 6{more}),
        `other_names` String,
        `location_found` String,
        `pattern_type` Enum('full' = 1, 'prefix' = 2, 'contains' = 3, 'regexp' = 4),
        `pattern` String,
        `confidence_no_fp` UInt8,
        `expected_countries` String,
        `source` String,
        `exp_url` String,
        `notes` String
    )
    ENGINE = EmbeddedRocksDB PRIMARY KEY(name)
"""
ASNMETA = """
    CREATE TABLE ooni.{table}
    (
        `asn` UInt32,
        `org_name` String,
        `cc` String,
        `changed` Date,
        `aut_name` String,
        `source` String
    )
    ENGINE = MergeTree ORDER BY (asn, changed)
"""
ANALYSIS = """
    CREATE TABLE ooni.analysis_web_measurement
    (
        `domain` String,
        `input` String,
        `test_name` String,
        `probe_asn` UInt32,
        `probe_as_org_name` String,
        `probe_cc` String,
        `resolver_asn` UInt32,
        `measurement_uid` String,
        `measurement_start_time` DateTime64(3, 'UTC'),
        `network_type` String,
        `top_probe_analysis` Nullable(String),
        `top_dns_failure` Nullable(String),
        `top_tcp_failure` Nullable(String),
        `dns_blocked` Float32,
        `dns_down` Float32,
        `dns_ok` Float32
    )
    ENGINE = ReplicatedReplacingMergeTree(
        '/clickhouse/{cluster}/tables/ooni/analysis_web_measurement/{shard}', '{replica}'
    )
    PARTITION BY substring(measurement_uid, 1, 6)
    ORDER BY (measurement_uid, measurement_start_time, probe_cc, probe_asn, domain)
"""
FAULTY = """
    CREATE TABLE ooni.faulty_measurements
    (
        `ts` DateTime64(3, 'UTC') DEFAULT now64(),
        `type` String,
        `probe_cc` String,
        `probe_asn` UInt32,
        `details` String,
        `uid` UUID DEFAULT generateUUIDv4()
    )
    ENGINE = ReplicatedReplacingMergeTree(
        '/clickhouse/{cluster}/tables/ooni/faulty_measurements/{shard}', '{replica}'
    )
    ORDER BY (ts, type, probe_cc, probe_asn, uid)
"""
CHANGEPOINTS = """
    CREATE TABLE ooni.event_detector_changepoints
    (
        `probe_asn` UInt32,
        `probe_cc` String,
        `domain` String,
        `ts` DateTime64(3, 'UTC'),
        `count_isp_resolver` Nullable(UInt32),
        `dns_isp_blocked` Nullable(Float32),
        `tcp_blocked` Nullable(Float32),
        `block_type` String
    )
    ENGINE = ReplicatedReplacingMergeTree(
        '/clickhouse/{cluster}/tables/ooni/event_detector_changepoints/{shard}', '{replica}'
    )
    PARTITION BY toYYYYMM(ts) ORDER BY (probe_asn, probe_cc, ts, domain)
"""
REPLICATED = {
    "citizenlab": CITIZENLAB.format(table="citizenlab"),
    "citizenlab_flip": CITIZENLAB.format(table="citizenlab_flip"),
    "fastpath": FASTPATH,
    "jsonl": JSONL,
    "analysis_web_measurement": ANALYSIS,
    "faulty_measurements": FAULTY,
    "event_detector_changepoints": CHANGEPOINTS,
}
# Made without ON CLUSTER: they are on the first node only.
ON_ONE_NODE = {
    "fingerprints_dns": FINGERPRINTS.format(table="fingerprints_dns", more=""),
    "fingerprints_http": FINGERPRINTS.format(
        table="fingerprints_http", more=", 'injb' = 7, 'prov' = 8"
    ),
    "asnmeta": ASNMETA.format(table="asnmeta"),
}


def create_tables(cluster: Cluster) -> None:
    """Make them in the database `ooni`."""
    for node in cluster.nodes:
        for name, statement in REPLICATED.items():
            node.execute(_replicated(name, statement))
    for statement in ON_ONE_NODE.values():
        cluster.nodes[0].execute(statement)


def _replicated(name: str, statement: str) -> str:
    """Return the statement for OONI's engine, where the sample has the one of a single server."""
    path = f"'/clickhouse/{{cluster}}/tables/ooni/{name}/{{shard}}', '{{replica}}'"
    single = "ENGINE = ReplacingMergeTree(update_time)"
    replicated = f"ENGINE = ReplicatedReplacingMergeTree({path}, update_time)"
    if single not in statement:
        return statement
    return statement.format(table=f"ooni.{name}").replace(single, replicated)
