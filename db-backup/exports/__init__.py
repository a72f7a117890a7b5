"""The exports: rows as compressed CSV in a bucket, for everybody."""
