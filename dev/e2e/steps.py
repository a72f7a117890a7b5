"""What the end-to-end test prints, and what it ends with when something is wrong."""


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}\n{'=' * len(text)}", flush=True)


def expect(fulfilled: bool, expectation: str) -> None:  # noqa: FBT001 (reads like the sentence it is)
    """End with an error unless the expectation is fulfilled."""
    if not fulfilled:
        raise SystemExit(f"not as it should be: {expectation}")
    print(f"ok: {expectation}", flush=True)
