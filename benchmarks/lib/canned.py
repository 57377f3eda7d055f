"""A server that answers every request with the same embedding: what the load generator itself costs, and can do.

    python -m benchmarks.lib.canned PORT

It reads no more of a request than where it ends. `load.py --canned` starts it.
"""

import asyncio
import json
import sys

_BODY = json.dumps({"embedding": [round(0.1234567 * n, 7) for n in range(512)], "embedding_dim": 512}).encode()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer-Timing: receive;dur=0.010, total;dur=0.020\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class _Canned(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received = data = self._received + data if self._received else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        start = data.find(b"Content-Length: ", 0, end)
        length = int(data[start + 16 : data.index(b"\r\n", start)]) if start >= 0 else 0
        if len(data) >= end + 4 + length:
            self._received = b""
            self._transport.write(_ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Canned, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))
