"""What every script does the same way: configuration, running, fetching, tables, metrics."""

__version__ = "2.0.1"
