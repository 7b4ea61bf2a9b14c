"""The DataPrep service: takes uploads, has datasets made and validated by clusters, and answers for every
row.

Light: it never reads an image or an annotation. It may import core, the chassis and the stubs.
"""
