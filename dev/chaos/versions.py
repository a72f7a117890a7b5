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
        self._wanted = {0}  # places in the list of all
        self._replaced = {0}  # those that were wanted when upstream had something new
        self._seen: dict[int, int] = {}

    def add(self, version: V, *, alone: bool = False) -> None:
        """Upstream has this one from now on.

        Args:
            version: complete, and valid.
            alone: it is looked at by itself, so that the same one changes nothing; else it is new
                with all that it belongs to.
        """
        self._replaced = self._wanted
        if not (alone and self._all[-1:] == [version]):
            self._wanted = {len(self._all)}
        self._all.append(version)

    @property
    def former(self) -> V:
        """The version before the newest, or the newest if it is the only one."""
        return self._all[-2:][0]

    def roll_back(self) -> None:
        """Want what the newest has replaced, until upstream has another one.

        That is not always the one before it, which may have been rolled back itself.
        """
        self._wanted = self._replaced
        self.forget_seen()

    def loosen_rollback(self) -> None:
        """Want the newest as well: what keeps a rollback may be lost."""
        self._wanted = {*self._wanted, len(self._all) - 1}

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
        if current and all(seen != self._all[place] for place in self._wanted):
            wanted = " or ".join(str(place) for place in sorted(self._wanted))
            return f"{self._name}: version {places[-1]}, but {wanted} is wanted"
        return ""
