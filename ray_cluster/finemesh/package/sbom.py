"""The software bill of materials of a package, as CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

The model, the base it came from, the data it learnt, and every distribution of requirements.txt. It says
nothing of when it was written: the same package has the same bytes.
"""

from __future__ import annotations

import uuid
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, Final

from cyclonedx import model
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import bom as bill
from cyclonedx.model import component as part
from cyclonedx.model.component import ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from finemesh.package.environment import canonical
from finemesh.package.manifest import PackageManifest

SBOM: Final = "sbom.cdx.json"
# Their decorators hide from type checkers what they take.
_Bom: Final[Any] = bill.Bom
_Component: Final[Any] = part.Component
_Hash: Final[Any] = model.HashType
_Property: Final[Any] = model.Property


def write_sbom(out: Path, manifest: PackageManifest) -> None:
    """Write the bill of the package in a folder."""
    pinned: dict[str, str] = manifest.record["requirements"]
    root = _model(manifest)
    base, data = _base(manifest), _data(manifest)
    libraries = [_library(name, version) for name, version in pinned.items()]
    bom = _Bom(
        components=[base, data, *libraries],
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{root.name}/{root.version}/{sorted(pinned.items())}"),
    )
    bom.metadata.timestamp = None  # which the schema allows
    bom.metadata.component = root
    bom.register_dependency(root, [base, data, *libraries])
    (out / SBOM).write_text(JsonV1Dot6(bom).output_as_string(indent=1), encoding="utf-8")


def _model(manifest: PackageManifest) -> Any:
    return _Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=str(manifest.lineage.get("training_job") or "model"),
        version=f"step {manifest.step}",
        bom_ref="model",
        properties=[
            _Property(name="finemesh:format", value=manifest.format.value),
            *(
                _Property(name=f"finemesh:{name}", value=str(value))
                for name, value in sorted(manifest.lineage.items())
            ),
        ],
    )


def _base(manifest: PackageManifest) -> Any:
    base = manifest.base_model
    return _Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=base.name,
        version=base.revision or None,
        bom_ref="base-model",
        # What a card calls its licence is no identifier of SPDX more often than not: it is carried as it is.
        licenses=[] if base.licence == "unknown" else [LicenseFactory().make_from_string(base.licence)],
        properties=[
            _Property(name=f"finemesh:sha256:{name}", value=sha256) for name, sha256 in base.files.items()
        ],
    )


def _data(manifest: PackageManifest) -> Any:
    digest = str(manifest.lineage.get("dataset_digest", "")).removeprefix("sha256:")
    hashes = [_Hash(alg=model.HashAlgorithm.SHA_256, content=digest)] if len(digest) == 64 else []
    return _Component(
        type=ComponentType.DATA, name=str(manifest.spec["dataset"]), bom_ref="dataset", hashes=hashes
    )


def _library(name: str, version: str) -> Any:
    described = metadata(name)
    found: list[str] = described.get_all("License-Expression") or []
    public = version.partition("+")[0]
    url = PackageURL("pypi", name=canonical(name), version=public)
    return _Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=url,
        bom_ref=url.to_string(),
        licenses=[LicenseFactory().make_from_string(each) for each in found],
    )
