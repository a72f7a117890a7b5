"""The versions of something that readers may see: complete ones, and never an older one again."""

from typing import Generic, TypeVar

V = TypeVar("V")


class Versions(Generic[V]):
    """Versions in the order in which upstream had them.

    Args:
        name: of what has them.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._all: list[V] = []
        self._seen = -1

    def add(self, version: V) -> None:
        """Upstream has a new one, from now on."""
        self._all.append(version)

    @property
    def newest(self) -> V:
        """The newest one."""
        return self._all[-1]

    def forget_seen(self) -> None:
        """Let readers see any version next: somebody has changed what they see."""
        self._seen = -1

    def violation(self, seen: V | None, *, current: bool) -> str:
        """Return what is wrong with what readers see; "" for nothing.

        Args:
            seen: None where they see nothing, which is right until the first run after a loss.
            current: whether it has to be the newest version.
        """
        if seen is None:
            return f"{self._name}: it is gone" if current or self._seen >= 0 else ""
        places = [place for place, version in enumerate(self._all) if version == seen]
        if not places:
            return f"{self._name}: upstream never had such a version"
        if places[-1] < self._seen:
            return f"{self._name}: version {places[-1]} after {self._seen}"
        self._seen = places[-1]
        if current and seen != self.newest:
            return f"{self._name}: version {places[-1]}, but the newest is {len(self._all) - 1}"
        return ""
