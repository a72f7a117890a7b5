"""The configuration: where values come from, what is refused and how; secrets stay secret."""

import grp
import logging
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import pytest
from msgspec import Meta

from ooni_common.config import Config as CommonConfig
from ooni_common.config import (
    DatabaseConfig,
    Secret,
    SecretUrl,
    check_url,
    host_and_port,
    secrets_of,
)
from ooni_common.config_sources import load_config, sources_of
from ooni_common.database import literal
from ooni_common.errors import ConfigError
from privileges import without_privileges

PASSWORD = "correct-horse"
URI_WITH_PASSWORD = f"clickhouse://api:{PASSWORD}@db.example/default"


class Config(DatabaseConfig, frozen=True, kw_only=True):
    state_dir: Path = Path("/var/lib/analysis")
    db_uri: SecretUrl = SecretUrl("clickhouse://citizenlab@localhost/default")
    url: SecretUrl = SecretUrl("https://example.org/data.csv")
    token: Secret | None = None
    ca_file: Path | None = None
    max_rows: Annotated[int, Meta(ge=0)] = 1000
    verify: bool = True
    on_broken_file: Literal["refuse", "keep-previous"] = "refuse"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tool.conf"


def load(
    file: Path,
    text: str | None = None,
    *,
    mode: int = 0o640,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Config:
    if text is not None:
        file.write_text(text)
        file.chmod(mode)
    return load_config(Config, file, environ=environ or {}, flags=flags)


def refusal(
    file: Path,
    text: str | None = None,
    *,
    mode: int = 0o640,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> str:
    """Return the message, which is one line and exits with 78, without the folder of the test."""
    with pytest.raises(ConfigError) as caught:
        load(file, text, mode=mode, environ=environ, flags=flags)
    message = str(caught.value)
    assert caught.value.status == 78
    assert len(message.splitlines()) == 1
    return message.replace(f"{file.parent}/", "")


# --- where values come from ---


def test_without_a_file_every_key_has_its_default(file: Path) -> None:
    assert load(file) == Config()


def test_the_defaults_that_all_tools_have_are_those_of_the_manual() -> None:
    config = Config()
    assert (config.statsd, config.textfile_dir) == ("localhost:8125", "")
    assert (config.cluster, config.nodes, config.max_shrink) == ("", [], 0.2)
    assert config.sections({}) == {}


def test_toml_is_read(file: Path) -> None:
    config = load(file, 'max_shrink = 0.5\nca_file = "/etc/ca.pem"\nverify = false  # for now\n')
    assert (config.max_shrink, config.ca_file, config.verify) == (0.5, Path("/etc/ca.pem"), False)


@pytest.mark.parametrize("start", ["", "\n  ", "\ufeff"], ids=["bare", "spaced", "with-bom"])
def test_a_file_that_starts_with_a_brace_is_json(file: Path, start: str) -> None:
    config = load(file, start + '{"max_shrink": 0.5, "token": null, "verify": false}')
    assert (config.max_shrink, config.token, config.verify) == (0.5, None, False)


def test_keys_after_a_comment_of_a_json_file_are_read(file: Path) -> None:
    assert load(file, '{"max_rows": 1, "__why": "few", "verify": false}') == load(
        file, "max_rows = 1\nverify = false\n"
    )


def test_of_each_key_that_is_given_the_source_is_told(file: Path) -> None:
    file.write_text("verify = false\nmax_rows = 1\n")
    flags = {"max_rows": "2"}
    sources = sources_of(Config, file, environ={"OONI_STATSD": ""}, flags=flags)
    assert sources.keys() == {"verify", "max_rows", "statsd"}
    assert sources["verify"] == f"{file}:1"
    assert sources["max_rows"] == "the command line"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_end_of_the_line_is_not_a_part_of_a_secret(
    file: Path, tmp_path: Path, end: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(f"{PASSWORD}{end}".encode())
    secret.chmod(0o600)
    assert load(file, f'token_file = "{secret}"').token == Secret(PASSWORD)


def test_a_toml_file_may_have_a_byte_order_mark(file: Path) -> None:
    assert load(file, "\ufeffmax_rows = 7").max_rows == 7


def test_each_source_wins_over_the_one_before(file: Path, tmp_path: Path) -> None:
    def uri(source: str) -> str:
        return f"clickhouse://{source}@localhost/default"

    secret = tmp_path / "secret"
    secret.write_text(uri("secret-file") + "\n")
    secret.chmod(0o600)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "db_uri").write_text(uri("credential") + "\n")
    inline = f'db_uri = "{uri("file")}"\n'
    beside = f'db_uri_file = "{secret}"\n'
    environ: dict[str, str] = {}
    flags: dict[str, str] = {}

    def winner(text: str = beside) -> str:
        config = load(file, text, environ=environ, flags=flags)
        return config.db_uri.reveal().partition("://")[2].partition("@")[0]

    assert winner(inline) == "file"
    assert winner(beside) == "secret-file"
    environ["CREDENTIALS_DIRECTORY"] = str(credentials)
    assert winner() == "credential"
    environ["OONI_DB_URI_FILE"] = str(secret)
    assert winner() == "secret-file"
    environ = {"OONI_DB_URI": uri("environment")}
    assert winner() == "environment"
    flags["db_uri"] = uri("flag")
    assert winner() == "flag"


def test_a_credential_is_read_only_for_keys_with_secrets(file: Path, tmp_path: Path) -> None:
    (tmp_path / "max_rows").write_text("5")
    (tmp_path / "token").write_text("from-systemd\r\n")
    config = load(file, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert config.max_rows == 1000
    assert config.token == Secret("from-systemd")


def test_a_credential_may_be_readable_by_others_as_systemd_guards_its_folder(
    file: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("from-systemd")
    (tmp_path / "token").chmod(0o444)
    assert load(file, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}).token


def test_the_environment_is_converted_to_the_type_of_the_key(file: Path) -> None:
    config = load(
        file,
        environ={
            "OONI_MAX_ROWS": "12",
            "OONI_MAX_SHRINK": "1",
            "OONI_VERIFY": "false",
            "OONI_CA_FILE": "/ca.pem",
            "OONI_STATSD": "",
            "OONI_ON_BROKEN_FILE": "keep-previous",
            "OONI_TOKEN": "12345678",
            "OONI_TEST_CLICKHOUSE_URL": "something else",
        },
    )
    assert (config.max_rows, config.max_shrink, config.verify) == (12, 1.0, False)
    assert (config.ca_file, config.statsd) == (Path("/ca.pem"), "")
    assert (config.on_broken_file, config.token) == ("keep-previous", Secret("12345678"))


def test_a_file_named_on_the_command_line_is_read_in_place_of_the_default(tmp_path: Path) -> None:
    default, chosen = tmp_path / "default", tmp_path / "chosen"
    default.write_text("max_rows = 1")
    chosen.write_text("max_shrink = 0.3")
    config = load_config(Config, default, chosen_file=chosen, environ={})
    assert (config.max_rows, config.max_shrink) == (1000, 0.3)


# --- what is refused ---


def test_a_file_named_on_the_command_line_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^/.*/missing\.conf: no such file$"):
        load_config(Config, tmp_path / "x", chosen_file=tmp_path / "missing.conf", environ={})


def test_a_required_key_that_no_source_has_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"tool\.conf: the key 'state_dir' is missing$"):
        load_config(CommonConfig, file, environ={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "# max_shrank = 1\nmax_rows = 5\nmax_shrank = 0.1\n",
            "tool.conf:3: unknown key 'max_shrank'; did you mean 'max_shrink'?",
        ),
        ("\n[table]\nx = 1", "tool.conf:2: unknown key 'table'; allowed: "),
        ('{\n "verify": true,\n "max_shrank": 1}', "tool.conf:3: unknown key 'max_shrank'; "),
        (
            '# cluster: "a"\n#max_rows = 1\nstatsd = "max_rows:1"\nmax_rows = "5"\n',
            "tool.conf:4: max_rows: Expected int, got str",
        ),
        ("max_rows = 1.5", "tool.conf:1: max_rows: Expected int, got float"),
        ("max_rows = -1", "tool.conf:1: max_rows: Expected int >= 0"),
        ("\n\nmax_shrink = 1.01", "tool.conf:3: max_shrink: Expected float <= 1.0"),
        ('verify = "no"', "tool.conf:1: verify: Expected bool, got str"),
        ("state_dir = 5", "tool.conf:1: state_dir: Expected str, got int"),
        ("db_uri = 5", "tool.conf:1: db_uri: Expected str, got int"),
        ('{"token": 5}', "tool.conf:1: token: Expected str, got int"),
        (
            'on_broken_file = "x"',
            "tool.conf:1: on_broken_file: expected 'refuse' or 'keep-previous'",
        ),
        ("db_uri_file = 5", "tool.conf:1: db_uri_file: expected the path of a file"),
        ('db_uri_file = "/none/x"', "/none/x: no such file"),
        ('db_uri_file = "a\\u0000b"', "a\0b: embedded null byte"),
        ('state_dir = "a\\u0000b"', "tool.conf:1: state_dir: no path has a NUL byte in it"),
        ('ca_file = "a\\u0000b"', "tool.conf:1: ca_file: no path has a NUL byte in it"),
        ('max_rows = 5\nurl = "https://x"\nverify', "tool.conf:3: Expected '=' after a key"),
        ('max_rows = 5\nmax_rows = 6\nverify = "', "tool.conf:2: Cannot overwrite a value"),
        ("max_rows = 5\nmax_shrink =", "tool.conf:2: Invalid value"),
        ("\n" + '{"max_rows": yes}', "tool.conf:2: JSON is malformed: invalid character"),
        ('{"max_rows": ' + "[" * 100_000, "tool.conf: nested too deeply"),
        ('{"max_rows": 5,\n "verify": yes}\n', "tool.conf:2: JSON is malformed: invalid character"),
        ('{"max_rows": 5,\n', "tool.conf:1: Input data was truncated"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(
    file: Path, text: str, message: str
) -> None:
    assert refusal(file, text).startswith(message)


def test_the_place_of_a_mistake_is_told_once(file: Path) -> None:
    assert refusal(file, "\nmax_shrink = x") == "tool.conf:2: Invalid value; a text needs quotes"
    assert refusal(file, '{"verify": yes}') == "tool.conf:1: JSON is malformed: invalid character"
    assert refusal(file, '{"verify": true,\n\n\n') == "tool.conf:1: Input data was truncated"


def test_a_default_that_another_key_makes_wrong_is_said_of_the_file(file: Path) -> None:
    class Bounds(Config, frozen=True, kw_only=True):
        min_rows: int = 10

        def __post_init__(self) -> None:
            if self.min_rows > self.max_rows:
                raise ValueError("min_rows: more than max_rows")

    file.write_text("\nmax_rows = 5")
    with pytest.raises(ConfigError, match=r"tool.conf: min_rows: more than max_rows$"):
        load_config(Bounds, file, environ={})
    file.write_text("max_rows = 5\nmin_rows = 6")
    with pytest.raises(ConfigError, match=r"tool.conf:2: min_rows: more than max_rows$"):
        load_config(Bounds, file, environ={})


def test_what_is_wrong_in_the_environment_is_named_with_its_variable(file: Path) -> None:
    def message(key: str, value: str) -> str:
        return refusal(file, environ={f"OONI_{key}": value})

    assert message("MAX_ROWS", "many") == "OONI_MAX_ROWS: Expected int, got str"
    assert message("MAX_SHRINK", "2") == "OONI_MAX_SHRINK: Expected float <= 1.0"
    assert message("VERIFY", "maybe") == "OONI_VERIFY: Expected bool, got str"
    assert message("STATSD", "x").startswith("OONI_STATSD: statsd: expected host:port")
    assert message("DB_URI", "x").startswith("OONI_DB_URI: db_uri: expected clickhouse://")
    assert message("TOKEN_FILE", "/none/x") == "/none/x: no such file"


def test_what_is_wrong_on_the_command_line_is_said_to_be_there(file: Path) -> None:
    assert refusal(file, flags={"db_uri": "http://localhost"}) == (
        "the command line: db_uri: expected clickhouse://… or clickhouses://… with a host,"
        " and a port, if any, from 1 to 65535"
    )


def test_what_is_wrong_in_a_credential_is_named(file: Path, tmp_path: Path) -> None:
    (tmp_path / "db_uri").write_text("mysql://x")
    message = refusal(file, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert message.startswith("credential db_uri: db_uri: expected clickhouse://")


def test_a_file_that_is_a_folder_or_no_text_is_refused(tmp_path: Path, file: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder") == "folder: Is a directory"
    file.write_bytes(b'cluster = "\xff"')
    assert refusal(file) == "tool.conf: not UTF-8 text"


def test_a_file_that_may_not_be_read_is_refused(file: Path) -> None:
    file.write_text("max_rows = 5")
    file.chmod(0)
    with without_privileges(file):
        message = refusal(file)
        group = grp.getgrgid(os.getegid()).gr_name
    advice = f"run as root, or: chgrp {group} tool.conf; chmod g+r tool.conf"
    assert message == f"tool.conf: Permission denied; {advice}"


def test_a_group_without_a_name_is_told_by_its_number(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless(_number: int) -> None:
        raise KeyError

    monkeypatch.setattr(grp, "getgrgid", nameless)
    file.write_text("max_rows = 5")
    file.chmod(0)
    with without_privileges(file):
        assert f"chgrp {os.getegid()} tool.conf;" in refusal(file)


def test_a_file_in_a_folder_that_may_not_be_entered_is_to_be_moved(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    file = home / "tool.conf"
    file.touch(mode=0o644)
    home.chmod(0o600)
    with without_privileges(tmp_path):
        message = refusal(file)
    home.chmod(0o700)
    assert message.startswith("tool.conf: Permission denied; run as root, or move it: ")
    assert message.endswith(f" may not enter {home}")


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8125", "statsd.example.org:1", "10.0.0.1:65535", "[::1]:8125", "[fe80::1]:9"],
)
def test_statsd_is_a_host_and_a_port_or_nothing(file: Path, address: str) -> None:
    assert load(file, f'statsd = "{address}"').statsd == address


def test_an_address_is_taken_apart_into_host_and_port() -> None:
    assert host_and_port("db.example.org:9000") == ("db.example.org", 9000)
    assert host_and_port("[::1]:8125") == ("::1", 8125)


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        ":8125",
        "localhost:",
        "h:0",
        "h:65536",
        "::1:8125",
        "[::1]",
        "a b:1",
        "h:1\\n",
        "h..org:1",
        f"{'h' * 64}:1",
        "[1:2:3]:1",
        "h/x:1",
        "x@h:1",
        "h\\u0000:1",
    ],
)
def test_a_wrong_statsd_is_refused_with_what_is_allowed(file: Path, address: str) -> None:
    assert refusal(file, f'verify = true\nstatsd = "{address}"') == (
        'tool.conf:2: statsd: expected host:port, [IPv6 address]:port or ""'
    )


@pytest.mark.parametrize(
    "uri",
    [
        "clickhouse://localhost",
        "clickhouse://api:p%2Fw@localhost:9000/default",
        "clickhouses://api@[::1]:9440/default?verify=0",
    ],
)
def test_a_database_uri_is_accepted_as_the_driver_has_it(file: Path, uri: str) -> None:
    assert load(file, f'db_uri = "{uri}"').db_uri.reveal() == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "localhost",
        "postgres://localhost/default",
        "clickhouse:///default",
        "clickhouse://h:0/",
        "clickhouse://h:99999/",
        "clickhouse://h:port/",
    ],
)
def test_a_database_uri_needs_a_scheme_a_host_and_a_valid_port(file: Path, uri: str) -> None:
    assert refusal(file, f'db_uri = "{uri}"').startswith("tool.conf:1: db_uri: expected clickhouse")


def test_a_password_with_an_unescaped_slash_is_refused_and_not_shown(file: Path) -> None:
    # Read by the rules, this is host `api`, port 12 and database `34@db.example/default`.
    message = refusal(file, 'db_uri = "clickhouse://api:12/34@db.example/default"')
    assert message == ("tool.conf:1: db_uri: in the password write / as %2F, ? as %3F and # as %23")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("verify=maybe", "verify: expected true or false"),
        ("password=x", "password: belongs in front of the question mark"),
    ],
)
def test_a_parameter_that_the_driver_would_misread_is_refused(
    file: Path, query: str, reason: str
) -> None:
    message = refusal(file, f'db_uri = "clickhouse://localhost/default?{query}"')
    assert message.startswith(f"tool.conf:1: db_uri: {reason}")


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ('["db1"]', "expected host:port or [IPv6 address]:port, got 'db1'"),
        ('["db1:9000", "db2:0"]', "expected host:port or [IPv6 address]:port, got 'db2:0'"),
        ('["ch1..org:9000"]', "expected host:port or [IPv6 address]:port, got 'ch1..org:9000'"),
        ('["[1:2:3]:9000"]', "expected host:port or [IPv6 address]:port, got '[1:2:3]:9000'"),
        ('["x@db1:9000"]', "expected host:port or [IPv6 address]:port, got 'x@db1:9000'"),
        ('["db1:9000", "db2:9000", "db1:9000"]', "one of them is there twice"),
    ],
)
def test_nodes_are_hosts_with_a_port_and_each_is_there_once(
    file: Path, nodes: str, reason: str
) -> None:
    assert load(file, 'nodes = ["db1:9000", "[::1]:9000"]').nodes == ["db1:9000", "[::1]:9000"]
    assert refusal(file, f"\nnodes = {nodes}") == f"tool.conf:2: nodes: {reason}"


