"""The CitizenLab test lists: the repository, its lists, and which of them are held."""
