"""Where files are, whatever folder a later command is called from."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from mohge.config.schema import TrainConfig

_SQLITE = "sqlite:///"


def absolute_paths(config: TrainConfig) -> TrainConfig:
    """The configuration with every path absolute, as a run's folder stores it.

    A name on the Hugging Face hub looks like a relative path: `data.path` of data=hf stays as it is unless
    such a folder exists.
    """

    def absolute(path: str) -> str:
        return os.path.abspath(os.path.expanduser(path))

    data, paths, logger = config.data, config.paths, config.logger
    local = data.path is not None and (data.name != "hf" or Path(data.path).expanduser().exists())
    data = dataclasses.replace(
        data,
        path=absolute(data.path) if data.path is not None and local else data.path,
        tokenizer=absolute(data.tokenizer) if data.tokenizer is not None else None,
        cache_dir=absolute(data.cache_dir),
    )
    paths = dataclasses.replace(
        paths,
        output_dir=absolute(paths.output_dir),
        run_dir=absolute(paths.run_dir) if paths.run_dir is not None else None,
        cache_dir=absolute(paths.cache_dir),
    )
    uri = logger.tracking_uri
    if uri is not None and uri.startswith(_SQLITE):
        logger = dataclasses.replace(logger, tracking_uri=_SQLITE + absolute(uri.removeprefix(_SQLITE)))
    return dataclasses.replace(config, data=data, paths=paths, logger=logger)
