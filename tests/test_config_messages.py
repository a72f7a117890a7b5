"""What is misspelt in a configuration is told with its place, and with what may be meant."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

import asnmeta_updater
import citizenlab_test_lists_updater
import fingerprints_updater
from backup_config import Config as BackupConfig
from detector_config import Config as DetectorConfig
from geoip_config import Config as GeoipConfig
from ooni_common.config import Config
from ooni_common.config_environment import KEYS_OF_ANY_TOOL
from ooni_common.config_sources import load_config
from ooni_common.errors import ConfigError

EXPECTED = "expected 'public', 'private' or 'none'"
KEYS = "keep, mode, state_dir, statsd, tables, textfile_dir"


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    policy: Literal["public", "private", "none"]
    rows: Annotated[int, Meta(ge=1)] = 1


class ToolConfig(Config, frozen=True, kw_only=True):
    state_dir: Path = Path("/state")
    mode: Literal["", "export", "backup"] = ""
    keep: dict[str, Annotated[int, Meta(ge=1)]] = msgspec.field(default_factory=dict)
    tables: dict[str, Rule | Literal["public", "private", "none"]] = msgspec.field(
        default_factory=dict
    )


def refusal(folder: Path, text: str, **environ: str) -> str:
    """Return what is said of a file, without its folder."""
    file = folder / "tool.conf"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(ToolConfig, file, environ=environ)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[tables]\nfastpath = "public"\naccounts = "publik"\n',
            "tool.conf:3: tables: accounts: {EXPECTED}; did you mean 'public'?",
        ),
        (
            '{"tables": {\n "a": "public",\n "accounts": "x"}}',
            "tool.conf:3: tables: accounts: {EXPECTED}",
        ),
        (
            '[tables]\na = { policy = "privat" }\n',
            "tool.conf:2: tables: a: policy: {EXPECTED}; did you mean 'private'?",
        ),
        (
            '[tables]\n"a b" = { policy = "none", row = 1 }\n',
            "tool.conf:2: tables: a b: row: unknown key; did you mean 'rows'?",
        ),
        (
            '\n[tables.a]\npolicy = "none"\nrows = 0\n',
            "tool.conf:2: tables: a: rows: Expected int >= 1",
        ),
        ("[tables]\na = 5\n", "tool.conf:2: tables: a: {EXPECTED}"),
        ("[tables]\na = {}\n", "tool.conf:2: tables: a: Object missing required field policy"),
        ("keep = { daily = 0 }", "tool.conf:1: keep: daily: Expected int >= 1"),
        ("keep = 5", "tool.conf:1: keep: Expected object, got int"),
        (
            'mode = "exports"',
            "tool.conf:1: mode: expected '', 'export' or 'backup'; did you mean 'export'?",
        ),
        ("statds = 5", "tool.conf:1: unknown key 'statds'; did you mean 'statsd'?"),
        (
            "wholly_other = 5",
            "tool.conf:1: unknown key 'wholly_other'; allowed: {KEYS}",
        ),
    ],
)
def test_a_wrong_value_is_told_by_its_table_its_line_and_what_is_allowed(
    tmp_path: Path, text: str, message: str
) -> None:
    assert refusal(tmp_path, text) == message.format(EXPECTED=EXPECTED, KEYS=KEYS)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("OONI_STATE_DRI", "did you mean 'state_dir'?"),
        ("OONI_STATSD_", "did you mean 'statsd'?"),
        ("OONI_STATSd", "did you mean 'statsd'?"),
        ("OONI_HOME", f"allowed: {KEYS}"),
    ],
)
def test_a_variable_that_no_tool_reads_is_refused(
    tmp_path: Path, variable: str, meant: str
) -> None:
    message = refusal(tmp_path, "", **{variable: "x"})
    assert message == f"{variable}: no tool has such a key; {meant} (OONI_<KEY> sets a key)"


def test_variables_of_other_tools_developers_and_programs_are_left_alone(tmp_path: Path) -> None:
    """One environment is that of several tools: of /etc/ooni/analysis.env, for example."""
    environ = {
        "OONI_GIT_URL": "x", "OONI_DB_URI_FILE": "x", "OONI_TEST_DAYS": "1", "PATH": "/bin",
        "OONI_RECORD_STATEMENTS": "x", "OONIPROBE": "x",
    }  # fmt: skip
    assert load_config(ToolConfig, tmp_path / "x.conf", environ=environ) == ToolConfig()


def test_the_keys_of_all_tools_are_those_that_they_have() -> None:
    """Where this fails, ooni_common/config_environment.py lacks a key, or has one too many."""
    configs: list[type[Config]] = [
        asnmeta_updater.Config, citizenlab_test_lists_updater.Config, fingerprints_updater.Config,
        BackupConfig, DetectorConfig, GeoipConfig,
    ]  # fmt: skip
    keys = {key for config in configs for key in config.__struct_fields__}
    aliases = {alias for config in configs for alias in config.aliases}
    assert keys | aliases == KEYS_OF_ANY_TOOL | aliases
