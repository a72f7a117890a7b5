"""Check the SBOMs in the packages, and print them: `make sbom`.

    build/sbom/bin/python -m dev.sbom PACKAGES COPIES

They are valid CycloneDX, have the libraries that requirements/ pins, with the wheels' hashes, and
leave nothing out that is in the packages; the texts of all licences are there. COPIES is the folder
for copies of them. It needs what requirements/sbom.txt names.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PINNED = {"ooni-backend-tools-venv": "runtime.txt", "detector": "detector.txt"}
PIN = re.compile(r"(?m)^([a-z0-9-]+)==(\S+) ((?:\\\n +--hash=\S+ ?)+)")
HASH = re.compile("sha256:([0-9a-f]+)")

Component = dict[str, Any]


def main() -> int:
    """Check the SBOM of each package that has libraries; return the exit status."""
    packages, copies = map(Path, sys.argv[1:])
    problems = []
    for name, requirements in PINNED.items():
        (file,) = packages.glob(f"{name}_*.deb")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            subprocess.run(["dpkg-deb", "--extract", file, root], check=True)
            sbom = root / "usr/share/doc" / name / "sbom.cdx.json"
            text = sbom.read_text()
            pins = (ROOT / "requirements" / requirements).read_text()
            problems += [f"{file.name}: {problem}" for problem in problems_of(text, root, pins)]
            shutil.copyfile(sbom, copies / f"{file.stem}.cdx.json")
        print(f"{file.name}:", *lines_of(json.loads(text)["components"]), sep="\n")
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


def problems_of(text: str, root: Path, pins: str) -> list[str]:
    """Return what is wrong with the SBOM of a package, unpacked at `root`, that has these pins."""
    components = json.loads(text)["components"]
    inner = [part for component in components for part in component.get("components", [])]
    texts, files = (
        {value for part in [*components, *inner] for value in properties(part, f"ooni:{kind}")}
        for kind in ("licence-text", "file")
    )
    present = {f"/{file.relative_to(root)}" for file in root.rglob("*") if file.is_file()}
    folders = {path.name for path in root.rglob("*.dist-info")}
    bundled = {path for path in present if ".libs/" in path}
    return [
        *invalid(text),
        *different(components, pins),
        *(f"no such file: {path}" for path in sorted(texts - present)),
        *(f"not in the SBOM: {path}" for path in sorted(bundled - files)),
        *([] if len(folders) == len(components) else [f"{len(folders)} libraries are installed"]),
    ]


def properties(component: Component, name: str) -> list[str]:
    """Return the values of a component's properties of this name."""
    return [entry["value"] for entry in component["properties"] if entry["name"] == name]


def invalid(text: str) -> list[str]:
    """Return what the schema of CycloneDX and the list of SPDX say against it."""
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 (in build/sbom alone)
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415
    from license_expression import get_spdx_licensing  # noqa: PLC0415

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    licences = set(re.findall('"expression": "(.*)"', text))
    return [
        *([] if error is None else [f"not valid: {error}"[:500]]),
        *(
            f"no licence of SPDX: {symbol}"
            for licence in sorted(licences)
            for symbol in get_spdx_licensing().validate(licence).invalid_symbols
        ),
    ]


def different(components: list[Component], pins: str) -> list[str]:
    """Return the libraries that are not those pinned, or another wheel of theirs."""
    pinned = {(name, version): HASH.findall(hashes) for name, version, hashes in PIN.findall(pins)}
    listed = {(part["name"], part["version"]): part["hashes"][0]["content"] for part in components}
    return [
        *(f"{name} {version} is not pinned" for name, version in sorted(listed.keys() - pinned)),
        *(f"{name} {version} is missing" for name, version in sorted(pinned.keys() - listed)),
        *(
            f"{name} {version}: {digest} is none of its hashes"
            for (name, version), digest in sorted(listed.items())
            if digest not in pinned.get((name, version), [digest])
        ),
    ]


def lines_of(components: list[Component], indent: str = "  ") -> list[str]:
    """Return a line for each library, and below it for what it brings compiled."""
    return [
        line
        for part in components
        for licence in [part["licenses"][0]["expression"]]
        for line in (
            f"{indent}{part['name']} {part.get('version', '')}: {licence}",
            *lines_of(part.get("components", []), indent + "  "),
        )
    ]


if __name__ == "__main__":
    sys.exit(main())
