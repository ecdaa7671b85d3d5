"""Restarts: backoff doubles, the budget is a sliding window, and it ends."""

from __future__ import annotations

from pipeline.restart_budget import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, RestartBudget


def test_backoff_doubles_until_the_budget_is_spent() -> None:
    budget = RestartBudget(max_restarts=3, window_s=60)
    starts = [budget.next_start_s(t) for t in (10.0, 11.0, 12.0, 13.0)]
    assert starts == [10.0 + FIRST_BACKOFF_S, 11.0 + 2 * FIRST_BACKOFF_S, 12.0 + 4 * FIRST_BACKOFF_S, None]


def test_old_restarts_leave_the_window() -> None:
    budget = RestartBudget(max_restarts=1, window_s=60)
    assert budget.next_start_s(0.0) is not None
    assert budget.next_start_s(59.0) is None
    assert budget.next_start_s(61.0) == 61.0 + FIRST_BACKOFF_S


def test_backoff_has_a_ceiling() -> None:
    budget = RestartBudget(max_restarts=20, window_s=1e9)
    last = [budget.next_start_s(0.0) for _ in range(20)][-1]
    assert last == LONGEST_BACKOFF_S


def test_no_restarts_allowed() -> None:
    assert RestartBudget(max_restarts=0, window_s=60).next_start_s(0.0) is None
