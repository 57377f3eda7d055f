"""Many machines by Ray: `arcface-api embed --engine ray` on Ray Data, and the service on Ray Serve.

    jobs     the driver: a cluster, the parts that are missing, what comes back
    worker   an actor of the pool: a model, and parts of the listing → rows
    app      the service as an application of Ray Serve

Ray, of the extra `ray`, is imported only here (docs/adr/0023-ray.md).
"""

from typing import Any


def build_app(args: dict[str, str]) -> Any:
    """The service for Ray Serve: `serve run arcface_api.ray:build_app pack=antelopev2`.

    `args` are settings by their names; what is left out is as the environment of the replica says. Raises
    SettingInvalid for others, and for values that are not allowed.
    """
    from arcface_api.ray.app import application  # noqa: PLC0415  # what a job on Ray Data does not need

    return application(args)
