"""What the columns of OONI's tables mean; a comment in the database goes before it.

docs/data.md has the same lines.
"""

from collections.abc import Mapping

SHARED: Mapping[str, str] = {
    "measurement_uid": "name of the measurement; its first 14 digits are the time (UTC) at which"
    " OONI received it",
    "report_id": "the run of the probe that it belongs to",
    "input": "what was tested, such as a URL; empty for tests of apps",
    "probe_cc": "country of the probe: ISO 3166, two letters; ZZ: unknown",
    "probe_asn": "network of the probe: its number as an autonomous system; 0: unknown",
    "test_name": "such as web_connectivity or whatsapp",
    "domain": "the domain of input",
    "measurement_start_time": "when this measurement began, by the probe's clock, which can be"
    " wrong; UTC",
}
FASTPATH: Mapping[str, str] = {
    "test_start_time": "when the run began, by the probe's clock; UTC",
    "filename": "not filled in today",
    "scores": "JSON: how anomaly and confirmed came about",
    "platform": "of the probe, such as android or linux",
    "anomaly": "t: it does not look like an uncensored network, which has many causes; f: it does",
    "confirmed": "t: the answer is a block page or a forged DNS answer that OONI has on file",
    "msm_failure": "t: the measurement itself failed, and says nothing",
    "software_name": "of the probe",
    "software_version": "of the probe",
    "control_failure": "not filled in today",
    "blocking_general": "not filled in today; scores has it",
    "is_ssl_expected": "not filled in today",
    "page_len": "not filled in today",
    "page_len_ratio": "not filled in today",
    "server_cc": "not filled in today",
    "server_asn": "not filled in today",
    "server_as_name": "not filled in today",
    "test_version": "version of the test's code",
    "architecture": "of the probe's processor, such as arm64",
    "engine_name": "of the measuring library in the probe",
    "engine_version": "of the measuring library in the probe",
    "test_runtime": "how long it took, in seconds",
    "blocking_type": "for websites: dns, tcp_ip, http-diff, http-failure, or empty",
    "test_helper_address": "the test helper that was asked for a comparison",
    "test_helper_type": "the kind of that test helper, such as https or cloudfront",
    "ooni_run_link_id": "the OONI Run link that started it; NULL: none",
    "is_verified": "whether the probe's identity was verified; u: not known",
}
JSONL: Mapping[str, str] = {
    "s3path": "the file in OONI's public bucket of raw data that has the whole measurement",
    "linenum": "its line in that file, from 0",
    "date": "the day of the file",
    "source": "which collector of OONI wrote the file",
}
TABLES: Mapping[str, Mapping[str, str]] = {"fastpath": FASTPATH, "jsonl": JSONL}
DESCRIPTIONS: Mapping[str, str] = {
    "fastpath": "One row is one measurement: a probe has tested an input once.",
    "jsonl": "Where the whole of a measurement is, in OONI's public bucket of raw data.",
}


def meaning(table: str, column: str) -> str:
    """Return what a column means; "" if that is not known."""
    return TABLES.get(table, {}).get(column) or SHARED.get(column, "")
