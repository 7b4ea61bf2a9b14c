"""Conversations, preferences and texts: JSON lists and JSON Lines, each record a row.

`records` reads a file record by record, `fields` a record field by field; `gallery` holds the pictures that
a record names, `turns` reads one turn as any of the formats writes it; `forms` says which fields tell a form
and how its records become rows, and `files` goes from the source to candidates.
"""

from finemesh.data.readers.conversations.files import JsonForm

__all__ = ["JsonForm"]
