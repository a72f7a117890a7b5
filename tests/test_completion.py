"""What bash and zsh complete: real shells on a terminal, where somebody presses the tabulator."""

import os
import pty
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from test_packaging import INSTALL_TOOLS, ROOT, SERVICES, TOOLS

# How a shell is started, and what makes it ready. The echo of the prompt's setting is not a prompt.
SHELLS = {
    "bash": (
        ["bash", "--norc", "-i"],
        "for path in {share}/bash-completion/completions/*; do . $path; done; PS1='REA''DY> '",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "fpath+={share}/zsh/vendor-completions; autoload -U compinit; compinit -D; PS1='REA''DY> '",
    ),
}
COMPLETED = {
    "ooni-db-backup rest": "restore",
    "ooni-db-backup export acc": "export accounts",
    "ooni-db-backup restore archive.a": "restore archive.accounts",
    "ooni-db-backup restore --from exp": "restore --from exports",
    "ooni-db-backup restore --sk": "restore --skip",
    "ooni-update-citizenlab --accept i": "--accept it",
}
# Prints its arguments. What completion asks it the real command answers, once.
COMMAND = """\
#!/bin/sh
case " $* " in
    *" --help "* | *-config\\ *) answer="@folder@/answers/$(basename "$0") $*" ;;
    *) echo "<ran: $*>"; exit ;;
esac
[ -e "$answer" ] || "@python@" "@script@" --config "@config@" "$@" > "$answer"
cat "$answer"
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two commands, their configuration and their completion."""
    folder = tmp_path_factory.mktemp("installed")
    for name in ("bin", "state", "answers"):
        (folder / name).mkdir()
    (folder / "state/citizenlab_test_lists_updater.holds.json").write_text(
        '{"by_country":{"it":{"since":1,"kinds":["rows"]}},"tried":0,"commit":"ab"}'
    )
    tables = '[tables]\naccounts = "private"\n"archive.accounts" = "private"\n"log_*" = "none"\n'
    for command, keys in (("ooni-db-backup", tables), ("ooni-update-citizenlab", "")):
        INSTALL_TOOLS.install_completion(SERVICES[command], folder)
        config = folder / f"{command}.conf"
        config.write_text(f'state_dir = "{folder}/state"\n{keys}')
        values = {
            "folder": str(folder), "python": sys.executable, "config": str(config),
            "script": str(ROOT / TOOLS[command]["script"]),
        }  # fmt: skip
        path = folder / "bin" / command
        path.write_text(filled(COMMAND, values))
        path.chmod(0o755)
    for path in folder.glob("usr/share/*/*/*"):
        text = path.read_text().replace("/usr/lib/ooni-backend-tools", f"{ROOT}/debian")
        path.write_text(text)
    return folder


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return a template with values."""
    return re.sub("@(.*?)@", lambda match: values[match[1]], template)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands_options_tables_and_countries(
    tmp_path: Path, commands: Path, shell: str
) -> None:
    """Field S11: `ooni-db-backup export <TAB>` offered files."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed: apt install {shell}")
    command, prepare = SHELLS[shell]
    environment = dict(os.environ) | {
        "PATH": f"{commands}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb",
    }  # fmt: skip
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment)
    try:
        os.write(terminal, f"{prepare.format(share=commands / 'usr/share')}\n".encode())
        seen = ""
        for typed, completed in COMPLETED.items():
            _, seen = read_until(terminal, "READY> ", seen)
            os.write(terminal, f"{typed}\t\n".encode())
            ran, seen = read_until(terminal, "<ran: .*>", seen)
            assert ran == f"<ran: {completed}>"
    finally:
        os.close(terminal)  # the shell ends
        os.waitpid(pid, 0)


def read_until(terminal: int, pattern: str, seen: str) -> tuple[str, str]:
    """Read what a terminal shows until a pattern is there; return what has matched, and the rest.

    Args:
        terminal: to be read.
        pattern: to be waited for.
        seen: what was read after the match before.
    """
    while not (match := re.search(pattern, seen)):
        seen += os.read(terminal, 4096).decode()
    return match[0], seen[match.end() :]
