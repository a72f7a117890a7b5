#!/usr/bin/python3
"""Install the tools of tools.toml below debian/PACKAGE, for debian/rules.

    debian/install_tools.py VENV_PYTHON UNIT_DIRECTORY [RESTART_MODE]

VENV_PYTHON is the interpreter that was built, to print the tools' --help for their man pages.
RESTART_MODE is for services that are started again after a failure, where systemd has such modes.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

DEBIAN = Path(__file__).resolve().parent
SOURCE = DEBIAN.parent
LIBRARY = Path("usr/lib/ooni-backend-tools")
SHEBANG = f"#!/{LIBRARY}/venv/bin/python3 -EsB"  # nothing of the caller's environment, no bytecode
DATA = ("ordinary",)  # folders whose files the modules beside them read
RAGGED = ".nh\n.ad l"  # names of keys and files stay in one piece
SENT = r"""Sent to statsd (UDP), and written to \fItextfile_dir\fR for node_exporter if it is set:
the gauges \fBstatus\fR (1 running, 0 done, 2 failed), \fBexit_status\fR (of the last run) and
\fBlast_success\fR (Unix time), the timer \fBrun\fR, and
under \fB@prefix@\fR: @sent@."""

# systemd 252 counts successful starts, too: this limit is for services that start seldom.
SELDOM_LIMIT = """\
# At most so many starts, by hand and after failures; then somebody is told. To start it once more:
# systemctl reset-failed {unit}
StartLimitIntervalSec=12h
StartLimitBurst=6"""
SELDOM_RESTART = """
# One bad minute must not cost a day, or a week: what another run may mend is tried again. These end
# for good: a bug, wrong usage, refused data, what only a person can mend; and what a signal ended.
Restart=on-failure
RestartSec=20min
RestartPreventExitStatus=1 2 65 70 78
RestartPreventExitStatus=SIGABRT SIGBUS SIGFPE SIGILL SIGKILL SIGSEGV SIGSYS SIGTRAP SIGXCPU
"""
CONDITION = """
# Skipped where it says no: nobody has configured it yet. Whatever else is wrong, the run tells. (No
# credentials are there yet: of a configuration that root alone may read it says nothing.)
ExecCondition=/bin/sh -c 'unset CREDENTIALS_DIRECTORY; \\
    [ "$$(/usr/bin/{command} 2> /dev/null)" != no ] || {{ echo "<4>{why}"; false; }}'"""
# systemd 252 tells of a failure when it does not start the service again; from 254 on, of the first
# one, but in this mode.
RESTART_MODE = """\
# Somebody is told after the last failure. A start by hand waits for that, too, but with --no-block.
RestartMode={mode}
"""
OFTEN_LIMIT = """\
# Its timer is its retry: it may start as often as it likes.
StartLimitIntervalSec=0"""

Tool = dict[str, Any]  # texts, and a table for each further service


def main() -> None:
    """Install every tool."""
    python, unit_directory, *mode = sys.argv[1:]
    for command, keys in tomllib.loads((DEBIAN / "tools.toml").read_text()).items():
        tool = {"command": command, "unit": command, "version": version()} | keys
        tool |= {"restart_mode": "".join(mode)}
        root = DEBIAN / tool["package"]
        install_script(tool, root)
        install_manual(tool, root, python)
        install_completion(tool, root)
        if "alias" in tool:
            install_alias(tool, root)
        if "config" in tool:
            install_config(tool, root)
        for service in services_of(tool):
            for kind in ("service", "timer"):
                fill(service, f"{kind}.in", root / unit_directory / f"{service['unit']}.{kind}")


def services_of(tool: Tool) -> list[Tool]:
    """Return what systemd runs of a tool: its command, and that with arguments."""
    if "identifier" not in tool:
        return []
    further = {name: keys for name, keys in tool.items() if isinstance(keys, dict)}
    return [
        tool,
        *(tool | {"unit": f"{tool['command']}-{name}"} | further[name] for name in further),
    ]


def version() -> str:
    """Return the version that the changelog begins with."""
    return (DEBIAN / "changelog").read_text().partition("(")[2].partition(")")[0]


