"""Invented data in the formats of the real upstreams and tables, equal in every run."""
