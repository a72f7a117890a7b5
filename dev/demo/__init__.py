"""Every tool run once for real against servers on this machine, and then again: `make demo`."""
