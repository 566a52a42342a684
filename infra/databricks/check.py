"""Every resource of every target against databricks-bundles' own models: `python -m infra.databricks.check [FOLDER]`.

It runs in the checking tools' environment, which alone has them.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from databricks.bundles.core import Resource
from databricks.bundles.dashboards import Dashboard
from databricks.bundles.jobs import Job
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

from infra.databricks.bundle import HERE, Bundle, BundleError, load, targets

MODELS: Mapping[str, type[Any]] = {"dashboards": Dashboard, "jobs": Job, "schemas": Schema, "volumes": Volume}


def problems(bundle: Bundle) -> list[str]:
    found = []
    for resource in bundle.resources:
        place = f"{bundle.target}: {resource.kind}.{resource.name}"
        model = MODELS.get(resource.kind)
        if model is None:
            found.append(f"{place}: no model for {resource.kind} is named in {__name__}")
            continue
        try:
            made: Resource = model.from_dict(dict(resource.content))
        except (ValueError, TypeError, AssertionError) as error:
            found.append(f"{place}: {error}")
            continue
        # What the model reads as nothing was written as something it does not know.
        if not made.as_dict():
            found.append(f"{place}: says nothing")
    return found


def main(root: Path = HERE) -> int:
    try:
        bundles = [load(target, root) for target in targets(root)]
    except BundleError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    found = [problem for bundle in bundles for problem in problems(bundle)]
    sys.stderr.writelines(f"error: {problem}\n" for problem in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
