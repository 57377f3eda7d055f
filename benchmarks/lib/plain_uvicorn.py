"""This checkout's app on uvicorn as it comes: its own HTTP protocol, and connections that are kept for 5 seconds.

python -m benchmarks.lib.plain_uvicorn MODEL PORT
"""

import sys

import uvicorn

from arcface_api.api.app import create_app
from arcface_api.packs import PackLocations, locate
from arcface_api.settings import Settings

if __name__ == "__main__":
    pack, port = sys.argv[1:]
    app = create_app(locate(pack, PackLocations.default(None)), Settings(pack=pack))
    uvicorn.run(app, http="httptools", ws="none", port=int(port))
