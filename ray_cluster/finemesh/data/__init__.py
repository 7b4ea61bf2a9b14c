"""The data compiler: annotation formats in, one canonical form, dataset forms out, and a ledger of every
input.

    import_source -> split_dataset -> convert_dataset -> validate_dataset
    compile_source, from a source straight into a form

Imports core, numpy, pyarrow, Pillow, PyAV, pycocotools and orjson, each when it is needed; no Ray, no gRPC.
Everything works on local folders: a stage reads one and writes another, whose manifest comes last.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finemesh.data.converting import convert_dataset
    from finemesh.data.importing import compile_source, import_source
    from finemesh.data.rows import Progress
    from finemesh.data.splitting import split_dataset
    from finemesh.data.storage import iter_ledger, iter_rows, load_manifest, verify_dataset
    from finemesh.data.validation import Finding, ValidationReport, validate_dataset

__all__ = [
    "Finding",
    "Progress",
    "ValidationReport",
    "compile_source",
    "convert_dataset",
    "import_source",
    "iter_ledger",
    "iter_rows",
    "load_manifest",
    "split_dataset",
    "validate_dataset",
    "verify_dataset",
]

_HOMES = {
    "Finding": "validation",
    "Progress": "rows",
    "ValidationReport": "validation",
    "compile_source": "importing",
    "convert_dataset": "converting",
    "import_source": "importing",
    "iter_ledger": "storage",
    "iter_rows": "storage",
    "load_manifest": "storage",
    "split_dataset": "splitting",
    "validate_dataset": "validation",
    "verify_dataset": "storage",
}


def __getattr__(name: str) -> Any:
    """Load a stage when it is first asked for: a command that needs one does not wait for the others."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