def install_script(tool: Tool, root: Path) -> None:
    """Install the folder of a tool, and its command, which is a link to the script."""
    source = SOURCE / tool["script"]
    folder = root / LIBRARY / source.parent.name
    for path in files_of(source.parent):
        target = folder / path.relative_to(source.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():  # else another tool of the folder has installed it
            shutil.copyfile(path, target)
    script = folder / source.name
    script.write_text(re.sub("^#!.*", SHEBANG, source.read_text(), count=1))
    script.chmod(0o755)
    command = root / "usr/bin" / tool["command"]
    command.parent.mkdir(parents=True, exist_ok=True)
    command.symlink_to(Path("../lib", *script.relative_to(root).parts[2:]))


def install_completion(tool: Tool, root: Path) -> None:
    """Let bash and zsh complete a command."""
    command = tool["command"]
    fill(tool, "completion.in", root / "usr/share/bash-completion/completions" / command)
    fill(tool, "completion.zsh.in", root / f"usr/share/zsh/vendor-completions/_{command}")


def install_alias(tool: Tool, root: Path) -> None:
    """Let a command have another name, with its manual and its completion."""
    links = {
        "usr/bin": tool["command"],
        "usr/share/bash-completion/completions": tool["command"],
        "usr/share/man/man8": f"{tool['command']}.8",
    }
    for folder, name in links.items():
        link = root / folder / name.replace(tool["command"], tool["alias"])
        link.symlink_to(name)


def files_of(folder: Path) -> list[Path]:
    """Return the files of a tool: the modules of its folder, its packages, templates and data."""
    packages = [path.parent for path in sorted(folder.glob("*/__init__.py"))]
    modules = [
        path
        for place in (folder, *packages)
        for pattern in ("*.py", "*.jinja", "*.schema.json")
        for path in sorted(place.glob(pattern))
    ]
    return modules + [
        path
        for name in DATA
        for path in sorted((folder / name).rglob("*"))
        if path.is_file() and path.suffix != ".md"
    ]


def install_config(tool: Tool, root: Path) -> None:
    """Install a configuration file, its manual, and the one for OONI's database as an example."""
    source = (SOURCE / tool["script"]).with_name(tool["config"])
    example = SOURCE / "examples/ooni" / tool["config"]
    documentation = root / "usr/share/doc" / tool["package"]
    write(documentation / "examples/ooni" / tool["config"], example.read_text())
    write(root / "etc/ooni" / tool["config"], source.read_text())
    write(root / f"usr/share/man/man5/{tool['config']}.5", config_manual(tool, source.read_text()))


def install_manual(tool: Tool, root: Path, python: str) -> None:
    """Make the manual of a command of its --help and its file in man/."""
    wrapper = DEBIAN / "tmp-help" / tool["command"]
    run = f'COLUMNS=1000 PYTHONDONTWRITEBYTECODE=1 {python} {SOURCE / tool["script"]} "$@"'
    write(wrapper, f"#!/bin/sh\n{run} | sed 's/^usage:/Usage:/'\n")
    wrapper.chmod(0o755)
    manual = wrapper.with_suffix(".h2m")
    text = (DEBIAN / "man" / manual.name).read_text()
    write(manual, text.replace("@metrics@", metrics_manual(tool)))
    page = root / f"usr/share/man/man8/{tool['command']}.8"
    page.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            "help2man",
            "--section=8",
            "--no-info",
            "--no-discard-stderr",
            "--manual=OONI backend tools",
            f"--name={tool['title']}",
            f"--source=ooni-backend-tools {tool['version']}",
            f"--include={manual}",
            f"--output={page}",
            str(wrapper),
        ],
        check=True,
    )
    shutil.rmtree(wrapper.parent)
    headings = {'.SS "options:"': ".SH OPTIONS", '.SS "exit status:"': '.SH "EXIT STATUS"'}
    # The commands are in man/, with their arguments.
    text = re.sub(r'\.SS "commands.*?(?=\n\.S)', "", page.read_text(), flags=re.DOTALL)
    lines = [headings.get(line, line) for line in text.splitlines()]
    write(page, re.sub(r"(?m)^(\.TH .*)", rf"\1\n{RAGGED}", "\n".join(lines) + "\n", count=1))


def metrics_manual(tool: Tool) -> str:
    """Return what the manual of a command says of its metrics."""
    if "metrics" not in tool:
        return ""
    metrics = tomllib.loads((SOURCE / "monitoring/metrics.toml").read_text())[tool["metrics"]]
    names: dict[str, list[str]] = {"timer": [], "gauge": [], "counter": []}
    for metric in metrics:
        names[metric["kind"]].append(metric["name"].replace("*", "NAME"))
    sent = ", ".join(
        f"the {kind}{'s' if len(names[kind]) > 1 else ''} {enumerated(names[kind])}"
        for kind in names
        if names[kind]
    )
    return SENT.replace("@prefix@", roff(tool["metrics"])).replace("@sent@", roff(sent))


