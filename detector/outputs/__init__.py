"""What the detector tells people and programs: feeds, JSON, a page."""
