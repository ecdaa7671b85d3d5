"""Which process gets which sample when: nothing lost, nothing twice, and any update can be entered directly."""

from collections import Counter

import pytest

from mmdg_model.training.epoch_order import Draw, EpochOrder, share

#: samples, batch size, processes, parts, samples an epoch
CASES = [(15, 4, 1, 1, 0), (15, 4, 2, 1, 0), (15, 4, 3, 2, 0), (13, 32, 4, 1, 0), (13, 3, 4, 3, 0), (10, 4, 2, 2, 25),
         (10, 4, 3, 1, 7), (1, 1, 2, 1, 0)]


def plain(num_samples, **changes):
    return EpochOrder([None] * num_samples, **({"seed": 3, "batch_size": 4} | changes))


def flat(update):
    return [draw for part in update for draw in part]


@pytest.mark.parametrize(("num_samples", "batch_size", "world_size", "parts", "per_epoch"), CASES)
def test_the_processes_parts_together_are_the_single_processs_updates(num_samples, batch_size, world_size, parts,
                                                                      per_epoch):
    order = plain(num_samples, batch_size=batch_size, samples_per_epoch=per_epoch)
    alone = [flat(update) for update in order.updates(2)]
    ranks = [list(order.updates(2, rank=rank, world_size=world_size, parts=parts)) for rank in range(world_size)]
    assert {len(updates) for updates in ranks} == {order.updates_per_epoch} == {len(alone)}
    for number, together in enumerate(alone):
        assert [draw for updates in ranks for draw in flat(updates[number])] == together
        sizes = [len(flat(updates[number])) for updates in ranks]
        assert max(sizes) - min(sizes) <= 1
        assert all(len(part) > 0 for updates in ranks for part in updates[number])
    assert sum(map(len, alone)) == (per_epoch or num_samples)
    assert [len(update) for update in alone[:-1]] == [batch_size] * (len(alone) - 1)


@pytest.mark.parametrize("first_update", [0, 1, 2, 4])
def test_entering_later_gives_the_very_same_updates(first_update):
    order = plain(15)
    assert list(plain(15).updates(5, first_update=first_update, rank=1, world_size=2)) == list(
        order.updates(5, rank=1, world_size=2))[first_update:]


def test_an_epoch_is_a_permutation_keyed_by_seed_and_epoch():
    epochs = [plain(50).draws(epoch) for epoch in range(3)]
    for draws in epochs:
        assert sorted(draws) == [Draw(place, 0) for place in range(50)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert plain(50).draws(2) == epochs[2]  # whatever was drawn before
    assert plain(50, seed=4).draws(0) != epochs[0]


def test_short_epochs_draw_every_sample_once_before_any_twice():
    order = plain(10, samples_per_epoch=4)
    drawn = [draw.place for epoch in range(5) for draw in order.draws(epoch)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))


def test_copies_within_an_epoch_are_numbered():
    draws = plain(10, samples_per_epoch=25).draws(0)
    assert len(set(draws)) == 25
    assert set(Counter(draw.place for draw in draws).values()) == {2, 3}
    assert {draw.copy for draw in draws} == {0, 1, 2}


def test_balanced_draws_take_each_source_and_label_equally_often_in_every_update():
    cells = [("S", False)] * 40 + [("S", True)] * 5 + [("C", False)] * 30 + [("C", True)] * 2
    order = EpochOrder(cells, seed=0, batch_size=8)
    for update in order.updates(1):
        assert set(Counter(cells[draw.place] for draw in flat(update)).values()) <= {1, 2}
    over_epochs = Counter(draw.place for epoch in range(4) for draw in order.draws(epoch))
    per_cell = Counter()
    for place, times in over_epochs.items():
        per_cell[cells[place]] += times
    assert set(per_cell.values()) == {77}  # 4 epochs of 77 draws over 4 cells
    rare = [over_epochs[place] for place, cell in enumerate(cells) if cell == ("C", True)]
    assert max(rare) - min(rare) <= 1


@pytest.mark.parametrize(("call", "message"), [
    (lambda: EpochOrder([], seed=0, batch_size=4), "no training samples"),
    (lambda: plain(3, batch_size=0), "batch_size 0"),
    (lambda: plain(3).draws(-1), "epoch is -1"),
    (lambda: list(plain(15).updates(0, first_update=5)), "first_update is 5, expected 0 to 4"),
    (lambda: list(plain(15).updates(0, rank=2, world_size=2)), "rank is 2 of 2"),
])
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_shares_cover_everything_once():
    assert [list(share(7, rank, 3)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5, 6]]
