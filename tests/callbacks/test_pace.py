import math

import pytest

from callbacks.pace import Pace


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_step_lasts_from_the_end_of_the_one_before(clock):
    pace = Pace(clock=clock)
    for seconds in (1, 2, 9):
        clock.now += seconds
        pace.step_ended()
    assert pace.seconds_per_step == 2
    assert pace.seconds_left(10) == 20


def test_pauses_are_no_part_of_a_step_but_of_the_time_left(clock):
    pace = Pace(clock=clock)
    for _ in range(4):
        clock.now += 1
        pace.step_ended()
        pace.pause()
        clock.now += 3
        pace.resume()
    clock.now += 1
    pace.step_ended()
    assert pace.seconds_per_step == 1
    assert pace.seconds_left(5) == 5 * (1 + 12 / 5)


def test_only_the_newest_steps_count(clock):
    pace = Pace(window=3, clock=clock)
    for seconds in (50, 50, 50, 2, 2):
        clock.now += seconds
        pace.step_ended()
    assert pace.seconds_per_step == 2


def test_nothing_is_known_before_the_first_step(clock):
    pace = Pace(clock=clock)
    assert math.isnan(pace.seconds_per_step)
    assert math.isnan(pace.seconds_left(3))
