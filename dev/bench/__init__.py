"""What `make bench` measures, and the plain programs that the tools are compared with."""
