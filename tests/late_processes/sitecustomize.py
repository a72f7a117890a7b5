"""What each process does at its start while `tests.late_threads` has this folder on the path."""

from late_threads import be_late

be_late()
