"""Specifications and the tables that rule them: fine-tune and export specs, data options, ledger types.

Standard library only.
"""
