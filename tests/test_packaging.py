"""What debian/tools.toml says of the tools is what they say of themselves.

The packages are built and tested by `make deb-check` and `make e2e`.
"""

import importlib
import tomllib
from pathlib import Path

import pytest

from ooni_common import __version__

ROOT = Path(__file__).parents[1]
TOOLS = tomllib.loads((ROOT / "debian/tools.toml").read_text())
FOLDERS = ("analysis", "db-backup", "detector", "geoip")


@pytest.mark.parametrize("command", TOOLS)
def test_a_tool_is_packaged_as_it_describes_itself(command: str) -> None:
    tool = TOOLS[command]
    path = ROOT / tool["script"]
    assert path.stat().st_mode & 0o111
    assert (ROOT / "debian/man" / f"{command}.h2m").exists()
    if "config" not in tool:
        return
    module = importlib.import_module(path.stem)
    script = module.SCRIPT
    assert script.command == command
    assert script.config_file == Path("/etc/ooni") / tool["config"]
    assert path.with_name(tool["config"]).exists()
    assert script.config_type().state_dir == Path("/var/lib") / tool["state"]
    assert tool["state"] == tool["package"]  # systemd makes it the user ooni's, with all below
    assert tool["identifier"].rpartition(".")[2] in (script.name, script.command)


def test_every_script_is_packaged() -> None:
    scripts = {
        f"{folder}/{path.name}"
        for folder in FOLDERS
        for path in (ROOT / folder).glob("*.py")
        if path.read_text().startswith("#!")
    }
    assert scripts == {tool["script"] for tool in TOOLS.values()}


def test_the_package_has_the_version_of_the_tools() -> None:
    changelog = (ROOT / "debian/changelog").read_text()
    assert changelog.startswith(f"ooni-backend-tools ({__version__}) ")


def test_every_timer_that_is_installed_is_enabled() -> None:
    rules = (ROOT / "debian/rules").read_text()
    timers = [f"{command}.timer" for command, tool in TOOLS.items() if "identifier" in tool]
    assert [timer for timer in timers if timer not in rules] == []