def enumerated(names: list[str]) -> str:
    """Return names as a sentence has them: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def config_manual(tool: Tool, text: str) -> str:
    """Return a manual page of a configuration file: its comments, and under each its keys."""
    introduction, *blocks = text.strip().split("\n\n")
    keys = "\n".join(map(config_block, blocks))
    name = tool["config"]
    return f"""\
.TH {name.upper()} 5 "" "ooni-backend-tools {tool["version"]}" "OONI backend tools"
{RAGGED}
.SH NAME
{name} \\- configuration of {tool["command"]}(8)
.SH SYNOPSIS
.I /etc/ooni/{name}
.SH DESCRIPTION
{roff(comment(introduction))}
.PP
An environment variable OONI_\\fIKEY\\fR (in capitals) overrides a key, an option on the command
line overrides both. The file may be root's alone (0600): systemd gives the service a copy of it.
A key that can hold a secret can be given as \\fIkey\\fR_file, the path of a
file that holds it, or come as a systemd credential of its name. A file that starts with {"{"} is
read as JSON.
.SH KEYS
{keys}
.SH SEE ALSO
.BR {tool["command"]} (8)
"""


def config_block(block: str) -> str:
    """Return the keys of a block, with their defaults, and what its comment says of them."""
    pattern = r"#?([a-z_]+ = |\[[a-z]+\]$)"
    keys = [line.lstrip("#") for line in block.splitlines() if re.match(pattern, line)]
    heads = "\n.TQ\n".join(f".B {roff(key)}" for key in keys)
    return f".TP\n{heads}\n{roff(comment(block))}"


def comment(block: str) -> str:
    """Return the sentences of a block; what is indented stays on lines of its own."""
    lines = [line[2:] for line in block.splitlines() if line == "#" or line.startswith("# ")]
    own = (f"\n{line.strip()}\n" if line[:2] in ("", "  ") else line for line in lines)
    return re.sub(r"\s*\n\s*", "\n", " ".join(own))


def roff(text: str) -> str:
    """Return a text as roff takes it literally."""
    for character, written in (("\\", "\\e"), ("-", "\\-"), ('"', "\\(dq")):
        text = text.replace(character, written)
    text = re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)
    return text.replace("\n", "\n.br\n")


def fill(tool: Tool, template: str, path: Path) -> None:
    """Write a file made of a template, in which @key@ stands for a value of the tool."""
    text = (DEBIAN / template).read_text()
    values = tool | {
        "run": " ".join([f"/usr/bin/{tool['command']}", *tool.get("arguments", "").split()]),
        "names": " ".join(filter(None, [tool["command"], tool.get("alias")])),
        "folders": folders(tool),
        "limit": limit(tool),
        "restart": restart(tool),
        "condition": condition(tool),
    }
    write(path, re.sub("@([a-z]+)@", lambda match: values[match[1]], text))


def folders(tool: Tool) -> str:
    """Return the lines of a unit that let it write in a folder that is not its own."""
    if "writes" not in tool:
        return ""
    return f"""
# It belongs to others, who also decide who may write there; systemd must not change that.
ReadWritePaths=-{tool["writes"]}
"""


def condition(tool: Tool) -> str:
    """Return the lines of a unit that skip a run while nobody has configured the tool."""
    if "condition" not in tool:
        return ""
    return CONDITION.format(command=f"{tool['command']} {tool['condition']}", why=tool["skipped"])


def limit(tool: Tool) -> str:
    """Return the lines of a unit that say how often it may start."""
    return (SELDOM_LIMIT if is_seldom(tool) else OFTEN_LIMIT).format(unit=tool["unit"])


def restart(tool: Tool) -> str:
    """Return the lines of a unit that start it again after a failure."""
    if not is_seldom(tool):
        return ""
    mode = tool.get("restart_mode")
    return SELDOM_RESTART + (RESTART_MODE.format(mode=mode) if mode else "")


def is_seldom(tool: Tool) -> bool:
    """Tell whether it runs too seldom for its timer to be its retry."""
    return tool.get("calendar") in ("daily", "weekly", "monthly")


def write(path: Path, text: str) -> None:
    """Write a file and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    main()
