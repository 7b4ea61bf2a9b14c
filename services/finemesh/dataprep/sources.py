"""What may be imported from the object store without an upload: nothing, until the operator names it."""

from __future__ import annotations

from dataclasses import dataclass

from finemesh.core.errors import InvalidError, PermissionDeniedError
from finemesh.core.s3_uri import S3Uri, parse_s3_uri


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """Where sources may lie.

    Attributes:
        allowed: `bucket` or `bucket/prefix`; `{project}` in it stands for the project that asks.
        own_bucket: of the mesh. It holds the files of all projects and is never a source.
    """

    allowed: tuple[str, ...] = ()
    own_bucket: str = ""

    def check(self, text: str, project: str, field: str) -> S3Uri:
        """The address that `text` is.

        Raises:
            InvalidError: it is none.
            PermissionDeniedError: SOURCE_FORBIDDEN.
        """
        uri = parse_s3_uri(text, field)
        places = [place.replace("{project}", project) for place in self.allowed]
        if uri.bucket == self.own_bucket or not any(uri.is_within(place) for place in places):
            known = ", ".join(f"s3://{place}" for place in places) or "no bucket"
            raise PermissionDeniedError(
                f"{uri} may not be imported from: the operator allows {known} (FINEMESH_IMPORT_SOURCES of"
                " DataPrep). Upload the files, or ask for the bucket",
                reason="SOURCE_FORBIDDEN",
                metadata={"source_uri": str(uri)},
            )
        return uri


def check_one_source(upload: str, source_uri: str) -> None:
    """Raises InvalidError (INVALID_OPTIONS) unless one of both is given."""
    if bool(upload) == bool(source_uri):
        said = "both are set: keep one" if upload else "neither is set: give one"
        raise InvalidError.of(
            "dataset.imported_from.upload", f"of upload and source_uri, {said}", reason="INVALID_OPTIONS"
        )