@pytest.mark.parametrize(
    "url",
    [
        "https://h:1/",
        "https://h:65535/x",
        "https://b\u00fccher.example/",
        "file://h/x",
        "file:///x",
    ],
)
def test_a_url_with_a_scheme_that_will_do_is_accepted(url: str) -> None:
    check_url("url", url, ("https", "file"), needs_host=not url.startswith("file:///"))


@pytest.mark.parametrize(
    "url",
    ["", "h", "http://h/", "https://", "https:///x", "https://h:0/", "https://h:65536/",
     "https://h:x/", "https://a..b/", f"https://{'a' * 64}/", "https://h/\0", "https://[h/"],
)  # fmt: skip
def test_a_url_that_can_not_be_asked_is_refused_with_what_is_allowed(url: str) -> None:
    allowed = "url: expected https://… or file://… with a host, and a port, if any, from 1 to 65535"
    with pytest.raises(ValueError, match=f"^{re.escape(allowed)}$"):
        check_url("url", url, ("https", "file"))
    if url not in ("https://", "https:///x"):
        allowed = allowed.replace(" with a host", "")
        with pytest.raises(ValueError, match=f"^{re.escape(allowed)}$"):
            check_url("url", url, ("https", "file"), needs_host=False)


def test_a_url_is_checked_for_its_schemes_and_a_host_where_it_needs_one() -> None:
    check_url("git_url", "file:///srv/lists", ("https", "file"), needs_host=False)
    with pytest.raises(ValueError, match=r"^url: expected https://… with a host, and a port"):
        check_url("url", "https:///x", ("https",))


