"""Whether the tests notice a fault in a pure module: `make mutation`. See __main__.py."""
