"""Manifests and statements from a bucket: bounded before they are decoded, and shown in part."""

import logging

import msgspec
import pytest
from clickhouse_driver.errors import ServerException

from documents import BYTES_OF_A_VALUE, LARGEST_MANIFEST, decoded_manifest, encoded
from ooni_common.errors import DataRefused
from schemas.refusals import LONGEST_SHOWN, MOST_SHOWN, NotUnderstood, blamed_on, refused_schema


class Sample(msgspec.Struct):
    """A manifest."""

    names: list[str] = []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"[" * (LARGEST_MANIFEST // BYTES_OF_A_VALUE + 1), "more values", id="many"),
        pytest.param(b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply", id="deep"),
        pytest.param(b'{"names": [1]}', "Expected `str`", id="of another type"),
        pytest.param(b'{"names": ["\xff"]}', "damaged", id="no UTF-8"),
    ],
)
def test_a_damaged_manifest_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(DataRefused, match=reason) as caught:
        decoded_manifest(content, Sample, "manifest.json")
    assert str(caught.value).startswith("manifest.json damaged: ")


def test_what_could_not_be_read_back_is_not_written() -> None:
    assert decoded_manifest(encoded(Sample(["a"]), "k"), Sample, "k") == Sample(["a"])
    with pytest.raises(DataRefused, match="more than the 10 that are read back"):
        encoded(Sample(["a" * 10]), "k", largest=10)
    with pytest.raises(DataRefused, match="as another one"):
        encoded(Sample(("a",)), "k")  # type: ignore[arg-type]


def test_a_statement_that_is_not_executed_is_shown_in_part(
    caplog: pytest.LogCaptureFixture,
) -> None:
    short, long, wide = "a\nb", "x\n" * (MOST_SHOWN + 1), "y" * (LONGEST_SHOWN + 1)
    with caplog.at_level(logging.WARNING):
        for statement in (short, long, wide):
            refusal = refused_schema("events", statement, "it calls url()")
    assert "events: the schema in its manifest is not executed: it calls url();" in str(refusal)
    lines = [record.getMessage().strip() for record in caplog.records]
    assert lines[:3] == ["events is not made; its statement is:", "a", "b"]
    assert lines.count("x") == MOST_SHOWN
    (shown,) = [line for line in lines if line.startswith("yyy")]
    assert len(shown) <= LONGEST_SHOWN  # a log that is set up keeps less of a line
    assert lines.count("… and more; see the manifest in the bucket") == 2


def test_a_statement_that_the_server_does_not_understand_is_blamed_on_the_bucket() -> None:
    with (
        pytest.raises(NotUnderstood, match="UNKNOWN_FUNCTION"),
        blamed_on("manifest.json"),
    ):
        raise ServerException("DB::Exception: Unknown function f (UNKNOWN_FUNCTION)", 46)
