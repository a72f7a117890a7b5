"""How good the detector is: the figures of detector/README.md, which a test compares with these.

The classes are those of the realism suite (dev/samples/realism), in plain words.
"""

from typing import NamedTuple

PRECISION = 0.953
RECALL = 0.926
MEDIAN_DELAY = 12  # hours
MOST_DELAY = 55  # hours, of 90 of 100
FALSE_PER_1000_WEEKS = 4.9  # of a series


class Found(NamedTuple):
    """A kind of blocking: how many, how often its beginning is found, and when.

    Attributes:
        kind: its class.
        said: in plain words.
        number: how many there were.
        found: the share that was found.
        median, most: delays of half and of nine of ten, of what was found.
        ended: of the ends, the share that was found within four days; "": it does not end.
    """

    kind: str
    said: str
    number: int
    found: str
    median: str
    most: str
    ended: str


class Wrong(NamedTuple):
    """A kind of story, and the false changes in it.

    Attributes:
        kind: its class.
        said: in plain words.
        series: how many there were.
        rate: false changes per 100 series, with its interval of 95 %.
    """

    kind: str
    said: str
    series: int
    rate: str


FOUND = (
    Found(
        "appears with blocking",
        "An app that people only install when it is blocked",
        1820,
        "97 %",
        "10 h",
        "47 h",
        "97 %",
    ),
    Found("blocking of 10 days", "Blocked for ten days", 1080, "99 %", "9 h", "39 h", "97 %"),
    Found("blocking of 2 days", "Blocked for two days", 1000, "92 %", "8 h", "27 h", "91 %"),
    Found("blocking of 6 days", "Blocked for six days", 780, "98 %", "9 h", "28 h", "98 %"),
    Found("blocking of 8 hours", "Blocked for eight hours", 810, "40 %", "4 h", "7 h", "47 %"),
    Found(
        "curfews *",
        "Blocked for three hours each day, for two weeks (not in the totals)",
        520,
        "37 %",
        "51 h",
        "219 h",
        "3 %",
    ),
    Found("flapping", "Blocked, unblocked and blocked again", 2250, "88 %", "12 h", "41 h", "86 %"),
    Found(
        "measured by Run links",
        "Measured in runs whose pages are mostly blocked",
        750,
        "96 %",
        "13 h",
        "58 h",
        "93 %",
    ),
    Found(
        "national blocking",
        "Blocked in many networks of a country",
        3380,
        "98 %",
        "20 h",
        "76 h",
        "92 %",
    ),
    Found(
        "one of three inputs",
        "One of three addresses of a service is blocked",
        560,
        "98 %",
        "8 h",
        "38 h",
        "96 %",
    ),
    Found(
        "partial blocking",
        "Only some of the measurements are blocked",
        780,
        "96 %",
        "26 h",
        "100 h",
        "87 %",
    ),
    Found("permanent blocking", "Blocked for good", 1300, "99 %", "9 h", "41 h", ""),
    Found(
        "shutdown, then blocking",
        "The network is cut off first, and blocked afterwards",
        810,
        "98 %",
        "11 h",
        "35 h",
        "96 %",
    ),
    Found("slow onset", "Blocked bit by bit, over days", 780, "100 %", "50 h", "91 h", ""),
    Found(
        "throttling",
        "Slowed down, so that four of ten measurements fail",
        810,
        "94 %",
        "35 h",
        "125 h",
        "82 %",
    ),
)
WRONG = (
    Wrong(
        "appears with blocking",
        "An app that people only install when it is blocked",
        1820,
        "3.1 [1.6 to 5.4]",
    ),
    Wrong(
        "beside a blocking",
        "Not blocked, in a network that blocks something else",
        2270,
        "2.6 [1.8 to 3.7]",
    ),
    Wrong("beside a fault", "Somewhere else while something is broken", 810, "0.5 [0.1 to 1.8]"),
    Wrong("blocked before", "Blocked since before the first measurement", 840, "6.8 [3.2 to 12.7]"),
    Wrong("blocking of 10 days", "Blocked for ten days", 1080, "1.6 [0.4 to 4.2]"),
    Wrong("blocking of 2 days", "Blocked for two days", 1000, "0.9 [0.4 to 1.9]"),
    Wrong("blocking of 6 days", "Blocked for six days", 780, "0.4 [0.0 to 1.5]"),
    Wrong("blocking of 8 hours", "Blocked for eight hours", 810, "6.8 [4.8 to 9.3]"),
    Wrong(
        "broken probe",
        "One probe fails, with a third to two thirds of a network's runs",
        560,
        "32.0 [22.8 to 43.6]",
    ),
    Wrong("country 1-5 h", "A whole country has a fault for 1 to 5 hours", 630, "1.3 [0.2 to 4.0]"),
    Wrong(
        "country 6-12 h", "A whole country has a fault for 6 to 12 hours", 630, "3.5 [1.2 to 7.8]"
    ),
    Wrong(
        "curfews *",
        "Blocked for three hours each day, for two weeks (not in the totals)",
        520,
        "218.3 [131.9 to 339.7]",
    ),
    Wrong(
        "enthusiast, many runs",
        "Somebody measures very often, in many runs",
        630,
        "39.7 [32.7 to 47.7]",
    ),
    Wrong(
        "enthusiast, one run", "Somebody measures very often, in one run", 630, "0.8 [0.1 to 2.4]"
    ),
    Wrong("flapping", "Blocked, unblocked and blocked again", 750, "5.3 [2.8 to 9.1]"),
    Wrong(
        "measured by Run links",
        "Measured in runs whose pages are mostly blocked",
        750,
        "0.9 [0.2 to 2.4]",
    ),
    Wrong("national blocking", "Blocked in many networks of a country", 3380, "1.1 [0.6 to 1.9]"),
    Wrong("network 1-5 h", "A network has a fault for 1 to 5 hours", 630, "0.3 [0.0 to 1.8]"),
    Wrong("network 6-12 h", "A network has a fault for 6 to 12 hours", 630, "7.6 [3.8 to 13.7]"),
    Wrong(
        "one of three inputs",
        "One of three addresses of a service is blocked",
        560,
        "0.9 [0.2 to 2.4]",
    ),
    Wrong("ordinary", "Nothing happens", 560, "0.0 [0.0 to 5.2]"),
    Wrong(
        "others blocked",
        "Not blocked, while other services of the country are",
        560,
        "0.4 [0.0 to 2.0]",
    ),
    Wrong(
        "outage, app tests",
        "A network has a fault, and only apps are tested",
        1260,
        "4.8 [3.3 to 6.9]",
    ),
    Wrong(
        "partial blocking", "Only some of the measurements are blocked", 780, "8.3 [5.5 to 12.1]"
    ),
    Wrong("permanent blocking", "Blocked for good", 1300, "4.9 [2.3 to 9.3]"),
    Wrong(
        "release, +12 points",
        "A new version of OONI Probe has 12 more anomalies in a hundred",
        720,
        "0.8 [0.2 to 2.1]",
    ),
    Wrong(
        "release, +28 points",
        "A new version of OONI Probe has 28 more anomalies in a hundred",
        720,
        "2.4 [1.1 to 4.6]",
    ),
    Wrong(
        "resolver 1-5 h",
        "The network's name server fails for 1 to 5 hours",
        630,
        "1.1 [0.3 to 2.9]",
    ),
    Wrong(
        "resolver 6-12 h",
        "The network's name server fails for 6 to 12 hours",
        630,
        "5.4 [2.2 to 10.9]",
    ),
    Wrong("service 1-5 h", "The service itself is down for 1 to 5 hours", 630, "0.0 [0.0 to 24.5]"),
    Wrong(
        "service 6-12 h", "The service itself is down for 6 to 12 hours", 630, "0.2 [0.0 to 0.9]"
    ),
    Wrong(
        "shutdown, then blocking",
        "The network is cut off first, and blocked afterwards",
        810,
        "3.0 [1.1 to 6.4]",
    ),
    Wrong("silence of 4 days", "Nobody measures for four days", 560, "0.7 [0.1 to 2.6]"),
    Wrong("slow onset", "Blocked bit by bit, over days", 780, "2.3 [1.1 to 4.2]"),
    Wrong(
        "test helper 1-5 h", "OONI's test helper fails for 1 to 5 hours", 650, "0.0 [0.0 to 24.5]"
    ),
    Wrong(
        "test helper 6-12 h", "OONI's test helper fails for 6 to 12 hours", 650, "0.9 [0.1 to 3.5]"
    ),
    Wrong(
        "throttling",
        "Slowed down, so that four of ten measurements fail",
        810,
        "15.3 [10.6 to 21.3]",
    ),
)
