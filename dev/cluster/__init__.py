"""Embedded ClickHouse engines as real replicas, over a real ZooKeeper, on this machine."""
