"""All targets by name. Each is imported when it is used: the libraries of all of them take seconds."""

from importlib import import_module

from fuzz.target import Target

_MODULES = {
    "readers": "decoding",
    "decode": "decoding",
    "faces": "faces",
    "upload": "http",
    "protocol": "http",
    "archive": "packs",
    "graph": "packs",
    "manifest": "packs",
    "opencv": "decoding",
    "faulty": "faulty",
}
NAMES = tuple(_MODULES)
CHECKS = {"opencv", "faulty"}
"""By which the fuzzer is tested. The service does nothing of the kind."""


def target(name: str) -> Target:
    """The target of that name."""
    found: Target = import_module(f"fuzz.{_MODULES[name]}").TARGETS[name]
    return found
