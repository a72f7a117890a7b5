#!/usr/bin/python3
"""Write the SBOM of a package, a CycloneDX list of the libraries in it, for debian/rules.

    debian/sbom.py PACKAGE REPORT VENV_PYTHON

It lists what is below debian/PACKAGE once everything is trimmed. REPORT is what pip said when it
installed that (pip install --report): it has the hashes of the wheels. The build ends here if a
library has no text of its licence in the package, or a licence that libraries.toml does not accept.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

DEBIAN = Path(__file__).resolve().parent
PACKAGES = "usr/lib/ooni-backend-tools/venv/lib/python3.*/site-packages"
TEXT = re.compile(r"(?i)(licen[cs]e|copying)")

Component = dict[str, Any]  # of CycloneDX


class LicenceError(Exception):
    """A licence that somebody has to look at."""


@dataclass(frozen=True)
class Rules:
    """What libraries.toml says: see its comments."""

    accepted: list[str]
    licences: dict[str, str]
    within: list[dict[str, str]]


@dataclass(frozen=True)
class Tree:
    """A package that is being built.

    Attributes:
        root: the folder that becomes `/`.
        packages: the folder of Python packages below it.
        documents: its folder of documentation.
    """

    root: Path
    packages: Path
    documents: Path

    def installed(self, file: Path) -> str:
        """Return the path that a file is going to have."""
        return f"/{file.relative_to(self.root)}"


def main() -> None:
    """Write usr/share/doc/PACKAGE/sbom.cdx.json."""
    package, report, python = sys.argv[1:]
    root = DEBIAN / package
    rules = Rules(**tomllib.loads((DEBIAN / "libraries.toml").read_text()))
    wheels = wheels_of(json.loads(Path(report).read_text()))
    (packages,) = root.glob(PACKAGES)
    tree = Tree(root, packages, root / "usr/share/doc" / package)
    tree.documents.mkdir(parents=True, exist_ok=True)
    try:
        components = [
            component_of(folder, tree, wheels, rules, python)
            for folder in sorted(packages.parent.glob("*-packages/*.dist-info"))
        ]
    except LicenceError as error:
        raise SystemExit(f"{package}: {error}") from None
    text = json.dumps(document(package, components), indent=1, ensure_ascii=False)
    (tree.documents / "sbom.cdx.json").write_text(f"{text}\n")


def normalised(name: str) -> str:
    """Return the name of a library as indexes of packages spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wheels_of(report: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the wheels that pip has installed, by the library's name."""
    wheels = {}
    for installed in report["install"]:
        archive = installed["download_info"]["archive_info"]
        digest = archive.get("hashes", {}).get("sha256") or archive["hash"].removeprefix("sha256=")
        wheels[normalised(installed["metadata"]["name"])] = digest
    return wheels


def component_of(
    folder: Path, tree: Tree, wheels: dict[str, str], rules: Rules, python: str
) -> Component:
    """Describe a library, by its folder .dist-info: version, licence, wheel, what is within it.

    Raises:
        LicenceError: its licence is not accepted, or no text of it is in the package.
    """
    distribution = PathDistribution(folder)
    name, version = normalised(distribution.metadata["Name"]), distribution.version
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    texts = [tree.installed(file) for file in files if TEXT.match(file.name) and file.read_text()]
    if not texts:
        raise LicenceError(f"{name} {version} has no text of its licence in the package")
    stated = distribution.metadata.get("License-Expression") or distribution.metadata.get("License")
    licence = rules.licences.get(name) or stated or ""
    reference = f"pkg:pypi/{name}@{version}"
    component = {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": wheels[name]}],
        "licenses": [{"expression": accepted(licence, name, rules)}],
        "purl": reference,
        "properties": [{"name": "ooni:licence-text", "value": text} for text in texts],
    }
    inside = [
        inner_component(inner, reference, texts, tree, python)
        for inner in rules.within
        if inner["library"] == name and accepted(inner["licence"], inner["name"], rules)
    ]
    return component | ({"components": inside} if inside else {})


def accepted(expression: str, name: str, rules: Rules) -> str:
    """Return an SPDX expression, all of whose licences are accepted.

    Raises:
        LicenceError: one of them is not, or nothing is stated.
    """
    for licence in re.split(r" (?:AND|OR) ", re.sub("[()]", "", expression)):
        if licence not in rules.accepted:
            raise LicenceError(
                f"licence {licence[:60]!r} of {name}: read it, then add it to debian/libraries.toml"
            )
    return expression


def inner_component(
    inner: dict[str, str], reference: str, texts: list[str], tree: Tree, python: str
) -> Component:
    """Describe what a wheel brings of others, and install the text of its licence.

    Raises:
        LicenceError: the wheel does not have it where libraries.toml says.
    """
    files = sorted(tree.packages.glob(inner["files"]))
    if len(files) != 1:
        raise LicenceError(f"{reference}: {len(files)} files {inner['files']}; see libraries.toml")
    if "text" in inner:
        text = tree.documents / "licences" / inner["text"]
        text.parent.mkdir(exist_ok=True)
        shutil.copyfile(DEBIAN / "licences" / inner["text"], text)
        text.chmod(0o644)
        texts = [tree.installed(text)]
    if "text_in_wheel" in inner:
        texts = [tree.installed(tree.packages / inner["text_in_wheel"])]
    return {
        "type": "library",
        "bom-ref": f"{reference}#{inner['name']}",
        "name": inner["name"],
        **({"version": printed(inner["version"], tree, python)} if "version" in inner else {}),
        "licenses": [{"expression": inner["licence"]}],
        "properties": [
            {"name": "ooni:file", "value": tree.installed(files[0])},
            *({"name": "ooni:licence-text", "value": text} for text in texts),
        ],
    }


def printed(code: str, tree: Tree, python: str) -> str:
    """Return what Python code prints that imports libraries of the package."""
    environment = os.environ | {"PYTHONPATH": str(tree.packages), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def document(package: str, components: list[Component]) -> dict[str, Any]:
    """Return the SBOM: the same of the same libraries, whenever and wherever it is made."""
    changelog = (DEBIAN / "changelog").read_text()
    version = changelog.partition("(")[2].partition(")")[0]
    time = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    reference = f"pkg:deb/ooni/{package}@{version}?arch={os.environ['DEB_HOST_ARCH']}"
    content = json.dumps([reference, components])
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {
            "timestamp": f"{time:%Y-%m-%dT%H:%M:%SZ}",
            "component": {
                "type": "application",
                "bom-ref": reference,
                "name": package,
                "version": version,
                "licenses": [{"expression": "BSD-3-Clause"}],
                "purl": reference,
            },
        },
        "components": components,
        "dependencies": [
            {"ref": reference, "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }


if __name__ == "__main__":
    main()
