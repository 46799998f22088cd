"""A test by betting on a bounded loss: (n, bad) per pane in, evidence that its level is above the tolerated one out.

Shiryaev-Roberts e-detector (Shin, Ramdas, Rinaldo): the evidence starts anew at every pane and is summed, so the time
to a false alarm is at least `limit` panes on average as long as the loss stays at or below the tolerated level.
"""

from __future__ import annotations

import math

import msgspec

STAKES = (0.1, 0.2, 0.4, 0.7, 1.0, 1.6)
"""How boldly each bettor bets; together they suit small and large rises."""


class Bets(msgspec.Struct):
    log_wealth: list[float]
    n: int = 0
    bad: int = 0
    """Counted since the evidence last was small: about since the level changed."""
    since_pane: int = 0


def start() -> Bets:
    return Bets(log_wealth=[-math.inf] * len(STAKES))


def bet(bets: Bets, n: int, bad: int, *, tolerated: float, phi: float, pane: int) -> float:
    """Take one pane's losses in; the log of the evidence after it. `phi` tempers for losses that come in bursts."""
    total, bettors = -math.inf, 0
    for place, stake in enumerate(STAKES):
        if stake * tolerated >= 0.95:
            continue
        gain = bad * math.log1p(stake * (1 - tolerated)) + (n - bad) * math.log1p(-stake * tolerated)
        wealth = _log_add(bets.log_wealth[place], 0.0) + gain / phi
        bets.log_wealth[place] = wealth
        total, bettors = _log_add(total, wealth), bettors + 1
    evidence = total - math.log(bettors)
    if evidence < 1.0:
        bets.n, bets.bad, bets.since_pane = 0, 0, pane + 1
    else:
        bets.n += n
        bets.bad += bad
    return evidence


def _log_add(a: float, b: float) -> float:
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
