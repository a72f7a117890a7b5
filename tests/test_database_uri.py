"""Parameters of a database URI: what can't work is refused (78) before anything is connected."""

import re
from pathlib import Path
from urllib.parse import quote, urlencode

import botocore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asnmeta_updater
import citizenlab_test_lists_updater
import detector
import fingerprints_updater
import ooni_db_backup
from conftest import ClickHouseServer
from ooni_common.config import DatabaseConfig, SecretUrl
from ooni_common.database import connected
from ooni_common.database_uri import PARAMETERS, REFUSED, check_parameters
from ooni_common.errors import ScriptError

WRONG = {
    "alt_hosts": ["b:port", "b,", ":9000", "b:0", "x@b", "a..b"],
    "check_hostname": ["maybe"],
    "ciphers": ["nonsense"],
    "compress_block_size": ["0", "-1", "many", "1e3"],
    "compression": ["zstd", "ZSTD", "gzip", "2"],
    "connect_timeout": ["0", "-1", "soon", "nan", "inf", "1e9"],
    "insert_block_size": ["0", "x"],
    "round_robin": ["true", "1", "yes", "maybe"],
    "secure": ["tls"],
    "send_receive_timeout": ["0", "5s"],
    "server_hostname": [".a", "a..b", "a\0b"],
    "settings_is_important": ["very"],
    "sync_request_timeout": ["nan"],
    "tcp_keepalive": ["1,2", "1,2,x", "1,2,3,4", "60,0,3", "99999,1,1"],
    "verify": ["no thanks"],
}
RIGHT = {
    "alt_hosts": ["b", "b:9000,[::1]:9001", "b.example"],
    "ciphers": ["HIGH"],
    "compress_block_size": ["1048576"],
    "compression": ["lz4", "LZ4", "lz4hc", "true", "0"],
    "connect_timeout": ["10", "0.5"],
    "insert_block_size": ["1000"],
    "round_robin": ["false", "0"],
    "secure": ["no"],
    "server_hostname": ["db.example.org"],
    "settings_is_important": ["1"],
    "tcp_keepalive": ["true", "60,10,3"],
    "max_threads": ["2"],
}
MAINS = (
    asnmeta_updater,
    citizenlab_test_lists_updater,
    fingerprints_updater,
    detector,
    ooni_db_backup,
)


def config_for(uri: str) -> DatabaseConfig:
    return DatabaseConfig(state_dir=Path("/nonexistent"), db_uri=SecretUrl(uri))


def uri_with(**parameters: object) -> str:
    return f"clickhouse://localhost/default?{urlencode(parameters)}"


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_with_what_is_expected(name: str, value: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^db_uri: {name}: expected {PARAMETERS[name].expected[:5]}"
    ):
        config_for(uri_with(**{name: value}))


@pytest.mark.parametrize("name", REFUSED)
def test_a_parameter_that_the_tools_can_not_work_with_is_refused_without_its_value(
    name: str,
) -> None:
    with pytest.raises(ValueError, match=rf"^db_uri: {name}: ") as caught:
        config_for(uri_with(**{name: "secret"}))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in RIGHT.items() for value in values]
)
def test_a_right_value_works(clickhouse_server: ClickHouseServer, name: str, value: str) -> None:
    with connected(config_for(clickhouse_server.uri(**{name: value}))) as database:
        assert database.query("SELECT 1") == [(1,)]


@pytest.mark.parametrize("parameter", ["compression=zstd", "round_robin=true"])
@pytest.mark.parametrize("tool", MAINS, ids=lambda tool: str(tool.__name__))
def test_every_tool_refuses_it_in_one_line(
    tool: object, parameter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tool.conf"
    config.write_text(f'db_uri = "clickhouse://localhost/default?{parameter}"\nstatsd = ""\n')
    assert tool.main(["--config", str(config)]) == 78  # type: ignore[attr-defined]
    printed = capsys.readouterr().err
    name = parameter.partition("=")[0]
    assert printed.startswith(f"error: {config}:1: db_uri: {name}: expected ")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "a\0b"])
def test_a_host_that_can_not_be_looked_up_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="db_uri: expected clickhouse://"):
        config_for(f"clickhouse://{host}/default")


def test_files_of_tls_are_looked_at(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.touch()
    for name, shown in (("ca_certs", "ca_certs"), ("certfile", "certfile, keyfile, keypass")):
        with pytest.raises(ValueError, match=f"^{shown}: No such file or directory$"):
            check_parameters(uri_with(**{name: missing}))
        with pytest.raises(ValueError, match=f"^{shown}: not a PEM file"):
            check_parameters(uri_with(**{name: empty}))
    check_parameters(uri_with(ca_certs=Path(botocore.__file__).with_name("cacert.pem")))


def parameters() -> st.SearchStrategy[list[tuple[str, str]]]:
    names = [*PARAMETERS, *REFUSED, "ca_certs", "certfile", "keyfile", "keypass", "client_name"]
    listed = sorted({value for values in (*WRONG.values(), *RIGHT.values()) for value in values})
    values = st.one_of(
        st.sampled_from(listed), st.text(max_size=8), st.floats().map(str), st.integers().map(str)
    )
    return st.lists(st.tuples(st.sampled_from(names), values), min_size=1, max_size=3)


@settings(max_examples=300)
@given(parameters())
def test_whatever_is_accepted_never_ends_as_a_bug(
    embedded_uri: str, pairs: list[tuple[str, str]]
) -> None:
    query = "&".join(f"{name}={quote(value)}" for name, value in pairs)
    uri = f"{embedded_uri}?connect_timeout=5&send_receive_timeout=5&{query}"
    said = ""
    try:
        with connected(config_for(uri)) as database:
            assert database.query("SELECT 1") == [(1,)]
    except (ValueError, ScriptError) as error:
        said = str(error)
    assert "\n" not in said
    assert not said or re.match(r"db_uri: |database: ", said)


@pytest.fixture(scope="module")
def embedded_uri(clickhouse_server: ClickHouseServer) -> str:
    return clickhouse_server.uri()
