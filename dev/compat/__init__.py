"""Every statement that the tools send, run again on each version of the engine, and compared."""
