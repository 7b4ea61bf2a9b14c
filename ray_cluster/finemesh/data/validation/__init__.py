"""Validation: typed findings about a dataset, and whether it may be used.

`rules` says what can be found, `checks` looks at rows and at the whole, `report` holds and shows the result.
"""

from finemesh.data.validation.findings import Finding
from finemesh.data.validation.report import ValidationReport
from finemesh.data.validation.validate import validate_dataset

__all__ = ["Finding", "ValidationReport", "validate_dataset"]
