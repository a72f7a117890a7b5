"""A suite that is like life: probes, their runs as rows of `fastpath`, and what really happened.

    python -m dev.samples.realism FOLDER --seeds 1 2 3 4 5

Stories decide what happens to the networks of a country (stories.py), in a mixture that is fixed
(mixture.py). Probes measure the networks in runs (runs.py). The engine makes a row of `fastpath` of
each measurement, and the detector's own SQL turns these into observations (table.py).
"""
