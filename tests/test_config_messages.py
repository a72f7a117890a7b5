"""What is misspelt in a configuration is told with its place, and with what may be meant."""

import math
from collections.abc import Mapping
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
from ooni_common.config import Bytes, Config, Count, Seconds, Share
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


def refusal(
    folder: Path,
    text: str,
    environ: Mapping[str, str] | None = None,
    kind: type[Config] = ToolConfig,
) -> str:
    """Return what is said of a file, without its folder."""
    file = folder / "tool.conf"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(kind, file, environ=environ or {})
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


class Optional(Config, frozen=True, kw_only=True):
    """Keys that need not be set, and choices that are no texts."""

    state_dir: Path = Path("/state")
    limits: dict[str, Count] | None = None
    either: Rule | int | None = None
    mode: Literal["on", "off"] | None = None
    level: Literal[1, 2] = 1
    only: Literal["this"] = "this"
    rules: list[Rule] = msgspec.field(default_factory=list)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits = { x = -1 }", "tool.conf:1: limits: x: Expected int >= 0"),
        ("limits = { x = { y = 1 } }", "tool.conf:1: limits: x: y: unknown key; allowed: "),
        ("limits = 5", "tool.conf:1: limits: Expected object | null, got int"),
        (
            "either = { policy = 5 }",
            "tool.conf:1: either: policy: expected 'public', 'private' or 'none'",
        ),
        ('either = "x"', "tool.conf:1: either: Expected int | object | null, got str"),
        ('mode = "of"', "tool.conf:1: mode: expected 'on' or 'off'; did you mean 'off'?"),
        ("mode = 5", "tool.conf:1: mode: expected 'on' or 'off'"),
        ('mode = ""', "tool.conf:1: mode: expected 'on' or 'off'"),
        ("level = 3", "tool.conf:1: level: expected 1 or 2"),
        ('level = "x"', "tool.conf:1: level: expected 1 or 2"),
        ('only = "that"', "tool.conf:1: only: expected 'this'"),
        (
            "rules = [{ rows = 1 }]",
            "tool.conf:1: rules: Object missing required field policy - at $[0]",
        ),
        # The key of that name in another table is not the place.
        (
            'only = "this"\n[limits]\nlevel = 1\nonly = -1',
            "tool.conf:4: limits: only: Expected int >= 0",
        ),
    ],
)
def test_a_wrong_value_of_what_need_not_be_set_is_told_likewise(
    tmp_path: Path, text: str, message: str
) -> None:
    assert refusal(tmp_path, text, kind=Optional) == message


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "tool.conf"
    file.write_text('either = 5\nlimits = { x = 0 }\nmode = "off"\nlevel = 2\n')
    config = load_config(Optional, file, environ={})
    assert (config.either, config.limits, config.mode, config.level) == (5, {"x": 0}, "off", 2)


class Limits(Config, frozen=True, kw_only=True):
    state_dir: Path = Path("/state")
    count: Count = 1
    seconds: Seconds = 1.0
    size: Bytes = 1
    share: Share = 0.5


@pytest.mark.parametrize(
    ("key", "accepted", "refused"),
    [
        ("count", [0, 10**12], [-1, 0.5]),
        ("seconds", [0.001, 1, 10**6], [0, -1, 1e300, math.inf, math.nan]),
        ("size", [1, 10**12], [0, -1]),
        ("share", [0, 0.2, 1], [-0.01, 1.01, 2]),
    ],
)
def test_numbers_are_within_their_bounds(
    tmp_path: Path, key: str, accepted: list[float], refused: list[float]
) -> None:
    file = tmp_path / "tool.conf"
    for number in accepted:
        file.write_text(f"{key} = {number}")
        assert getattr(load_config(Limits, file, environ={}), key) == number
    for number in refused:
        assert refusal(tmp_path, f"{key} = {number}", kind=Limits).startswith(
            f"tool.conf:1: {key}: Expected "
        )


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
    message = refusal(tmp_path, "", {"HOME": "/root", "OONI_TEST_X": "1", variable: "x"})
    assert message == f"{variable}: no tool has such a key; {meant} (OONI_<KEY> sets a key)"


def test_variables_of_other_tools_developers_and_programs_are_left_alone(tmp_path: Path) -> None:
    """One environment is that of several tools: of /etc/ooni/analysis.env, for example."""
    environ = {
        "OONI_GIT_URL": "x", "OONI_DB_URI_FILE": "x", "OONI_TEST_DAYS": "1", "PATH": "/bin",
        "OONI_RECORD_STATEMENTS": "x", "OONI_BENCH_ROWS": "1", "OONIPROBE": "x",
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
