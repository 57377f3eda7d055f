"""How fast is the service on this machine? What `arcface-api bench` does, for a service of its own or one at a URL.

drawn faces ─▶ speed: closed loops of ever more clients (arcface_api.bench) ─▶ Measurement ─▶ table · files (JSON, plot)
"""

from arcface_api.measuring.files import write
from arcface_api.measuring.speed import Measurement, measure, measure_own
from arcface_api.measuring.table import text

__all__ = ["Measurement", "measure", "measure_own", "text", "write"]
