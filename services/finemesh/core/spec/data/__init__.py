"""What is asked of the data compiler (a module per stage) and what it says of its work (the manifest).

Options are checked when they are made: a wrong one raises InvalidError that names every wrong field as
`options.<field>`.
"""

from finemesh.core.spec.data.convert_options import ConvertOptions
from finemesh.core.spec.data.import_options import ImportOptions
from finemesh.core.spec.data.manifest import (
    ClassCount,
    DatasetManifest,
    Leakage,
    MaskProof,
    ShardInfo,
    content_digest,
)
from finemesh.core.spec.data.split_options import SplitOptions
from finemesh.core.spec.data.terms import (
    AnnotationFormat,
    DatasetFormat,
    DatasetOrigin,
    InstructionTask,
    MaskForm,
    Severity,
    Split,
    SplitStrategy,
    ValidationLevel,
    ValidationStatus,
)
from finemesh.core.spec.data.validate_options import ValidateOptions

__all__ = [
    "AnnotationFormat",
    "ClassCount",
    "ConvertOptions",
    "DatasetFormat",
    "DatasetManifest",
    "DatasetOrigin",
    "ImportOptions",
    "InstructionTask",
    "Leakage",
    "MaskForm",
    "MaskProof",
    "Severity",
    "ShardInfo",
    "Split",
    "SplitOptions",
    "SplitStrategy",
    "ValidateOptions",
    "ValidationLevel",
    "ValidationStatus",
    "content_digest",
]
