"""Measurements: `make bench`, or `python -m bench [--rounds N] [SECTION …]`."""
