"""`arcface-api serve`."""

import logging
import os
import signal
import sys

import click

from arcface_api import packs, serving
from arcface_api.api.certificates import Tls
from arcface_api.cli.api_key import API_KEY
from arcface_api.cli.setting_options import settings_options
from arcface_api.progress import LoggedProgress
from arcface_api.serving import port
from arcface_api.serving.logs import log_to_stderr
from arcface_api.settings import misspelt_variables, read_settings

_log = logging.getLogger(__name__)


@click.command(
    epilog="""\b
    Examples:
      arcface-api serve --pack open
      arcface-api serve --host 0.0.0.0 --workers 2
      ARCFACE_PULL=true ARCFACE_ACCEPT_LICENSE=antelopev2 arcface-api serve

    \b
    Exit status:
      0   stopped by SIGTERM or Ctrl-C
      1   the pack, the model or the device cannot be used, or no worker could be kept running
      2   a setting is wrong
      70  a decode or an inference did not end, or vectors stayed wrong: start the service again"""
)
@settings_options()
def serve(**options: object) -> None:
    """Run the service until SIGTERM or Ctrl-C. Requests in flight are answered first.

    Each option is a setting, which an environment variable can set as well; the option wins.
    """
    settings = read_settings(**options)
    log_to_stderr(settings)
    for variable, meant in misspelt_variables(os.environ).items():
        _log.warning("%s is not a setting and has no effect. Did you mean %s?", variable, meant)
    if API_KEY in os.environ and settings.api_keys_file is None:
        _log.warning(
            "%s has no effect: it is the key that commands send. Everybody may call, until ARCFACE_API_KEYS_FILE names"
            " a file with keys.",
            API_KEY,
        )
    for name in sorted(settings.accept_license - packs.registry().keys()):
        _log.warning(
            "ARCFACE_ACCEPT_LICENSE names %s, which is not a pack. The packs are %s.",
            name,
            ", ".join(sorted(packs.registry())),
        )
    # The first process of a container would otherwise ignore SIGTERM while it downloads or loads.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    Tls.of(settings)  # a wrong file is reported before anything slow happens, and once for all workers
    listener = port.bind((settings.host, settings.port))
    serving.serve(packs.obtain(settings, LoggedProgress()), settings, listener)
