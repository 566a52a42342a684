"""A YAML file as a checked model; whatever is wrong with it is one line with its place and its mend."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from config.errors import ConfigurationError

Model = TypeVar("Model", bound=BaseModel)


def load_model(path: Path, model: type[Model], *, example: str) -> Model:
    """`example` says where a file of this kind is to be seen."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint=f"see {example}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A ValueError where the text is no UTF-8, or a date or a number in it is none.
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigurationError.of_validation(path, error) from error
