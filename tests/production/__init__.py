"""Every tool on OONI's tables, on three replicas."""
