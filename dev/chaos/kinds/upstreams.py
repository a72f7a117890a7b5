"""Upstreams that serve what they never should: old, broken, hostile."""

import gzip
from functools import partial
from urllib.request import urlopen

from dev.chaos.actors.citizenlab import CitizenLab
from dev.chaos.actors.geoip import GeoIP
from dev.chaos.kinds.kind import FILES, UPDATERS, Kind
from dev.chaos.play import Play
from dev.samples.test_lists import Entry, list_path
from dev.servers.fault_proxy import ALWAYS, answers
from dev.servers.loopback import Request

PAGE = b"<!DOCTYPE html>\n<html><body><h1>Sign in to the network</h1></body></html>\n"
REFUSED = {65}
PATHS = {
    "fingerprints": "fingerprints_http.csv",
    "asnmeta": "all_as_org_map.json",
    "geoip": "cc.mmdb.gz",
}
LIST_DAMAGES = ("conflict", "quote", "html", "lfs-pointer", "nul", "encoding", "header", "empty")
LARGE = 60_000_000  # bytes


def _serve(play: Play, content: bytes, **headers: str) -> None:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    play.actor.upstream.fail(answers(200, content, names), lambda _request: True, times=ALWAYS)


def _served(play: Play) -> bytes:
    with urlopen(f"{play.actor.upstream.url}/{PATHS[play.actor.name]}") as answer:  # noqa: S310 (ours)
        content: bytes = answer.read()
    return content


def page(play: Play) -> None:
    """Serve the page of a captive portal."""
    _serve(play, PAGE)
    play.run(allowed=REFUSED)


def empty(play: Play) -> None:
    """Serve nothing."""
    _serve(play, b"")
    play.run(allowed=REFUSED)


def half(play: Play) -> None:
    """Serve the first part of a file, as if that were all of it."""
    content = _served(play)
    _serve(play, content[: int(play.between(0.1, 0.7) * len(content))])
    play.run(allowed=REFUSED)


def deep(play: Play) -> None:
    """Serve what is nested as deeply as it is long."""
    _serve(play, play.choose((b"[", b'{"1":', b'"')) * 100_000)
    play.run(allowed=REFUSED)


def bomb(play: Play) -> None:
    """Serve little that unpacks to much."""
    content = gzip.compress(bytes(LARGE), compresslevel=9)
    if play.actor.name == "geoip":
        _serve(play, content)
    else:
        _serve(play, content, Content_Encoding="gzip")
    play.run(allowed={65, 69})


def large(play: Play) -> None:
    """Serve more than is accepted."""
    _serve(play, b"0,1\n" * 500_000)
    play.run(allowed={65, 69})


def of_another_tool(play: Play) -> None:
    """Serve another upstream's file."""
    _serve(
        play,
        play.choose(
            (b'{"1": [["A", "US", "20040604", "B", "ARIN"]]}', b"name,scope\r\n", b"\x1f\x8b")
        ),
    )
    play.run(allowed=REFUSED)


def _asks_for(name: str, request: Request) -> bool:
    return name in request.target


def old(play: Play) -> None:
    """Serve again what came before: tables follow, installed files do not get older."""
    if not isinstance(play.actor, GeoIP):
        play.actor.go_back()
        play.run(allowed={0})
        return
    for name, contents in play.actor.published.items():
        older = answers(200, contents[-3:][0])  # than what is installed
        play.actor.upstream.fail(older, partial(_asks_for, name), times=ALWAYS)
    play.run(allowed=REFUSED)


def stale(play: Play) -> None:
    """Say that there is nothing new, as a cache that does not ask."""
    play.actor.upstream.fail(answers(304), lambda _request: True, times=ALWAYS)
    play.run(allowed={0}, looks=True)


def broken_list(play: Play) -> None:
    """Commit a list that is none: its country is held, the others are updated."""
    lists = _lists(play)
    cc = play.choose(lists.unchanged)
    good = lists.lists.read(list_path(cc))
    lists.lists.break_file(cc, play.choose(LIST_DAMAGES))  # type: ignore[arg-type]
    play.scene.mending.append(lambda: lists.lists.commit("Mend", {list_path(cc): good}))
    play.run(allowed={0})


def hostile_tree(play: Play) -> None:
    """Commit what would harm whoever checks it out."""
    lists = _lists(play)
    cc = play.choose(lists.unchanged)
    good = lists.lists.read(list_path(cc))
    entries: tuple[Entry, ...] = (
        ("120000", list_path(cc), b"/etc/passwd"),
        ("160000", list_path(cc), "1" * 40),
        ("100644", list_path(cc), lists.lists.add_sparse_blob(LARGE)),
    )
    lists.lists.commit_tree([play.choose(entries)])
    play.scene.mending.append(lambda: lists.lists.commit("Mend", {list_path(cc): good}))
    play.run(allowed={0, 65})


def no_legend(play: Play) -> None:
    """Commit lists without the legend of their categories."""
    lists = _lists(play)
    path = "lists/00-LEGEND-new_category_codes.csv"
    good = lists.lists.read(path)
    lists.lists.commit("Remove", {path: play.choose((None, b"", PAGE))})
    play.scene.mending.append(lambda: lists.lists.commit("Mend", {path: good}))
    play.run(allowed=REFUSED)


def _lists(play: Play) -> CitizenLab:
    """Return the tool, whose lists will get a commit."""
    if not isinstance(play.actor, CitizenLab):
        raise TypeError(play.actor.name)
    play.actor.loosen_rollback()  # each commit is a new version
    return play.actor


KINDS = (
    Kind("upstream: a page", FILES, page, needs_news=True),
    Kind("upstream: nothing", FILES, empty, needs_news=True),
    Kind("upstream: half of it", FILES, half, needs_news=True),
    Kind("upstream: deeply nested", FILES, deep, needs_news=True),
    Kind("upstream: a bomb", FILES, bomb, needs_news=True),
    Kind("upstream: too large", FILES, large, needs_news=True),
    Kind("upstream: another file", FILES, of_another_tool, needs_news=True),
    Kind("upstream: old", UPDATERS, old, needs_news=True),
    Kind("upstream: stale", FILES, stale, needs_news=True),
    Kind("upstream: a broken list", ("citizenlab",), broken_list),
    Kind("upstream: a hostile tree", ("citizenlab",), hostile_tree),
    Kind("upstream: no legend", ("citizenlab",), no_legend),
)
