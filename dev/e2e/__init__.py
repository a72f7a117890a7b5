"""The packages, installed and run under systemd in a container: `make e2e`."""
