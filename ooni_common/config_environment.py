"""The environment variables that give a configuration its values: OONI_<KEY>."""

from collections.abc import Collection, Mapping

from ooni_common.errors import ConfigError
from ooni_common.suggestions import did_you_mean

PREFIX = "OONI_"
FILE = "_FILE"  # at the end of a variable that names the file of a secret
# Of the tests, the benchmarks and the recorder of statements.
FOR_DEVELOPERS = ("OONI_TEST_", "OONI_RECORD_", "OONI_BENCH_")
# An environment can be that of several tools (/etc/ooni/analysis.env): only what none has is
# a mistake. tests/test_config_messages.py compares this with the tools' own keys.
_KEYS = """
action asn_cc_file asn_cc_type asn_cc_url asn_file asn_type asn_url backup_tables ca_file
category_column cc_file cc_type cc_url cluster compression_level databases db_uri dns_url
extra_category_codes formats full_every git_time_limit git_token git_url heartbeat_url history_days
hold_days http_url incident_hours jobs keep keep_chains keep_days keep_snapshots late_days
legend_column legend_file manifest_key max_age_days max_backup_time max_bandwidth max_bytes
max_country_shrink max_execution_time max_rejected_rows max_rows max_running_queries
max_shrink max_size max_threads max_wait min_rows nodes on_broken_file ordinary_dir
output_dir page_days private_addressing private_aws_access_key_id
private_aws_secret_access_key private_aws_session_token private_bucket_name private_ca_file
private_endpoint private_named_collection private_prefix private_region private_retries
private_sse private_sse_kms_key_id private_storage_class prune_after_days public_addressing
public_aws_access_key_id public_aws_secret_access_key public_aws_session_token
public_base_url public_bucket_name public_ca_file public_contact public_endpoint
public_licence public_licence_url public_owner public_prefix public_region public_sse
public_sse_kms_key_id public_storage_class public_url publish read_timeout rest
restore_password restore_user retries retry_wait services stale_days state_dir statsd tables
textfile_dir total_time url url_column ver withdrawn
"""
KEYS_OF_ANY_TOOL = frozenset(_KEYS.split())


def variable_of(key: str) -> str:
    """Return the name of the variable that overrides a key."""
    return PREFIX + key.upper()


def refuse_unknown(environ: Mapping[str, str], keys: Collection[str]) -> None:
    """Refuse variables that no tool reads: whoever set them believes that they are in force.

    Args:
        environ: the environment.
        keys: those of this tool.

    Raises:
        ConfigError: names the first one.
    """
    allowed = {variable_of(key) for key in (*keys, *KEYS_OF_ANY_TOOL)}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name.startswith(FOR_DEVELOPERS):
            continue
        if name not in allowed and name.removesuffix(FILE) not in allowed:
            meant = did_you_mean(name.removeprefix(PREFIX), keys)
            raise ConfigError(f"{name}: no tool has such a key; {meant} ({PREFIX}<KEY> sets a key)")
