"""The servers that tools talk to in tests, demo and benchmarks, all on 127.0.0.1."""
