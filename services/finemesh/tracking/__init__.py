"""Tracking: keeps every metric point of every run, and answers which run is better.

Points live in one DuckDB file that this process alone owns, everything about runs in SQL. May import the
core, the chassis, the generated stubs, numpy, duckdb and sqlalchemy; no other service.
"""
