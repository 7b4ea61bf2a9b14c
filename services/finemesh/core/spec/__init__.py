"""Specifications and the tables that rule them: fine-tune and export specs, ledger types, states. Standard library only."""
