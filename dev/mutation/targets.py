"""The pure modules, and the tests that have to notice a fault in one."""

from collections.abc import Mapping
from dataclasses import dataclass

Tests = tuple[str, ...]  # arguments of pytest

FAST = "not long and not compat and not production and not stores"


@dataclass(frozen=True)
class Target:
    """A module, or some that belong together.

    Attributes:
        modules: path → its own tests, which are quick.
        others: tests that run where those pass, one after the other.
    """

    modules: Mapping[str, Tests]
    others: tuple[Tests, ...] = ()

    def tests_of(self, module: str) -> tuple[Tests, ...]:
        """Return the tests that have to notice a fault in a module."""
        return (self.modules[module], *self.others)


CONFIG = ("tests/test_config.py", "tests/test_config_messages.py", "tests/test_config_text.py")
TARGETS = {
    "sequential": Target(
        {"detector/sequential.py": ("tests/test_detector_arithmetic.py",)},
        (("tests/test_detector_sequential.py",), ("tests/test_detector_context.py",)),
    ),
    "retention": Target({"db-backup/backups/retention.py": ("tests/test_backups_retention.py",)}),
    "digest": Target(
        {"db-backup/tables/digest.py": ("tests/test_digest_expressions.py",)},
        (("tests/test_digest.py",),),
    ),
    "levels": Target(
        {
            "db-backup/tables/blocks.py": (
                "tests/test_table_blocks.py",
                "tests/test_table_histories.py",
            ),
            "db-backup/exports/fingerprint.py": ("tests/test_exports_fingerprint.py",),
        }
    ),
    "config": Target(
        {
            f"ooni_common/config{part}.py": CONFIG
            for part in ("", "_environment", "_errors", "_files", "_sources", "_text")
        },
        (("tests/test_config_copy.py",), ("tests/test_mistakes.py",)),
    ),
    "validators": Target(
        {
            "analysis/citizenlab/urls.py": ("tests/test_citizenlab_lists.py",),
            "analysis/csv_source.py": (
                "tests/test_csv_source.py",
                "tests/test_citizenlab_lists.py",
            ),
            "analysis/fingerprints_file.py": ("tests/test_fingerprints_file.py",),
            "analysis/asn_map_file.py": ("tests/test_asn_map_file.py",),
        }
    ),
}