def test_a_cluster_name_has_no_characters_that_mean_something_in_sql(file: Path) -> None:
    assert load(file, 'cluster = "oonidata-1.eu"').cluster == "oonidata-1.eu"
    assert refusal(file, 'cluster = "x\'; DROP"').startswith("tool.conf:1: cluster: ")


# --- secrets in files ---


@pytest.mark.parametrize(
    "text",
    [
        f'verify = true\ndb_uri = "{URI_WITH_PASSWORD}"',
        f'{{"db_uri": "{URI_WITH_PASSWORD}"}}',
        f'token = "{PASSWORD}"',
        f'url = "https://example.org/data?key={PASSWORD}"',
        f'url = "https://{PASSWORD}@example.org/data"',
        'token = "null"',
    ],
)
def test_a_file_with_a_secret_that_others_may_read_is_refused(file: Path, text: str) -> None:
    message = refusal(file, text, mode=0o644)
    assert message.startswith("tool.conf: holds ")
    assert message.endswith("and others may read it; run: chmod o= tool.conf")
    assert PASSWORD not in message
    assert load(file, text, mode=0o640)


@pytest.mark.parametrize(
    "text",
    [
        'db_uri = "clickhouse://citizenlab@localhost/default?connect_timeout=5"',
        'url = "https://example.org/data.csv"',
        'token = ""',
        '{"token": null}',
    ],
)
def test_a_file_without_a_secret_may_be_readable_by_all(file: Path, text: str) -> None:
    assert load(file, text, mode=0o644)


