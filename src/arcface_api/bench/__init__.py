"""How fast is a service? Load over HTTP, measured from outside; works on any server, ours or another.

    pictures ──requests──▶ load (closed or open loop) ──connection──▶ service
                               └──▶ exchanges ──report──▶ rates, latencies, stages

It knows nothing of the server but its address: no floor below HTTP is imported.
"""

from arcface_api.bench.load import closed_loop, open_loop, poisson_arrivals
from arcface_api.bench.process import Usage, UsageWatch, usage_of
from arcface_api.bench.report import LoadReport, Summary
from arcface_api.bench.requests import Address, batch_request, embed_request, raw_request
from arcface_api.bench.service import RunningService, ask, free_port

__all__ = [
    "Address",
    "LoadReport",
    "RunningService",
    "Summary",
    "Usage",
    "UsageWatch",
    "ask",
    "batch_request",
    "closed_loop",
    "embed_request",
    "free_port",
    "open_loop",
    "poisson_arrivals",
    "raw_request",
    "usage_of",
]
