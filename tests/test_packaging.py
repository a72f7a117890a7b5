"""What debian/tools.toml says of the tools is what they say of themselves.

The packages are built and tested by `make deb-check` and `make e2e`.
"""

import ast
import importlib
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

from dev.e2e.upgrades import PACKAGES
from ooni_common import __version__
from ooni_common.textfile import metrics_of

ROOT = Path(__file__).parents[1]
TOOLS = tomllib.loads((ROOT / "debian/tools.toml").read_text())
FOLDERS = ("analysis", "db-backup", "detector", "geoip")


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "debian" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INSTALL_TOOLS = _module("install_tools")
SERVICES = {
    service["unit"]: service
    for command, keys in TOOLS.items()
    for service in INSTALL_TOOLS.services_of({"command": command, "unit": command} | keys)
}


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
    assert tool["metrics"] == script.name


@pytest.mark.parametrize("command", [name for name, tool in TOOLS.items() if "metrics" in tool])
def test_a_manual_names_every_metric_of_its_tool(command: str) -> None:
    assert "\n@metrics@" in (ROOT / "debian/man" / f"{command}.h2m").read_text()
    text = _module("install_tools").metrics_manual(TOOLS[command])
    for metric in metrics_of(TOOLS[command]["metrics"]):
        assert re.search(rf"\b{metric.name.replace('*', 'NAME')}\b", text.replace(r"\fB", " "))


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


@pytest.mark.parametrize("command", SERVICES)
def test_only_a_service_that_runs_seldom_is_started_again_after_a_failure(
    command: str, tmp_path: Path
) -> None:
    """What systemd makes of it: dev/e2e/restarts.py."""
    unit = tmp_path / "unit"
    tool = SERVICES[command]
    _module("install_tools").fill(tool, "service.in", unit)
    lines = set(unit.read_text().splitlines())
    again = {
        "Restart=on-failure",
        "RestartPreventExitStatus=1 2 65 70 78",
        "StartLimitIntervalSec=12h",
        "StartLimitBurst=6",
        f"# systemctl reset-failed {command}",
    }
    if tool["calendar"] in ("daily", "weekly", "monthly"):
        assert again < lines
    else:
        assert lines.isdisjoint(again)
        assert "StartLimitIntervalSec=0" in lines


def test_every_timer_that_is_installed_is_enabled() -> None:
    rules = (ROOT / "debian/rules").read_text()
    timers = [f"{unit}.timer" for unit in SERVICES]
    assert [timer for timer in timers if timer not in rules] == []


def test_the_verification_is_a_service_of_the_backup_tool(tmp_path: Path) -> None:
    unit = tmp_path / "unit"
    INSTALL_TOOLS.fill(SERVICES["ooni-db-backup-verify"], "service.in", unit)
    lines = set(unit.read_text().splitlines())
    assert {
        "ExecStart=/usr/bin/ooni-db-backup verify --sample 20",
        "StateDirectory=ooni-db-backup",
        "LoadCredential=db-backup.conf:/etc/ooni/db-backup.conf",
        "SyslogIdentifier=ooni-db-backup",
    } < lines
    tool = importlib.import_module("ooni_db_backup")
    assert tool.main(["verify", "--sample", "20", "--check-config"]) == 0
    INSTALL_TOOLS.fill(SERVICES["ooni-db-backup-verify"], "timer.in", unit)
    assert "OnCalendar=monthly" in unit.read_text().splitlines()


@pytest.mark.parametrize("command", SERVICES)
def test_only_what_cannot_work_without_a_configuration_waits_for_one(
    command: str, tmp_path: Path
) -> None:
    """The others have defaults for all keys. What systemd makes of it: dev/e2e/installation.py."""
    unit = tmp_path / "unit"
    INSTALL_TOOLS.fill(SERVICES[command], "service.in", unit)
    conditions = re.findall(r"(?m)^ExecCondition=(?:.*\\\n)*.*$", unit.read_text())
    if not command.startswith("ooni-db-backup"):
        assert conditions == []
        return
    (condition,) = conditions
    assert '[ "$$(/usr/bin/ooni-db-backup is-configured 2> /dev/null)" != no ] || {' in condition


