"""The mixture: which stories the suite tells, and in how many networks.

It was fixed in the first commit of the suite, before any rule of the detector was chosen on it.
Changing it makes new figures incomparable with all earlier ones: add a new suite instead.
"""

from typing import NamedTuple

DAYS = 60
HOURS = 24 * DAYS
# Runs an hour that measure a series, and how many of a hundred networks have so many.
RATES = {0.05: 10, 0.1: 13, 0.25: 20, 0.5: 21, 1.0: 20, 2.0: 12, 5.0: 3, 10.0: 1}
SPARSE_RATES = {0.05: 30, 0.1: 30, 0.25: 25, 1.0: 10, 5.0: 5}
# What is measured in a country: two services, of which the first is the one that a story is about.
PAIRS = (
    ("Facebook", "WhatsApp"),
    ("Telegram", "YouTube"),
    ("Instagram", "Signal"),
    ("Twitter", "Telegram"),
    ("WhatsApp", "TikTok"),
    ("Signal", "Facebook"),
    ("YouTube", "Telegram"),
)
SHORT_FAULTS = (1, 2, 3, 4, 5)  # hours
LONG_FAULTS = (6, 7, 8, 9, 10, 11, 12)
MIXED_WORLDS = 14
ONE_SERVICE_EVERY = 7  # in so many worlds once, only the first service of a country is blocked


class Part(NamedTuple):
    """A story of the mixture.

    Attributes:
        scenario: the class that its series are reported in.
        networks: of each country that it is told in.
        hours: how long the fault lasts, in turn; none where the story says.
        sparse: most of the networks are hardly measured.
    """

    scenario: str
    networks: int
    hours: tuple[int, ...] = ()
    sparse: bool = False


class WorldPart(NamedTuple):
    """A story of a whole world; all its countries follow the same services.

    Attributes:
        scenario: the class that its series are reported in.
        worlds: how many.
        countries: of each world, with one network each.
        services: the pairs of PAIRS, in turn; only the first service if `alone`.
        hours: how long the fault lasts, in turn.
        alone: nothing but the first service is followed.
    """

    scenario: str
    worlds: int
    countries: int
    services: tuple[int, ...]
    hours: tuple[int, ...] = ()
    alone: bool = False


# Each of the mixed worlds has a country for each of these.
COUNTRIES = (
    Part("permanent blocking", 5),
    Part("blocking of 10 days", 4),
    Part("blocking of 6 days", 3),
    Part("blocking of 2 days", 4),
    Part("blocking of 8 hours", 3),
    Part("national blocking", 12, sparse=True),
    Part("one of three inputs", 8),
    Part("partial blocking", 3),
    Part("throttling", 3),
    Part("slow onset", 3),
    Part("flapping", 3),
    Part("shutdown, then blocking", 3),
    Part("appears with blocking", 8),
    Part("measured by Run links", 3),
    Part("curfews", 2),
    Part("ordinary", 2),
    Part("enthusiast, one run", 3),
    Part("enthusiast, many runs", 3),
    Part("broken probe", 2),
    Part("resolver 1-5 h", 3, SHORT_FAULTS),
    Part("resolver 6-12 h", 3, LONG_FAULTS),
    Part("network 1-5 h", 3, SHORT_FAULTS),
    Part("network 6-12 h", 3, LONG_FAULTS),
    Part("country 1-5 h", 3, SHORT_FAULTS),
    Part("country 6-12 h", 3, LONG_FAULTS),
    Part("silence of 4 days", 2),
    Part("others blocked", 2),
    Part("blocked before", 3),
)
WORLDS = (
    WorldPart("service 1-5 h", 3, 18, (0, 1, 3), SHORT_FAULTS, alone=True),
    WorldPart("service 6-12 h", 3, 18, (0, 1, 3), LONG_FAULTS, alone=True),
    WorldPart("test helper 1-5 h", 3, 13, (0, 2, 3), SHORT_FAULTS),
    WorldPart("test helper 6-12 h", 3, 13, (0, 2, 3), LONG_FAULTS),
    WorldPart("release, +12 points", 2, 16, (0, 3)),
    WorldPart("release, +28 points", 2, 16, (0, 3)),
)
BESIDE_BLOCKING = "beside a blocking"
BESIDE_FAULT = "beside a fault"
OUTAGE_OF_APPS = "outage, app tests"
NOT_JUDGED = frozenset({"curfews"})
