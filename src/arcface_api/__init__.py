"""A picture of a face crop in, its ArcFace embedding out. `docs/architecture.md` draws the rooms."""

__version__ = "0.1.0"
