"""Which policy a table has, of the file and of what is shipped, and how it is shown."""

import re
import tomllib
from pathlib import Path

import pytest

import backup_config
from backup_config import Config
from db_backup_harness import BackupTool
from ooni_common.config import SecretUrl
from ooni_common.config_text import config_as_toml
from tables.policy import SHIPPED

ROOT = Path(__file__).parents[1]
CREATED = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(?:\w+\.)?(\w+)")


def policy(config: Config, table: str) -> str | None:
    """Return the policy of a table."""
    policy = config.policy_of(table)
    return policy.policy if policy else None


def test_the_tables_of_the_sister_packages_are_listed_as_shipped() -> None:
    """Field S2."""
    texts = [(ROOT / name).read_text() for name in ("analysis/tables.sql", "detector/tables.sql")]
    tables = {table for text in texts for table in CREATED.findall(text)}
    assert {"citizenlab", "fingerprints_dns", "asnmeta", "blocking_events"} <= tables
    assert Config().unlisted([*tables, "x_restored", "fastpath", "accounts"]) == ["accounts"]


def test_the_shipped_file_shows_the_shipped_lines() -> None:
    file = Path(backup_config.__file__).with_name("db-backup.conf")
    shown = file.read_text().partition("[tables]\n")[2].replace("#", "")
    assert tomllib.loads(shown) == SHIPPED


def test_a_line_of_the_file_is_added_to_what_is_shipped() -> None:
    """Field S3."""
    config = Config(tables={"accounts": "private"})
    tables = ("accounts", "fastpath", "jsonl", "other")
    assert [policy(config, table) for table in tables] == ["private", "public", "public", None]
    assert config.policy_of("fastpath") == Config().policy_of("fastpath")


def test_a_name_or_pattern_of_the_file_goes_before_what_is_shipped() -> None:
    config = Config(tables={"fastpath": "none", "citizen*": "private", "*_tmp": "both"})
    tables = ("fastpath", "citizenlab", "citizenlab_flip", "x_tmp", "x_flip")
    assert [policy(config, table) for table in tables] == [
        "none", "private", "private", "both", "none",
    ]  # fmt: skip
    assert policy(Config(tables={"*": "private"}), "fastpath") == "private"


def test_what_is_only_shipped_need_not_be_in_the_database() -> None:
    assert Config(tables={"accounts": "private"}).missing(["accounts"]) == []


def test_a_run_with_all_packages_and_a_drill_on_one_database(backup_tool: BackupTool) -> None:
    """Field S2."""
    for name in ("accounts", "citizenlab", "citizenlab_flip", "asnmeta", "blocking_status"):
        backup_tool.database.execute(f"CREATE TABLE {name} (a UInt8) ENGINE = MergeTree ORDER BY a")
    backup_tool.database.execute("INSERT INTO accounts VALUES (1)")
    backup_tool.keep_private(tables={"accounts": "private"})
    assert backup_tool.run("run")[0] == 0
    assert backup_tool.run("restore", "accounts")[0] == 0
    assert backup_tool.run("run")[0] == 0
    assert list(backup_tool.backups()[-1].tables) == ["accounts"]


# --- print-config ---


def test_the_configuration_is_shown_as_toml_with_the_source_of_each_value(
    backup_tool: BackupTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_tool.configure(tables={"accounts": "private", "a b": "none"}, keep={"daily": 7})
    monkeypatch.setenv("OONI_REST", "0.5")
    status, text = backup_tool.run("print-config", "--textfile", "/tmp/metrics")
    assert status == 0
    shown = tomllib.loads(text)
    assert set(Config.__struct_fields__) - shown.keys() == {
        "ca_file", "public_ca_file", "private_ca_file",
    }  # fmt: skip
    assert (shown["rest"], shown["keep"], shown["max_shrink"]) == (0.5, {"daily": 7}, 0.2)
    assert list(shown["tables"])[:3] == ["accounts", "a b", "fastpath"]
    assert shown["tables"]["fastpath"]["chunk_by"] == "month"
    sources = dict(re.findall(r"^([a-z_]+) = .*  # (.*)$", text, re.MULTILINE))
    assert sources["rest"] == "OONI_REST"
    assert sources["textfile_dir"] == "the command line"
    assert sources["keep"].startswith(f"{backup_tool.config_file}:")
    assert sources["accounts"].startswith(f"{backup_tool.config_file}:")
    assert (sources["max_shrink"], sources["jsonl"]) == ("default", "default")
    assert shown["public_aws_secret_access_key"] == "***"
    assert str(backup_tool.config["public_aws_secret_access_key"]) not in text


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\x7f", "\x01", "é", "'", "#"])
def test_any_text_is_shown_as_valid_toml(text: str) -> None:
    config = Config(statsd="", textfile_dir=text, tables={text: "none"})
    shown = tomllib.loads(config_as_toml(config, {}, {"tables": config.explained(f"x{text}:1")}))
    assert (shown["textfile_dir"], shown["tables"][text]["policy"]) == (text, "none")


def test_a_password_in_an_address_is_not_shown() -> None:
    config = Config(db_uri=SecretUrl("clickhouse://user:pa55word@db/ooni"))
    shown = tomllib.loads(config_as_toml(config, {}))
    assert shown["db_uri"] == "clickhouse://user:***@db/ooni"
