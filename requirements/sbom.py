"""Writes what an installation of arcface-api contains as CycloneDX 1.6 (JSON): `make sbom`, and the image's build.

    python requirements/sbom.py --output FILE [--system] PYTHON

PYTHON is the interpreter of the environment that is described; this program runs in another one, with `cyclonedx-bom`.
Two runs over the same installation write the same bytes: no time, no random number, no path of this machine.
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
LICENCES = {"protobuf": "BSD-3-Clause"}
"""Of packages whose metadata names none; from the licence file in their wheel."""
MODELS = {"landmarks": "Apache-2.0", "dlib_resnet_v1": "CC0-1.0", "age": "CC0-1.0", "gender": "CC0-1.0"}
"""Licences of the networks inside the package, as docs/licences.md explains them."""
ABOUT = """
import hashlib, importlib.util, json, re, pathlib, platform
found = importlib.util.find_spec("arcface_api")
folder = pathlib.Path(found.origin).parent if found else None
files = sorted(folder.rglob("*.onnx")) if folder else []
text = (folder / "__init__.py").read_text() if folder else ""
print(json.dumps({"version": "".join(re.findall('^__version__ = "(.*)"', text, re.M)),
    "python": platform.python_version(),
    "models": {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}}))
"""
"""Run by the interpreter that is described; without importing the package, which may need more than is there."""

Component = dict[str, Any]


def packages(python: str) -> dict[str, Any]:
    """The Python packages, by the tool of the CycloneDX project."""
    tool = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--no-validate"]
    command = [*tool, "--pyproject", str(PROJECT), "--output-file", "-", python]
    bom: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    for component in bom["components"]:
        if component["name"] in LICENCES and not component.get("licenses"):
            component["licenses"] = [licence(LICENCES[component["name"]])]
        references = component.get("externalReferences", [])
        component["externalReferences"] = [each for each in references if not each["url"].startswith("file:")]
    return bom


def licence(identifier: str) -> dict[str, Any]:
    """A licence by its SPDX identifier."""
    return {"license": {"id": identifier, "acknowledgement": "declared"}}


def others(about: dict[str, Any]) -> list[Component]:
    """The interpreter, and the networks inside the package."""
    version = about["python"]
    interpreter = {
        "type": "platform",
        "name": "python",
        "version": version,
        "purl": f"pkg:generic/python@{version}",
        "licenses": [licence("PSF-2.0")],
    }
    networks = [
        {
            "type": "machine-learning-model",
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": digest}],
            "licenses": [licence(MODELS[name])],
        }
        for name, digest in about["models"].items()
    ]
    return [interpreter, *networks]


def system() -> list[Component]:
    """The system's packages; /usr/share/doc/PACKAGE/copyright has their licences."""
    fields = "${Package}\t${Version}\t${Architecture}\n"
    listed = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={fields}"], check=True, capture_output=True, text=True
    )
    distribution = platform.freedesktop_os_release()
    where = f"{distribution['ID']}-{distribution['VERSION_ID']}"
    found: list[Component] = []
    for line in sorted(listed.stdout.splitlines()):
        name, version, architecture = line.split("\t")
        escaped = version.replace("+", "%2B").replace(":", "%3A")
        purl = f"pkg:deb/{distribution['ID']}/{name}@{escaped}?arch={architecture}&distro={where}"
        found.append({"type": "library", "name": name, "version": version, "purl": purl})
    return found


def main() -> None:
    """Write the bill of materials, if it is valid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", metavar="PYTHON", help="interpreter of the environment that is described")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--system", action="store_true", help="with the packages of this Debian system")
    given = parser.parse_args()
    bom = packages(given.python)
    about = json.loads(subprocess.run([given.python, "-c", ABOUT], check=True, stdout=subprocess.PIPE).stdout)
    bom["metadata"]["component"]["version"] = about["version"]
    added = [*others(about), *(system() if given.system else [])]
    for component in added:
        component["bom-ref"] = component.get("purl") or f"{component['type']}:{component['name']}"
    bom["components"] += added
    bom["dependencies"] += [{"ref": component["bom-ref"]} for component in added]
    text = json.dumps(bom, indent=1, sort_keys=True) + "\n"
    if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        sys.exit(f"What was found is no valid CycloneDX: {error}")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(text)
    without = [
        each["name"]
        for each in bom["components"]
        if not each.get("licenses") and not each["purl"].startswith("pkg:deb")
    ]
    print(f"{given.output}: {len(bom['components'])} components.")
    if without:
        print(f"These name no licence in their metadata: {', '.join(without)}.")


if __name__ == "__main__":
    main()
