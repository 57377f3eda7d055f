"""Promises of `loading`: an embedder without HTTP."""

import subprocess
import sys


def test_loading_imports_no_web_framework() -> None:
    code = "import sys, arcface_api.loading; print({'fastapi', 'starlette', 'uvicorn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
