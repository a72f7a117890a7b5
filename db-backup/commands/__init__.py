"""The commands of `ooni-db-backup`, each of them for exports and backups."""
