"""The backups: tables that the server itself saves and restores, in a private bucket."""
