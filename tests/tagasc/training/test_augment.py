import torch

from tagasc.training.augment import EpochRng, band_mask, mix, time_slice


def test_random_numbers_depend_on_seed_and_epoch_alone():
    first, again, other, later = EpochRng(1, 3), EpochRng(1, 3), EpochRng(2, 3), EpochRng(1, 4)
    orders = [rng.permutation(50).tolist() for rng in (first, again, other, later)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_dropout_depends_on_seed_and_epoch_alone():
    draws = []
    for _ in range(2):
        torch.rand(7)
        EpochRng(1, 3)
        draws.append(torch.rand(5).tolist())
    assert draws[0] == draws[1]


def test_mixup_follows_its_formula():
    values, order, weight = torch.randn(3, 4, 2), torch.tensor([2, 0, 1]), torch.tensor([1.0, 0.25, 0.5])
    mixed = mix(values, order, weight)
    for clip in range(3):
        expected = weight[clip] * values[clip] + (1 - weight[clip]) * values[order[clip]]
        torch.testing.assert_close(mixed[clip], expected)


def test_one_mixup_weight_serves_the_whole_batch():
    values, order = torch.randn(3, 2), torch.tensor([1, 2, 0])
    torch.testing.assert_close(mix(values, order, torch.tensor([0.3])), 0.3 * values + 0.7 * values[order])


def test_band_masks_have_the_stated_widths_and_rate():
    masks = band_mask(128, EpochRng(0, 1), (8, 31), 0.5, 2000)
    assert 0.45 < masks.any(dim=1).float().mean() < 0.55
    inner = [mask for mask in masks if mask.any() and not mask[0] and not mask[-1]]
    widths = {int(mask.sum()) for mask in inner}
    assert min(widths) == 2 * 8
    assert max(widths) == 2 * 31
    assert all(mask.nonzero().flatten().diff().eq(1).all() for mask in inner)


def test_random_integers_cover_their_range():
    drawn = EpochRng(0, 1).integers(torch.full((1000,), 3))
    assert set(drawn.tolist()) == {0, 1, 2}


def test_time_slices_keep_one_segment_of_the_stated_length_at_any_position():
    lengths = torch.tensor([200, 40, 1]).repeat(700)
    first, kept = time_slice(lengths, EpochRng(0, 1), (0.25, 1.0), 0.5)
    assert 0.45 < (kept < lengths)[lengths == 200].float().mean() < 0.55
    assert (kept >= 0.25 * lengths).all()
    assert (first >= 0).all()
    assert (first + kept <= lengths).all()
    for length in (200, 40):
        cut = (lengths == length) & (kept < length)
        assert kept[cut].min() <= 0.28 * length
        assert first[cut].min() == 0
        assert (first + kept)[cut].max() == length
    first, kept = time_slice(torch.tensor([5, 5, 5]), EpochRng(0, 1), (0.25, 1.0), 0.0)
    assert kept.tolist() == [5, 5, 5]
    assert first.tolist() == [0, 0, 0]
