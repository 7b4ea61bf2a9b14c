"""The registry of formats: each is one small file of data and hooks.

To add a format: a value of `ExportFormat` (core/spec/export.py) and of the enum in export.proto with the same
name; a file here with its `Format`, named in `FORMATS`; and, if nothing yet runs such packages, a `Runtime`
with its script in `shipped/` (see `runtime_transformers.py` for what a `Runner` does). The golden set, the
comparison, the report, the card and the refusals are there for all of them.
"""

from __future__ import annotations

from typing import Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.export import ExportFormat, refusal_of
from finemesh.package.formats.adapter import ADAPTER
from finemesh.package.formats.bitsandbytes import BNB_INT8, BNB_NF4
from finemesh.package.formats.format import Format
from finemesh.package.formats.gguf import GGUF_FORMATS
from finemesh.package.formats.merged import MERGED, MERGED_BF16, MERGED_FP16
from finemesh.package.formats.onnx import ONNX_FORMATS
from finemesh.package.trained import Trained

FORMATS: Final[dict[ExportFormat, Format]] = {
    each.format: each
    for each in (
        *(ADAPTER, MERGED, MERGED_BF16, MERGED_FP16, BNB_INT8, BNB_NF4),
        *ONNX_FORMATS,
        *GGUF_FORMATS,
    )
}


def suitable_format(name: ExportFormat, trained: Trained) -> Format:
    """The format of that name, if it can be right for what was trained and can be checked here.

    Raises:
        InvalidError: FORMAT_UNSUITABLE, it cannot be right for this model, or RUNTIME_MISSING, nothing here
            could check it; what is not checked is not shipped.
    """
    form = FORMATS[name]
    if why := refusal_of(name, trained.spec) or form.refuse(trained):
        raise InvalidError.of("export.format", f"no {name} of this model: {why}", reason="FORMAT_UNSUITABLE")
    if why := form.runtime.missing():
        message = f"a package of {name} could not be checked with {form.runtime.name}: {why}"
        raise InvalidError.of("export.format", message, reason="RUNTIME_MISSING")
    return form
