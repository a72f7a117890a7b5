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
        self._rolled_back = False
        self._seen: dict[int, int] = {}

    def add(self, version: V) -> None:
        """Upstream has a new one, from now on."""
        self._all.append(version)
        self._rolled_back = False

    @property
    def former(self) -> V:
        """The one before the newest; the newest if there is no other."""
        return self._all[-2:][0]

    @property
    def wanted(self) -> V:
        """The one that readers see after a run that ends well."""
        return self.former if self._rolled_back else self._all[-1]

    def roll_back(self) -> None:
        """Want the one before the newest, until upstream has another one."""
        self._rolled_back = True
        self.forget_seen()

    def forget_seen(self) -> None:
        """Let readers see any version next: somebody has changed what they see."""
        self._seen.clear()

    def violation(self, seen: V | None, *, current: bool, reader: int = 0) -> str:
        """Return what is wrong with what a reader sees; "" for nothing.

        Args:
            seen: None where it sees nothing, which is right until the first run after a loss.
            current: whether it has to be the version that is wanted.
            reader: which one, if there are several: each goes its own way from old to new.
        """
        last = self._seen.get(reader, -1)
        if seen is None:
            return f"{self._name}: it is gone" if current or last >= 0 else ""
        places = [place for place, version in enumerate(self._all) if version == seen]
        if not places:
            return f"{self._name}: upstream never had such a version"
        if places[-1] < last:
            return f"{self._name}: version {places[-1]} after {last}"
        self._seen[reader] = places[-1]
        if current and seen != self.wanted:
            newest = len(self._all) - 1
            wanted = newest - 1 if self._rolled_back else newest
            return f"{self._name}: version {places[-1]}, but {wanted} is wanted"
        return ""
