"""Parsers of foreign bytes, given bytes that nobody would write: `make fuzz`.

Each target (targets.py) is a parser. Whatever the bytes are, it returns or refuses them by its own
type of error. `python -m dev.fuzz TARGET FOLDER` lets atheris look for others, guided by coverage,
beginning with those in corpus/; tests/test_fuzz.py tries those, and what hypothesis makes of them.
"""
