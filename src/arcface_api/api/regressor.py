"""The landmark regressor that the package carries, loaded and proved."""

import hashlib
import logging

from arcface_api import face
from arcface_api.embedder import Regressor
from arcface_api.session import ModelContent, is_batch_invariant, open_reference, probe_crops

REGRESSOR_MAX_BATCH = 8
"""Nearly all that batching gains on a CPU is in by 8."""

_log = logging.getLogger(__name__)


def regressor_content() -> ModelContent:
    """The model file."""
    content = face.regressor()
    sha256 = hashlib.sha256(content).hexdigest()
    return ModelContent(content, sha256, face.REGRESSOR_INPUT, face.REGRESSOR_DIM)


def open_regressor() -> Regressor:
    """The regressor, warmed in every batch size up to `REGRESSOR_MAX_BATCH`.

    Raises:
        ModelFailed: It cannot be loaded or run.
    """
    # One thread: it runs on decode threads, too, several at once. Any size: how many passes a picture takes differs.
    session = open_reference(regressor_content(), threads=1, batch_sizes=range(1, REGRESSOR_MAX_BATCH + 1))
    spec = face.REGRESSOR_INPUT
    is_invariant = is_batch_invariant(session, probe_crops(spec.height, spec.width))
    if not is_invariant:
        _log.warning(
            "On this machine the landmark regressor's answers vary with the batch size, so faces are found one by one;"
            " align=auto takes a little longer."
        )
    return Regressor(session, is_invariant)