def test_a_tool_is_installed_with_its_packages_and_their_templates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source/tool"
    for name in ("tool.py", "parts.py", "pages/__init__.py", "pages/page.py", "pages/page.jinja"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("#!/usr/bin/env python3\n")
    for name in ("ordinary/pages/a.html", "ordinary/pages/more/b.html", "ordinary/README.md"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    for name in ("tool.conf", "samples/sample.py", "pages/__pycache__/page.cpython-311.pyc"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    install_tools = _module("install_tools")
    monkeypatch.setattr(install_tools, "SOURCE", tmp_path / "source")
    root = tmp_path / "root"
    install_tools.install_script({"script": "tool/tool.py", "command": "ooni-tool"}, root)
    folder = root / install_tools.LIBRARY / "tool"
    installed = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert installed == {
        "tool.py", "parts.py", "pages/__init__.py", "pages/page.py", "pages/page.jinja",
        "ordinary/pages/a.html", "ordinary/pages/more/b.html",
    }  # fmt: skip
    assert (root / "usr/bin/ooni-tool").resolve() == folder / "tool.py"


def test_a_command_can_have_another_name_with_its_manual_and_its_completion(
    tmp_path: Path,
) -> None:
    """`detector` and `analysis` are plain words; the names that others use stay."""
    assert {tool["alias"] for tool in TOOLS.values() if "alias" in tool} == {
        "ooni-analysis", "ooni-detector",
    }  # fmt: skip
    tool = {"command": "detector", "alias": "ooni-detector"}
    paths = ("usr/bin/{}", "usr/share/man/man8/{}.8", "usr/share/bash-completion/completions/{}")
    for path in paths:
        (tmp_path / path.format("detector")).parent.mkdir(parents=True)
        (tmp_path / path.format("detector")).touch()
    INSTALL_TOOLS.install_alias(tool, tmp_path)
    for path in paths:
        link = tmp_path / path.format("ooni-detector")
        assert link.resolve() == (tmp_path / path.format("detector")).resolve()
        assert not link.readlink().is_absolute()


def test_every_folder_of_modules_below_a_tool_is_a_package_that_is_installed() -> None:
    install_tools = _module("install_tools")
    for name in FOLDERS:
        folder = ROOT / name
        data = [path for path in folder.glob("ordinary/**/*.*") if path.suffix != ".md"]
        patterns = ("*.py", "*.jinja", "*.schema.json")
        files = [path for pattern in patterns for path in folder.rglob(pattern)]
        files += filter(Path.is_file, data)
        assert sorted(install_tools.files_of(folder)) == sorted(files)


@pytest.mark.parametrize("folder", ["ooni_common", *FOLDERS])
def test_the_packages_of_a_tool_have_the_libraries_that_it_imports(folder: str) -> None:
    """What only detector.txt has is not there where the detector isn't installed."""
    files = ["runtime.txt", "detector.txt"] if folder == "detector" else ["runtime.txt"]
    pins = "".join((ROOT / "requirements" / file).read_text() for file in files)
    pinned = set(re.findall(r"^([a-z0-9-]+)==", pins, re.MULTILINE))
    distributions = {
        name: {re.sub("[_.]", "-", distribution.lower()) for distribution in among}
        for name, among in packages_distributions().items()
    }
    ours = {path.stem for path in (ROOT / folder).rglob("*")} | {"ooni_common"}
    libraries = {
        name
        for path in (ROOT / folder).rglob("*.py")
        for name in imported(ast.parse(path.read_text()))
        if name not in ours | sys.stdlib_module_names
    }
    assert libraries
    assert [name for name in sorted(libraries) if not pinned & distributions[name]] == []


def imported(node: ast.AST) -> Iterator[str]:
    """Yield what is imported when a module runs, and not only for the types."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield (node.module or "").partition(".")[0]
    for child in ast.iter_child_nodes(node):
        yield from imported(child)


def test_names_of_modules_are_unique_over_the_tools() -> None:
    names = [path.stem for folder in FOLDERS for path in (ROOT / folder).glob("*.py")]
    names += [
        path.parent.name for folder in FOLDERS for path in (ROOT / folder).glob("*/__init__.py")
    ]
    assert sorted(names) == sorted(set(names))


def packages() -> set[str]:
    return set(re.findall("(?m)^Package: (.*)$", (ROOT / "debian/control").read_text()))


def test_every_package_is_tested_end_to_end_and_in_the_readme() -> None:
    readme = (ROOT / "debian/README.md").read_text()
    assert set(PACKAGES) == packages()
    assert {name for name in packages() if f"| `{name}` |" in readme} == packages()


def test_alerts_dashboards_and_runbook_are_in_a_package() -> None:
    """Field S12: they were in none."""
    name = "debian/ooni-backend-tools-monitoring"
    installed = (ROOT / f"{name}.install").read_text().split()[::2]
    assert {ROOT / path for path in installed} == {
        ROOT / "monitoring" / path
        for path in (
            "alerts.yml", "alertmanager.yml", "dashboards", "provisioning", "statsd-mapping.yml",
        )
    }  # fmt: skip
    assert all((ROOT / path).exists() for path in installed)
    assert (ROOT / f"{name}.links").read_text().split() == [
        "usr/share/ooni-backend-tools/monitoring/alerts.yml",
        "etc/prometheus/rules/ooni-alerts.yml",
    ]
    assert (
        "monitoring/site.yml $(MONITORING)/etc/prometheus/rules/ooni-site.yml"
        in (ROOT / "debian/rules").read_text()
    )
    assert "docs/runbook.md" in (ROOT / f"{name}.docs").read_text().split()


def test_every_autopkgtest_is_listed_and_can_be_started() -> None:
    folder = ROOT / "debian/tests"
    control = (folder / "control").read_text()
    listed = ", ".join(re.findall("(?m)^Tests: (.*)$", control)).split(", ")
    assert sorted(listed) == sorted({path.name for path in folder.iterdir()} - {"control"})
    assert all((folder / name).stat().st_mode & 0o111 for name in listed)
    needed = ", ".join(re.findall("(?m)^Depends: (.*)$", control)).split(", ")
    assert set(needed) - {"systemd", "python3"} <= packages()


def test_news_is_for_packages_that_exist_and_short() -> None:
    for path in (ROOT / "debian").glob("*.NEWS*"):
        assert path.name.partition(".")[0] in packages()
        text = path.read_text()
        assert max(map(len, text.splitlines())) <= 80
        if path.suffix == ".next":  # without head and end, which make release adds
            assert all(line.startswith("  ") or not line for line in text.splitlines())


@pytest.mark.parametrize(
    "path", sorted((ROOT / "debian/man").glob("*.h2m")), ids=lambda path: path.stem
)
def test_no_line_of_a_manual_is_a_macro_by_accident(path: Path) -> None:
    macro = re.compile(r"\.(?:[A-Z]{1,2}|nf|fi)\b|\.\\\"")
    lines = [line for line in path.read_text().splitlines() if line.startswith((".", "'"))]
    assert [line for line in lines if not macro.match(line)] == []


def test_where_systemd_has_modes_somebody_is_told_after_the_last_failure_alone(
    tmp_path: Path,
) -> None:
    """It tells of each one from version 254 on, which Debian 13 has; dev/e2e/restarts.py."""
    rules = (ROOT / "debian/rules").read_text()
    assert "RESTART_MODE := $(if $(BOOKWORM),,direct)" in rules
    unit = tmp_path / "unit"
    for name, modes in (("ooni-db-backup", 1), ("detector", 0)):
        INSTALL_TOOLS.fill(SERVICES[name] | {"restart_mode": "direct"}, "service.in", unit)
        assert unit.read_text().splitlines().count("RestartMode=direct") == modes
        INSTALL_TOOLS.fill(SERVICES[name], "service.in", unit)
        assert "RestartMode" not in unit.read_text()
