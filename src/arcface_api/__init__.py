"""A picture of a face crop in, its ArcFace embedding out. `docs/architecture.md` draws the rooms."""

import os

__version__ = "1.0.0"

# Since 1.29 ONNX Runtime's official Linux builds report to Microsoft unless this is set before it initialises. What
# sees biometric data sends nothing to anybody (docs/adr/0004).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
