# Copyright 2031 The Harbour Library.
#
# Licensed under a licence that exists only in this example. You may not use
# this file except in a chapter about cleaning text.

"""When the next high tide comes."""

MINUTES_BETWEEN_HIGH_TIDES = 745


def next_high_tide(last: int) -> int:
    """The minute of the day at which the tide is high again, from the minute at which it was."""
    return (last + MINUTES_BETWEEN_HIGH_TIDES) % (24 * 60)
