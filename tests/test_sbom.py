"""The SBOM of a package lists what is in it, and stops a build whose licences nobody has read.

What the built packages have is checked by `make sbom` (dev/sbom.py).
"""

import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dev.sbom import different, problems_of
from test_packaging import _module

ROOT = Path(__file__).parents[1]
WHEEL = "ab" * 32
PINS = f"some-library==1.2 \\\n    --hash=sha256:{WHEEL} \\\n    --hash=sha256:{'cd' * 32}\n"


@pytest.fixture
def sbom() -> ModuleType:
    """The script, as debian/rules runs it."""
    return _module("sbom")


@pytest.fixture
def tree(sbom: ModuleType, tmp_path: Path) -> Any:
    """A package with a library."""
    packages = tmp_path / "usr/lib/packages"
    folder = packages / "some_library-1.2.dist-info"
    folder.mkdir(parents=True)
    text = "Metadata-Version: 2.4\nName: Some.Library\nVersion: 1.2\nLicense-Expression: MIT\n"
    (folder / "METADATA").write_text(text)
    (folder / "licenses").mkdir()
    (folder / "licenses/LICENSE.txt").write_text("Permission is hereby granted …")
    return sbom.Tree(tmp_path, packages, tmp_path / "usr/share/doc/package")


@pytest.fixture
def folder(tree: Any) -> Path:
    """What is installed of the library's metadata."""
    packages: Path = tree.packages
    return packages / "some_library-1.2.dist-info"


def component(sbom: ModuleType, tree: Any, folder: Path, **rules: object) -> dict[str, Any]:
    """Return the component of the library."""
    given = {"accepted": ["MIT", "BSD-3-Clause"], "licences": {}, "within": []} | rules
    described: dict[str, Any] = sbom.component_of(
        folder, tree, {"some-library": WHEEL}, sbom.Rules(**given), "python3"
    )
    return described


def test_a_library_is_listed_with_its_wheel_its_licence_and_the_text(
    sbom: ModuleType, tree: Any, folder: Path
) -> None:
    listed = component(sbom, tree, folder)
    assert listed["purl"] == "pkg:pypi/some-library@1.2"
    assert listed["hashes"] == [{"alg": "SHA-256", "content": WHEEL}]
    assert listed["licenses"] == [{"expression": "MIT"}]
    text = "/usr/lib/packages/some_library-1.2.dist-info/licenses/LICENSE.txt"
    assert listed["properties"] == [{"name": "ooni:licence-text", "value": text}]


def test_a_library_without_the_text_of_its_licence_ends_the_build(
    sbom: ModuleType, tree: Any, folder: Path
) -> None:
    (folder / "licenses/LICENSE.txt").write_text("")
    with pytest.raises(sbom.LicenceError, match=r"some-library 1\.2 has no text of its licence"):
        component(sbom, tree, folder)


@pytest.mark.parametrize(
    ("licence", "named"),
    [("GPL-3.0-only",) * 2, ("MIT AND (GPL-3.0-only)", "GPL-3.0-only"), ("BSD License",) * 2],
)
def test_a_licence_that_nobody_has_accepted_ends_the_build(
    sbom: ModuleType, tree: Any, folder: Path, licence: str, named: str
) -> None:
    metadata = folder / "METADATA"
    metadata.write_text(metadata.read_text().replace("MIT", licence))
    with pytest.raises(sbom.LicenceError, match=f"licence {named!r} of"):
        component(sbom, tree, folder)
    read = component(sbom, tree, folder, licences={"some-library": "BSD-3-Clause OR MIT"})
    assert read["licenses"] == [{"expression": "BSD-3-Clause OR MIT"}]


def test_a_library_without_any_licence_ends_the_build(
    sbom: ModuleType, tree: Any, folder: Path
) -> None:
    metadata = folder / "METADATA"
    metadata.write_text(metadata.read_text().replace("License-Expression: MIT\n", ""))
    with pytest.raises(sbom.LicenceError, match="licence '' of some-library"):
        component(sbom, tree, folder)


def test_what_a_wheel_brings_of_others_is_listed_below_it(
    sbom: ModuleType, tree: Any, folder: Path
) -> None:
    inner = {"library": "some-library", "name": "c", "licence": "MIT", "files": "some/c.*.so"}
    with pytest.raises(sbom.LicenceError, match=r"0 files some/c\.\*\.so"):
        component(sbom, tree, folder, within=[inner])
    file = folder.parent / "some/c.cpython.so"
    file.parent.mkdir()
    file.write_text("")
    (part,) = component(sbom, tree, folder, within=[inner | {"version": "print(7)"}])["components"]
    assert (part["name"], part["version"]) == ("c", "7")
    assert part["properties"][0]["value"] == "/usr/lib/packages/some/c.cpython.so"


def test_pip_reports_the_hash_of_a_wheel_in_two_ways(sbom: ModuleType) -> None:
    archives = [{"hash": f"sha256={WHEEL}"}, {"hash": "md5=0", "hashes": {"sha256": WHEEL}}]
    for archive in archives:
        entry = {"metadata": {"name": "Some_Library"}, "download_info": {"archive_info": archive}}
        assert sbom.wheels_of({"install": [entry]}) == {"some-library": WHEEL}


def test_a_library_in_the_package_that_is_not_pinned_is_found(
    sbom: ModuleType, tree: Any, folder: Path
) -> None:
    listed = component(sbom, tree, folder)
    assert different([listed], PINS) == []
    assert different([listed], PINS.replace("1.2", "1.3")) == [
        "some-library 1.2 is not pinned",
        "some-library 1.3 is missing",
    ]
    assert different([listed], PINS.replace("ab", "ef")) == [
        f"some-library 1.2: {WHEEL} is none of its hashes"
    ]


def test_what_is_in_the_package_and_not_in_the_list_is_found(
    sbom: ModuleType, tree: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dev.sbom.invalid", lambda _text: [])
    text = json.dumps({"components": [component(sbom, tree, folder)]})
    assert problems_of(text, tmp_path, PINS) == []
    (folder / "licenses/LICENSE.txt").unlink()
    (folder.parent / "other-1.dist-info").mkdir()
    bundled = folder.parent / "some.libs/lib.so"
    bundled.parent.mkdir()
    bundled.write_text("")
    assert problems_of(text, tmp_path, PINS) == [
        "no such file: /usr/lib/packages/some_library-1.2.dist-info/licenses/LICENSE.txt",
        "not in the SBOM: /usr/lib/packages/some.libs/lib.so",
        "2 libraries are installed",
    ]


def test_the_licences_that_were_read_are_of_libraries_that_are_pinned(sbom: ModuleType) -> None:
    rules = tomllib.loads((ROOT / "debian/libraries.toml").read_text())
    pinned = "".join(
        (ROOT / f"requirements/{name}.txt").read_text() for name in ("runtime", "detector")
    )
    named = {*rules["licences"], *(inner["library"] for inner in rules["within"])}
    assert [name for name in sorted(named) if f"\n{name}==" not in f"\n{pinned}"] == []
    texts = {inner["text"] for inner in rules["within"] if "text" in inner}
    assert texts == {path.name for path in (ROOT / "debian/licences").iterdir()}
    assert set(rules) == set(sbom.Rules.__dataclass_fields__)
