"""The tables of the database: what they have, how rows are compared, what is done with each."""
