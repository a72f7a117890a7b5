"""Schemas from a bucket: CREATE statements that are understood whole, or refused."""