@pytest.mark.parametrize("through", ["the file", "the environment"])
def test_a_secret_file_that_others_may_read_is_refused(
    file: Path, tmp_path: Path, through: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    if through == "the file":
        message = refusal(file, f'token_file = "{secret}"')
    else:
        message = refusal(file, environ={"OONI_TOKEN_FILE": str(secret)})
    assert message == "secret: holds a secret and others may read it; run: chmod o= secret"


@pytest.mark.parametrize("first", ["db_uri", "db_uri_file", "token_file"])
def test_a_key_and_the_file_of_its_value_are_not_both_accepted(file: Path, first: str) -> None:
    """Neither wins silently: the other one may be what its writer believes to be in use."""
    key = first.removesuffix("_file")
    second = f"{key}_file" if first == key else key
    secret = file.with_name("secret")
    secret.touch(mode=0o600)
    for text in (f'{first} = "a"\n{second} = "b"', f'{{"{first}": "a",\n"{second}": "b"}}'):
        message = refusal(file, text.replace('"a"', f'"{secret}"'))
        assert message == f"tool.conf:2: both {first} and {second} are there; keep one of them"


def test_a_variable_and_the_file_of_its_value_are_not_both_accepted(file: Path) -> None:
    environ = {"OONI_TOKEN": "a", "OONI_TOKEN_FILE": "/dev/null"}
    expected = "both OONI_TOKEN and OONI_TOKEN_FILE are set; keep one of them"
    assert refusal(file, environ=environ) == expected


# --- secrets are never shown ---


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        (Secret(PASSWORD), "***"),
        (SecretUrl(URI_WITH_PASSWORD), "clickhouse://api:***@db.example/default"),
        (SecretUrl(f"https://joe:{PASSWORD}@h:1/p?a=1"), "https://joe:***@h:1/p?a=***"),
        (SecretUrl(f"https://joe:{PASSWORD}@pw@h/"), "https://joe:***@h/"),
        (SecretUrl(f"https://:{PASSWORD}@h/"), "https://:***@h/"),
        (SecretUrl(f"https://{PASSWORD}@h/"), "https://***@h/"),
        (SecretUrl(f"https://h/?key={PASSWORD}==&b={PASSWORD}"), "https://h/?key=***&b=***"),
        (SecretUrl(f"https://h/?{PASSWORD}"), "https://h/?***"),
        (SecretUrl(f"https://h/#{PASSWORD}"), "https://h/#***"),
        (SecretUrl("clickhouse://citizenlab@h/d"), "clickhouse://citizenlab@h/d"),
        (SecretUrl("https://h/path"), "https://h/path"),
    ],
)
def test_no_way_of_printing_shows_a_secret(secret: Secret, shown: str) -> None:
    assert str(secret) == f"{secret}" == format(secret) == "%s" % secret == shown  # noqa: UP031 (each way)
    assert repr(secret) == f"{type(secret).__name__}({shown!r})"
    record = logging.makeLogRecord({"msg": "%s %r", "args": (secret, [secret])})
    assert PASSWORD not in record.getMessage()


