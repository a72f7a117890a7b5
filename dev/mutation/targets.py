"""The pure modules, and the tests that have to notice a fault in one."""

from dataclasses import dataclass

FAST = "not long and not compat and not production and not stores"


@dataclass(frozen=True)
class Target:
    """A module, or some that belong together.

    Attributes:
        modules: their paths.
        tests: arguments of pytest, the quickest first; the next ones run if these pass.
    """

    modules: tuple[str, ...]
    tests: tuple[tuple[str, ...], ...]


TARGETS = {
    "sequential": Target(
        ("detector/sequential.py",),
        (("tests/test_detector_sequential.py",), ("tests/test_detector_evaluation.py",)),
    ),
    "retention": Target(
        ("db-backup/backups/retention.py",), (("tests/test_backups_retention.py",),)
    ),
    "digest": Target(
        ("db-backup/digest.py",),
        (("tests/test_digest.py", "-k", "split or type_is_hashed"), ("tests/test_digest.py",)),
    ),
    "config": Target(
        tuple(
            f"ooni_common/config{part}.py"
            for part in ("", "_environment", "_errors", "_files", "_sources", "_text")
        ),
        (
            ("tests/test_config.py",),
            ("tests/test_config_messages.py", "tests/test_config_copy.py"),
            ("tests/test_mistakes.py",),
        ),
    ),
    "validators": Target(
        (
            "analysis/citizenlab/urls.py",
            "analysis/csv_source.py",
            "analysis/fingerprints_file.py",
            "analysis/asn_map_file.py",
        ),
        (
            ("tests/test_csv_source.py", "tests/test_citizenlab_lists.py"),
            ("tests/test_fingerprints_updater.py", "tests/test_asnmeta_updater.py"),
            ("tests/test_updater_refusals.py", "tests/test_citizenlab_test_lists_updater.py"),
        ),
    ),
}
