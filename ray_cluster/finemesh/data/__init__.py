"""The data compiler: annotation formats in, one canonical form, dataset forms out, and a ledger of every
input.

    import_source -> split_dataset -> convert_dataset -> validate_dataset

Imports core, numpy, pyarrow, Pillow, PyAV, pycocotools and orjson; no Ray, no gRPC. Everything works on local
folders: a stage reads one and writes another, whose manifest comes last.
"""

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