def test_a_whole_configuration_can_be_printed_without_its_secrets() -> None:
    config = Config(db_uri=SecretUrl(URI_WITH_PASSWORD), token=Secret(PASSWORD))
    assert PASSWORD not in f"{config} {config!r}"


def test_secrets_are_equal_by_their_text_and_type() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("https://h") != SecretUrl("https://h")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


@contextmanager
def no_password_in_the_traceback() -> Iterator[None]:
    with pytest.raises(ConfigError) as caught:
        yield
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "uri",
    [
        f"mysql://api:{PASSWORD}@localhost/",
        f"clickhouse://api:{PASSWORD}@localhost:port/",
        f"clickhouse://api:{PASSWORD}@[localhost/",
        f"clickhouse://api:{PASSWORD}@[zz]/",
        f"clickhouse://api:{PASSWORD}\u2100@localhost/",
        f"clickhouse://api:{PASSWORD}/x@localhost/",
        f"clickhouse://api:1/{PASSWORD}@localhost/",
        f"clickhouse://api:1?{PASSWORD}@localhost/",
        f"clickhouse://api:1#{PASSWORD}@localhost/",
        f"{PASSWORD}",
    ],
)
@pytest.mark.parametrize("source", ["file", "environment", "flag", "secret file"])
def test_a_wrong_uri_is_refused_without_showing_its_password(
    file: Path, tmp_path: Path, uri: str, source: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(uri)
    secret.chmod(0o600)
    with no_password_in_the_traceback():
        load(
            file,
            {"file": f'db_uri = "{uri}"', "secret file": f'db_uri_file = "{secret}"'}.get(source),
            environ={"OONI_DB_URI": uri} if source == "environment" else {},
            flags={"db_uri": uri} if source == "flag" else {},
        )


@pytest.mark.parametrize(
    "text",
    [
        f'token = ["{PASSWORD}"]',
        f'db_uri = {{password = "{PASSWORD}"}}',
        f'token = "{PASSWORD}',
        f'{{"token": "{PASSWORD}',
        f'{{"token": "{PASSWORD}" "x"',
        f"token = {PASSWORD}",
    ],
)
def test_a_file_with_a_mistake_is_refused_without_showing_the_secret_beside_it(
    file: Path, text: str
) -> None:
    with no_password_in_the_traceback():
        load(file, text)


def test_a_password_that_is_the_name_of_the_user_is_no_secret() -> None:
    config = Config(
        db_uri=SecretUrl("clickhouse://detector:detector@localhost/default"),
        url=SecretUrl("https://detector:detector@h/"),
        token=Secret(""),
    )
    assert secrets_of(config) == ["detector"]  # but of a web address, it can be one
    assert "***" in str(config.db_uri)


def test_the_secrets_to_mask_are_those_that_are_long_enough_with_the_longest_first() -> None:
    config = Config(
        db_uri=SecretUrl("clickhouse://api:p%C3%A4ssword@localhost/default?x=visible"),
        url=SecretUrl("https://t0ken-t0ken@h/?key=t0ken-&short=abc"),
        token=Secret("brief"),
    )
    assert secrets_of(config) == ["p%C3%A4ssword", "t0ken-t0ken", "pässword", "t0ken-"]


def test_a_secret_with_a_quote_is_masked_in_statements_too() -> None:
    secret = r"it's\a-secret"
    config = Config(token=Secret(secret))
    assert secrets_of(config) == [literal(secret)[1:-1], secret]


def test_the_identity_of_a_source_is_its_address_unless_that_holds_secrets() -> None:
    plain = "https://example.org/dbip-2026-11.gz"
    assert SecretUrl(plain).identity == plain
    one, other, *same = (
        SecretUrl(url).identity
        for url in (
            "https://example.org/file?key=one",
            "https://example.org/file?key=other",
            "https://user:word@example.org/file?key=one",
            "https://token@example.org/file?key=one",
        )
    )
    assert one != other
    assert same == [one, one]
    assert re.fullmatch("[0-9a-f]{64}", one)
