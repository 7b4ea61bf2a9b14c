"""Clusters and their nodes: what runs where, and which nodes are taken out of use."""
