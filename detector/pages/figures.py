"""How good the detector is: the figures of detector/README.md, which a test compares with these.

The classes are those of the realism suite (dev/samples/realism), in plain words.
"""

from typing import NamedTuple

PRECISION = 0.96
RECALL = 0.937
MEDIAN_DELAY = 12  # hours
MOST_DELAY = 52  # hours, of 90 of 100
FALSE_PER_1000_WEEKS = 4.3  # of a series


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
        "98 %",
        "9 h",
        "44 h",
        "97 %",
    ),
    Found("blocking of 10 days", "Blocked for ten days", 1080, "100 %", "9 h", "34 h", "98 %"),
    Found("blocking of 2 days", "Blocked for two days", 1000, "94 %", "8 h", "26 h", "92 %"),
    Found("blocking of 6 days", "Blocked for six days", 780, "99 %", "9 h", "26 h", "99 %"),
    Found("blocking of 8 hours", "Blocked for eight hours", 810, "42 %", "4 h", "7 h", "49 %"),
    Found(
        "curfews *",
        "Blocked for three hours each day, for two weeks (not in the totals)",
        520,
        "38 %",
        "34 h",
        "219 h",
        "4 %",
    ),
    Found("flapping", "Blocked, unblocked and blocked again", 2250, "91 %", "9 h", "32 h", "89 %"),
    Found(
        "measured by Run links",
        "Measured in runs whose pages are mostly blocked",
        750,
        "97 %",
        "12 h",
        "55 h",
        "93 %",
    ),
    Found(
        "national blocking",
        "Blocked in many networks of a country",
        3380,
        "99 %",
        "20 h",
        "64 h",
        "93 %",
    ),
    Found(
        "one of three inputs",
        "One of three addresses of a service is blocked",
        560,
        "99 %",
        "8 h",
        "36 h",
        "97 %",
    ),
    Found(
        "partial blocking",
        "Only some of the measurements are blocked",
        780,
        "97 %",
        "25 h",
        "90 h",
        "88 %",
    ),
    Found("permanent blocking", "Blocked for good", 1300, "100 %", "9 h", "34 h", ""),
    Found(
        "shutdown, then blocking",
        "The network is cut off first, and blocked afterwards",
        810,
        "99 %",
        "11 h",
        "33 h",
        "97 %",
    ),
    Found("slow onset", "Blocked bit by bit, over days", 780, "100 %", "49 h", "87 h", ""),
    Found(
        "throttling",
        "Slowed down, so that four of ten measurements fail",
        810,
        "97 %",
        "36 h",
        "114 h",
        "85 %",
    ),
)
WRONG = (
    Wrong(
        "appears with blocking",
        "An app that people only install when it is blocked",
        1820,
        "3.2 [1.7 to 5.7]",
    ),
    Wrong(
        "beside a blocking",
        "Not blocked, in a network that blocks something else",
        2270,
        "0.7 [0.3 to 1.4]",
    ),
    Wrong("beside a fault", "Somewhere else while something is broken", 810, "0.0 [0.0 to 0.8]"),
    Wrong("blocked before", "Blocked since before the first measurement", 840, "7.0 [3.4 to 12.8]"),
    Wrong("blocking of 10 days", "Blocked for ten days", 1080, "2.1 [0.8 to 4.6]"),
    Wrong("blocking of 2 days", "Blocked for two days", 1000, "1.3 [0.6 to 2.4]"),
    Wrong("blocking of 6 days", "Blocked for six days", 780, "0.4 [0.0 to 1.5]"),
    Wrong("blocking of 8 hours", "Blocked for eight hours", 810, "8.0 [5.8 to 10.9]"),
    Wrong(
        "broken probe",
        "One probe fails, with a third to two thirds of a network's runs",
        560,
        "27.9 [19.1 to 39.2]",
    ),
    Wrong("country 1-5 h", "A whole country has a fault for 1 to 5 hours", 630, "1.3 [0.2 to 4.0]"),
    Wrong(
        "country 6-12 h", "A whole country has a fault for 6 to 12 hours", 630, "2.2 [0.5 to 6.1]"
    ),
    Wrong(
        "curfews *",
        "Blocked for three hours each day, for two weeks (not in the totals)",
        520,
        "271.0 [156.7 to 436.0]",
    ),
    Wrong(
        "enthusiast, many runs",
        "Somebody measures very often, in many runs",
        630,
        "24.8 [18.8 to 32.1]",
    ),
    Wrong(
        "enthusiast, one run", "Somebody measures very often, in one run", 630, "0.8 [0.1 to 2.4]"
    ),
    Wrong("flapping", "Blocked, unblocked and blocked again", 750, "3.7 [2.2 to 5.9]"),
    Wrong(
        "measured by Run links",
        "Measured in runs whose pages are mostly blocked",
        750,
        "2.8 [1.0 to 6.2]",
    ),
    Wrong("national blocking", "Blocked in many networks of a country", 3380, "1.6 [0.9 to 2.5]"),
    Wrong("network 1-5 h", "A network has a fault for 1 to 5 hours", 630, "0.3 [0.0 to 1.8]"),
    Wrong("network 6-12 h", "A network has a fault for 6 to 12 hours", 630, "6.7 [3.1 to 12.5]"),
    Wrong(
        "one of three inputs",
        "One of three addresses of a service is blocked",
        560,
        "1.4 [0.6 to 3.0]",
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
        "4.3 [2.8 to 6.2]",
    ),
    Wrong(
        "partial blocking", "Only some of the measurements are blocked", 780, "7.8 [5.0 to 11.7]"
    ),
    Wrong("permanent blocking", "Blocked for good", 1300, "4.8 [2.1 to 9.2]"),
    Wrong(
        "release, +12 points",
        "A new version of OONI Probe has 12 more anomalies in a hundred",
        720,
        "0.3 [0.0 to 1.5]",
    ),
    Wrong(
        "release, +28 points",
        "A new version of OONI Probe has 28 more anomalies in a hundred",
        720,
        "1.9 [0.8 to 3.8]",
    ),
    Wrong(
        "resolver 1-5 h",
        "The network's name server fails for 1 to 5 hours",
        630,
        "0.8 [0.1 to 2.4]",
    ),
    Wrong(
        "resolver 6-12 h",
        "The network's name server fails for 6 to 12 hours",
        630,
        "5.1 [2.0 to 10.7]",
    ),
    Wrong("service 1-5 h", "The service itself is down for 1 to 5 hours", 630, "0.0 [0.0 to 24.5]"),
    Wrong(
        "service 6-12 h", "The service itself is down for 6 to 12 hours", 630, "0.2 [0.0 to 0.9]"
    ),
    Wrong(
        "shutdown, then blocking",
        "The network is cut off first, and blocked afterwards",
        810,
        "1.5 [0.5 to 3.3]",
    ),
    Wrong("silence of 4 days", "Nobody measures for four days", 560, "0.7 [0.1 to 2.6]"),
    Wrong("slow onset", "Blocked bit by bit, over days", 780, "2.6 [1.2 to 4.8]"),
    Wrong(
        "test helper 1-5 h", "OONI's test helper fails for 1 to 5 hours", 650, "0.0 [0.0 to 24.5]"
    ),
    Wrong(
        "test helper 6-12 h", "OONI's test helper fails for 6 to 12 hours", 650, "0.6 [0.0 to 3.5]"
    ),
    Wrong(
        "throttling",
        "Slowed down, so that four of ten measurements fail",
        810,
        "15.2 [10.7 to 20.9]",
    ),
)
