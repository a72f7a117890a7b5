"""A configuration as TOML: it is read back as it is shown, and says where each value comes from."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ooni_common.config import Config, Secret, SecretUrl
from ooni_common.config_text import config_as_toml, toml_key, toml_value


class Rule(msgspec.Struct):
    policy: str
    rows: int = 5
    key: tuple[str, ...] = ()


class ToolConfig(Config, frozen=True, kw_only=True):
    state_dir: Path = Path("/state")
    verify: bool = True
    db_uri: SecretUrl = SecretUrl("clickhouse://api:secret@localhost/default")
    token: Secret | None = None
    tables: dict[str, Rule | str] = msgspec.field(default_factory=dict)
    max_shrink: float = 0.2


def test_each_value_is_shown_with_its_source() -> None:
    sources = {"verify": "/etc/x.conf:3", "db_uri": "credential\ndb_uri\x1b", "other": "nowhere"}
    config = ToolConfig(verify=False, tables={"a": "none"})
    assert (
        config_as_toml(config, sources)
        == """\
state_dir = "/state"  # default
statsd = "localhost:8125"  # default
textfile_dir = ""  # default
verify = false  # /etc/x.conf:3
db_uri = "clickhouse://api:***@localhost/default"  # credential?db_uri?
# token is not set
tables = { a = "none" }  # default
max_shrink = 0.2  # default"""
    )


def test_a_section_is_a_table_at_the_end() -> None:
    section = {"a": ("none", "/etc/x.conf:1"), "b c": (Rule("public"), "shipped")}
    text = config_as_toml(ToolConfig(), {}, {"tables": section, "rest": {}})
    assert text.endswith("""\
max_shrink = 0.2  # default

[tables]
a = "none"  # /etc/x.conf:1
"b c" = { policy = "public" }  # shipped""")
    assert text.count("tables") == 1
    assert "[rest]" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-5, "-5"),
        (0.5, "0.5"),
        ("", '""'),
        ('a "b" \\ \n', r'"a \"b\" \\ \n"'),
        ("é\x7f", '"é\\u007f"'),
        (Path("/a b"), '"/a b"'),
        (Secret("x"), '"***"'),
        ([], "[]"),
        ([1, "a"], '[1, "a"]'),
        (("a", ["b"]), '["a", ["b"]]'),
        ({}, "{}"),
        ({"a": 1, "b c": {"d": True}}, '{ a = 1, "b c" = { d = true } }'),
        (Rule("none"), '{ policy = "none" }'),
        (Rule("none", rows=6, key=("x",)), '{ policy = "none", rows = 6, key = ["x"] }'),
    ],
)
def test_a_value_is_shown_as_toml(value: Any, text: str) -> None:
    assert toml_value(value) == text
    assert tomllib.loads(f"x = {text}").keys() == {"x"}


def test_a_value_that_toml_can_not_have_is_told() -> None:
    with pytest.raises(TypeError, match="complex can't be written as TOML"):
        toml_value(1j)


@pytest.mark.parametrize("key", ["a", "A-1_b", "1", "a b", "", "é", "*_tmp", 'a"b', "a.b", "\x7f"])
def test_a_key_is_read_back_as_it_is(key: str) -> None:
    text = toml_key(key)
    assert tomllib.loads(f"{text} = 1") == {key: 1}
    assert text.startswith('"') == (key not in ("a", "A-1_b", "1"))
