"""The page at `/`, on which one compares two faces: its files, as they are, and `served`, which answers with them.

The page is a client like any other: it sends pictures to `/embed` and compares the embeddings itself (docs/adr/0017).
"""

from arcface_api.api.page.served import page_routes

__all__ = ["page_routes"]
