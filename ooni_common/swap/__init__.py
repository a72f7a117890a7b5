"""Replacing tables as a whole: readers see the old content or the new one, at every instant.

The new rows go into a shadow table, are verified there, and `EXCHANGE TABLES` puts them live. The
replaced content stays in the shadow, for a rollback. On a cluster each node gets the same
statements on a connection of its own: no queue keeps any of them for a node that is away.
"""
