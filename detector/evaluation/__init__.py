"""How good the detector is, on labelled observations."""
