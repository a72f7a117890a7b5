"""A release dates the changelogs, or is refused; what is refreshed is in the next one."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev import refresh, release
from dev.release import NotReadyError

NOW = datetime(2026, 12, 1, 10, 0, tzinfo=UTC)
CHANGELOG = """\
# Changelog

## 2.0.2 (unreleased)

### Before you upgrade

- **A key is gone from `x.conf`**: remove it.
- **With `cluster` set, the tools connect to every node** by host and native port.

## 2.0.1 (2026-11-26)

- **Something of before.** More.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a repository that is ready for 2.0.2."""
    for name, text in {
        "CHANGELOG.md": CHANGELOG,
        "ooni_common/__init__.py": '"""Common."""\n\n__version__ = "2.0.1"\n',
        "debian/changelog": "ooni-backend-tools (2.0.1) bookworm; urgency=medium\n",
        "debian/analysis.NEWS": "ooni-backend-tools (2.0.1) bookworm; urgency=medium\n",
        "debian/analysis.NEWS.next": "  Remove the key.\n",
        "debian/detector.NEWS.next": "  Look at it.\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", "-b", "main", tmp_path], check=True)
    for key, value in {"user.name": "Somebody", "user.email": "a@example.org"}.items():
        release.git(tmp_path, "config", key, value)
    release.git(tmp_path, "add", "--all")
    release.git(tmp_path, "commit", "-q", "-m", "Begin")
    return tmp_path


def test_a_release_dates_what_users_read_and_is_tagged(root: Path) -> None:
    release.check(root, "2.0.2")
    release.write(release.released(root, "2.0.2", NOW))
    release.commit_and_tag(root, "2.0.2", "")
    assert release.git(root, "describe") == "v2.0.2"
    assert release.git(root, "status", "--porcelain") == ""
    assert "## 2.0.2 (2026-12-01)\n" in (root / "CHANGELOG.md").read_text()
    assert '__version__ = "2.0.2"\n' in (root / "ooni_common/__init__.py").read_text()
    first, _, rest = (root / "debian/changelog").read_text().partition("\n -- ")
    assert first == (
        "ooni-backend-tools (2.0.2) bookworm; urgency=medium\n\n"
        "  * A key is gone from x.conf.\n"
        "  * With cluster set, the tools connect to every node.\n"
        "  * /usr/share/doc/ooni-backend-tools-venv/CHANGELOG.md.gz has the whole list.\n"
    )
    assert rest.splitlines()[0] == (
        "OONI <contact@openobservatory.org>  Tue, 01 Dec 2026 10:00:00 +0000"
    )
    assert rest.endswith("ooni-backend-tools (2.0.1) bookworm; urgency=medium\n")


def test_what_apt_shows_before_an_upgrade_gets_the_version(root: Path) -> None:
    release.write(release.released(root, "2.0.2", NOW))
    news = (root / "debian/analysis.NEWS").read_text()
    assert news.startswith(
        "ooni-backend-tools (2.0.2) bookworm; urgency=medium\n\n  Remove the key.\n\n -- OONI"
    )
    assert news.endswith("+0000\n\nooni-backend-tools (2.0.1) bookworm; urgency=medium\n")
    assert (root / "debian/detector.NEWS").read_text().count("urgency") == 1
    assert list((root / "debian").glob("*.next")) == []


def test_debians_own_parser_reads_the_changelog(root: Path) -> None:
    release.write(release.released(root, "2.0.2", NOW))
    command = ["dpkg-parsechangelog", f"-l{root}/debian/changelog", "-SVersion"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("dpkg-parsechangelog is in Debian's package dpkg-dev")
    assert done.stdout == "2.0.2\n"


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("2.0", "three numbers"),
        ("2.0.1", "2.0.1 is released already"),
        ("1.9.9", "2.0.1 is released already"),
        ("2.0.10", "has no line '## 2.0.10 (unreleased)'"),
    ],
)
def test_a_version_that_cannot_be_is_refused(root: Path, version: str, reason: str) -> None:
    def released() -> None:
        release.check(root, version)
        release.released(root, version, NOW)

    with pytest.raises(NotReadyError) as refused:
        released()
    assert reason in str(refused.value)


def test_what_git_has_must_be_clean_on_main_and_new(root: Path) -> None:
    (root / "left").write_text("")
    with pytest.raises(NotReadyError, match=r"\?\? left"):
        release.check(root, "2.0.2")
    (root / "left").unlink()
    release.git(root, "checkout", "-q", "-b", "aside")
    with pytest.raises(NotReadyError, match="this is aside"):
        release.check(root, "2.0.2")
    release.git(root, "checkout", "-q", "main")
    release.git(root, "tag", "v2.0.2")
    with pytest.raises(NotReadyError, match=r"the tag v2\.0\.2 exists"):
        release.check(root, "2.0.2")


def test_the_changelog_of_this_tree_can_be_released() -> None:
    text = (release.ROOT / "CHANGELOG.md").read_text()
    for section in text.split("\n## ")[1:]:
        lines = release.bullets(section).splitlines()
        assert lines
        assert max(map(len, lines)) <= 80


def test_a_refreshed_library_is_in_the_changelog_of_the_next_version() -> None:
    old = {"urllib3": "2.5.0", "idna": "3.10", "six": "1.0"}
    new = {"urllib3": "2.6.0", "idna": "3.10", "attrs": "25"}
    changed = refresh.changes(old, new)
    assert changed == ["attrs (new) → 25", "six 1.0 → (gone)", "urllib3 2.5.0 → 2.6.0"]
    text = refresh.with_libraries(CHANGELOG, changed)
    again = refresh.with_libraries(text, ["idna 3.10 → 3.11"])
    section = again.partition("## 2.0.1")[0]
    assert section.endswith(
        "### Libraries\n\n- idna 3.10 → 3.11\n- attrs (new) → 25\n- six 1.0 → (gone)\n"
        "- urllib3 2.5.0 → 2.6.0\n\n"
    )
    assert again.startswith(CHANGELOG.partition("## 2.0.1")[0])
    assert again.endswith(CHANGELOG.partition("## 2.0.1")[2])


def test_after_a_release_refreshed_libraries_begin_the_next_version() -> None:
    released = CHANGELOG.replace("2.0.2 (unreleased)", "2.0.2 (2026-12-01)")
    text = refresh.with_libraries(released, ["urllib3 2.5.0 → 2.6.0"])
    assert text.startswith(
        "# Changelog\n\n## 2.0.3 (unreleased)\n\n"
        "### Libraries\n\n- urllib3 2.5.0 → 2.6.0\n\n## 2.0.2 ("
    )


def test_every_library_of_a_server_is_pinned_once_and_can_be_refreshed() -> None:
    assert {"urllib3", "numpy", "prometheus-client"} <= refresh.pins().keys()
