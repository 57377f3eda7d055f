"""Python's requests, or a socket, as `__init__.py` describes: a session or a socket for each line."""

import http.client
import select
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import requests

HEADERS = {"Content-Type": "image/jpeg"}


class Socket:
    """A connection that is replaced when the other side has closed it, as far as can be seen before sending."""

    def __init__(self, url: str) -> None:
        self._address, self._path = urlsplit(url).netloc, urlsplit(url).path
        self._connection = http.client.HTTPConnection(self._address, timeout=30)

    def post(self, query: str, picture: bytes) -> int:
        sock = self._connection.sock
        if sock is not None and select.select([sock], [], [], 0)[0]:
            self._connection.close()
        self._connection.request("POST", f"{self._path}?{query}", picture, HEADERS)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status


class Session:
    """The usual library."""

    def __init__(self, url: str) -> None:
        self._url, self._session = url, requests.Session()
        self._session.trust_env = False

    def post(self, query: str, picture: bytes) -> int:
        return self._session.post(f"{self._url}?{query}", data=picture, headers=HEADERS, timeout=30).status_code


def follow(line: str, client: Socket | Session, picture: bytes) -> None:
    """Do what a line says."""
    for step in line.split():
        seconds, _, query = step.partition(":")
        time.sleep(float(seconds))
        try:
            outcome = str(client.post(query, picture))
        except (OSError, http.client.HTTPException) as error:
            outcome = repr(error)
        sys.stdout.write(f"{query}\t{outcome}\n")


if __name__ == "__main__":
    kind, url, file = sys.argv[1:]
    picture = Path(file).read_bytes()
    make = Socket if kind == "socket" else Session
    threads = [threading.Thread(target=follow, args=(line, make(url), picture)) for line in sys.stdin]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
