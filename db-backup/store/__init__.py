"""The store: a bucket of S3, what is uploaded into it, and who may write there."""
