"""The table `citizenlab`: how it is made, what is live of each country, which rows it will have."""

from collections.abc import Sequence

from citizenlab.holds import Live
from citizenlab.lists import Rows, TestList, host_of
from ooni_common.database import Database
from ooni_common.swap.content import Content, contents_by
from ooni_common.swap.update import LossLimit, Table, Update

TABLE = Table(
    name="citizenlab",
    shadow="citizenlab_flip",
    columns={
        "domain": "String",
        "url": "String",
        "cc": "FixedString(32)",
        "category_code": "String",
    },
    engine="ENGINE = ReplacingMergeTree ORDER BY (domain, url, cc, category_code)",
    identity=("url", "cc"),
)


def live_countries(database: Database, lists: Sequence[TestList]) -> dict[str, Live]:
    """Return what is live: cc → its rows, and its hosts unless the list has the very same rows."""
    if not database.exists(TABLE.name):
        return {}
    listed = {test_list.cc: test_list.rows.content for test_list in lists}
    live = contents_by("cc", database, TABLE.columns, TABLE.name)
    hosts = live_hosts(database, [cc for cc, content in live.items() if content != listed.get(cc)])
    return {cc: Live(content.rows, hosts.get(cc, frozenset())) for cc, content in live.items()}


def live_hosts(database: Database, countries: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return the live hosts of some countries; those of all are many, and few lists change."""
    if not countries:
        return {}
    rows = database.query(
        "SELECT toStringCutToZero(cc) AS country, groupUniqArray(domain)"
        f" FROM {TABLE.name} WHERE country IN %(countries)s GROUP BY country",
        {"countries": list(countries)},
    )
    return {cc: frozenset(map(host_of, domains)) for cc, domains in rows}


def rows_to_load(database: Database, lists: Sequence[TestList], held: Sequence[str]) -> list[Rows]:
    """Return the rows of the lists, and the live table's rows of the countries that are held."""
    rows = [test_list.rows for test_list in lists if test_list.cc not in held]
    if held and database.exists(TABLE.name):
        kept: dict[str, list[tuple[str, str, str]]] = {}
        for cc, *row in database.query(
            "SELECT DISTINCT toStringCutToZero(cc) AS country, domain, url, category_code"
            f" FROM {TABLE.name} WHERE country IN %(held)s",
            {"held": list(held)},
        ):
            kept.setdefault(cc, []).append((row[0], row[1], row[2]))
        rows += [Rows(cc, of_country) for cc, of_country in kept.items()]
    return [of_country for of_country in rows if of_country.count]


def update_of(rows: Sequence[Rows], bounds: tuple[int, int], max_shrink: float) -> Update:
    """Return the update of the table to these rows.

    Args:
        rows: of all countries.
        bounds: see `Update`.
        max_shrink: the share of the live rows by which the table may become smaller.
    """
    return Update(
        TABLE,
        (of_country.block() for of_country in rows),
        bounds,
        (LossLimit(max_shrink, net=True),),
        sum((of_country.content for of_country in rows), start=Content()),
    )
