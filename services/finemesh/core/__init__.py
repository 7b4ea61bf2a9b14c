"""The pure kernel: errors, names, ids, states, specs. Standard library only."""
