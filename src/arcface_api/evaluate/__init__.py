"""Which threshold? What `arcface-api evaluate` does with the caller's own labelled pairs.

    pairs, boxes ─▶ pictures (folder, .tar) ─▶ embedding: in_process or over_http ─▶ similarities ─▶ figures:
    roc, accuracy, operating_points ─▶ table · files: JSON, plots, report

advice holds the sentences that table and report share.
"""

from arcface_api.evaluate.backend import open_over_http
from arcface_api.evaluate.boxes import check_boxes, cutter, read_boxes
from arcface_api.evaluate.files import prepare_folder, write
from arcface_api.evaluate.pairs import Pairs, read_pairs
from arcface_api.evaluate.pictures import open_pictures
from arcface_api.evaluate.run import Evaluation, evaluate
from arcface_api.evaluate.table import text

__all__ = [
    "Evaluation",
    "Pairs",
    "check_boxes",
    "cutter",
    "evaluate",
    "open_over_http",
    "open_pictures",
    "prepare_folder",
    "read_boxes",
    "read_pairs",
    "text",
    "write",
]
