"""All tools, run against servers on this machine while things go wrong: `make chaos`.

A chaos run is a list of steps, drawn from a seed and written down before the first of them
(schedule.py). A step lets one kind of fault (kinds/) happen to one tool (actors/), mends it, and
runs the tool once more. After each run the invariants hold (play.py), or the chaos run fails and
says how to replay it.
"""
