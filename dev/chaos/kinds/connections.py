"""What happens to HTTP between a tool and its upstream, or the store."""

from signal import SIGTERM

from dev.chaos.kinds.kind import FILES, OVER_HTTP, Kind
from dev.chaos.kinds.processes import MOST_REQUESTS, STOPPED
from dev.chaos.play import Play
from dev.servers.fault_proxy import (
    ALWAYS,
    Exchange,
    Fault,
    after,
    answers,
    cut_answer,
    lose_answer,
    s3_error,
    stall_answer,
)

FEW = 3000  # bytes; most answers have more
ONE_SECOND = 1


def _fail_once(play: Play, fault: Fault) -> None:
    first = int(play.draw() * MOST_REQUESTS)
    play.actor.upstream.fail(fault, after(first, lambda _request: True), times=1)


def _fail_always(play: Play, fault: Fault) -> None:
    play.actor.upstream.fail(fault, lambda _request: True, times=ALWAYS)


def cut_once(play: Play) -> None:
    """Reset the connection in the middle of one answer: it is asked for again."""
    _fail_once(play, cut_answer(int(play.draw() * FEW)))
    play.run(allowed={0, 69})


def cut_always(play: Play) -> None:
    """Reset every connection in the middle of the answer."""
    _fail_always(play, cut_answer(0))
    play.run(allowed={69})


def lost(play: Play) -> None:
    """Do what is asked, and do not say so."""
    _fail_once(play, lose_answer())
    play.run(allowed={0, 69})


def stalled(play: Play) -> None:
    """Stop in the middle of an answer; somebody loses patience."""
    _fail_once(play, stall_answer(int(play.draw() * FEW)))
    tool = play.start()
    tool.pause(2 * play.actor.usual_seconds + ONE_SECOND)
    tool.send(SIGTERM)
    play.end(tool, STOPPED | {69})


def flipped(play: Play) -> None:
    """Change a byte of an answer, so that it isn't text any more."""
    position = play.draw()

    def fault(exchange: Exchange) -> None:
        with exchange.forwarded() as response:
            content = bytearray(response.read())
            exchange.pass_head(response)
            if content:
                content[int(position * len(content))] ^= 0x80
            exchange.send(bytes(content))
            exchange.end()

    _fail_once(play, fault)
    # A row or two may be refused: then the next run fetches once more.
    play.disturbed = play.actor.name in ("asnmeta", "fingerprints")
    play.run(allowed={0, 65, 69}, looks=play.disturbed)


def busy(play: Play) -> None:
    """Answer that it can't now."""
    status = play.choose((429, 500, 502, 503))
    if play.actor.name == "backup":
        _fail_always(play, s3_error(503, "SlowDown"))
    else:
        _fail_always(play, answers(status))
    play.run(allowed={69})


def denied(play: Play) -> None:
    """Refuse to answer."""
    if play.actor.name == "backup":
        _fail_always(play, s3_error(403, "AccessDenied"))
    else:
        _fail_always(play, answers(play.choose((401, 403, 404, 410))))
    play.run(allowed={65, 69, 78})


def not_http(play: Play) -> None:
    """Answer with something else than HTTP."""
    text = play.choose(
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", b"\0" * 100, b"HTTP/1.1 2000 \r\n\r\n")
    )

    def fault(exchange: Exchange) -> None:
        for _ in exchange.body():
            pass
        exchange.handler.wfile.write(text)
        exchange.close()

    _fail_always(play, fault)
    play.run(allowed={69})


def redirected(play: Play) -> None:
    """Send it in a circle."""
    _fail_always(play, answers(302, headers={"Location": f"{play.actor.upstream.url}/elsewhere"}))
    play.run(allowed={69, 78})


KINDS = (
    Kind("answer cut", OVER_HTTP, cut_once),
    Kind("answers cut", OVER_HTTP, cut_always, needs_news=True),
    Kind("answer lost", OVER_HTTP, lost),
    Kind("answer stalled", OVER_HTTP, stalled),
    Kind("answer flipped", OVER_HTTP, flipped),
    Kind("upstream busy", OVER_HTTP, busy),
    Kind("upstream denies", OVER_HTTP, denied),
    Kind("upstream speaks no HTTP", OVER_HTTP, not_http),
    Kind("upstream redirects in a circle", FILES, redirected),
)
