"""A job's input, from whoever sends it: in blocks, each of which arrives whole and once."""

import os
import time
from collections.abc import Callable

from skelebot.runners.kubernetes.client import Answer, Broken, Client, Stream
from skelebot.runners.kubernetes.manifest import RUN

# usage: sh -c TAKE sh SENDER. Takes blocks for the job's input: a line with how many bytes the sender has
# sent before and how many the block has, and the block; `end 0` ends the input. The answer to each is how
# many it has of the sender; or `end` where the input has ended, `over` where the job has. What an earlier
# connection left may still be at work, so a block counts only where it follows the one before, and how much
# there is changes at one instant.
_TAKE = f"""
umask 0
cd {RUN} || exit 1
block=$(mktemp {RUN}/x.XXXXXX) || exit 1
trap 'rm -f "$block"' EXIT
sent() {{ cat "in.$1" 2>/dev/null || echo 0; }}
answer() {{
    if [ -e code ]; then echo over; elif [ -e in.end ]; then echo end; else sent "$1"; fi
}}
answer "$1"
while read -r at size; do
    head -c "$size" >"$block"
    [ "$(wc -c <"$block")" = "$size" ] || exit 1
    (
        flock 9
        if [ -e in.end ]; then
            :
        elif [ "$at" = end ]; then
            : >in.end
        elif [ "$(sent "$1")" = "$at" ]; then
            cat "$block" >>in && echo "$((at + size))" >"$block" && mv "$block" "in.$1"
        fi
    ) 9>>in.lock
    answer "$1"
done
"""

BLOCK = 1 << 16  # bytes
SENT, CLOSED, OVER = "sent", "end", "over"


class Input:
    """What one sender sends to a job; what has not arrived is sent again.

    source: all of it, or a descriptor. has_end: whether the job's input ends with it. by_lines: whether
    others may send to the same job, so that a block has whole lines, unless one is longer.
    """

    def __init__(
        self, client: Client, pod: str, source: bytes | int, has_end: bool = True, by_lines: bool = False
    ) -> None:
        self._client, self._pod, self._sender = client, pod, os.urandom(4).hex()
        self._held = source if isinstance(source, bytes) else b""  # from `_at` on
        self._source = None if isinstance(source, bytes) else source
        self._has_end, self._by_lines, self._at = has_end, by_lines, 0
        self._is_ending, self._is_line_whole = False, True

    def send(self, goes_on: Callable[[], bool]) -> str:
        """Send all of it; return SENT when it has arrived, CLOSED or OVER where not all was wanted.

        goes_on: tells after each lost connection whether to try again. Raises Answer where that is forbidden.
        """
        while goes_on():
            try:
                words = ("/bin/sh", "-c", _TAKE, "sh", self._sender)
                with self._client.connected(self._pod, "keeper", *words) as stream:
                    return self._exchange(stream)
            except Broken:
                pass
            except Answer as error:
                if error.status in (401, 403):
                    raise
            time.sleep(0.2)
        return OVER

    def _exchange(self, stream: Stream) -> str:
        rest = b""
        for channel, data in stream.read():
            *lines, rest = (rest + data).split(b"\n") if channel == 1 else (rest,)
            for answer in map(bytes.decode, lines):
                if not answer.isdigit():
                    return SENT if self._is_ending else answer
                if not self._send_next(stream, int(answer)):
                    return SENT
        raise Broken("the other side has ended")

    def _send_next(self, stream: Stream, arrived: int) -> bool:
        """Send what follows these bytes; tell whether an answer comes."""
        self._held, self._at = self._held[arrived - self._at :], arrived
        block = self._next_block()
        if block:
            stream.write(f"{self._at} {len(block)}\n".encode() + block)
        elif self._has_end:
            self._is_ending = True
            stream.write(b"end 0\n")
        return bool(block) or self._has_end

    def _next_block(self) -> bytes:
        while self._source is not None and not self._has_block():
            data = os.read(self._source, BLOCK)
            if not data:
                self._source = None
                # Or the next sender would continue the line.
                data = b"\n" if self._by_lines and not self._is_line_whole else b""
            self._held += data
            self._is_line_whole = data.endswith(b"\n")
        block = self._held[:BLOCK]
        return block[: block.rfind(b"\n") + 1 or BLOCK] if self._by_lines else block

    def _has_block(self) -> bool:
        is_whole = b"\n" in self._held if self._by_lines else bool(self._held)
        return is_whole or len(self._held) >= BLOCK
