import torch

from ramify.seeds import derive, drawing, generator


def test_a_purpose_has_its_own_numbers() -> None:
    seeds = {derive(seed, purpose, i) for seed in (0, 1) for purpose in ("order", "stage") for i in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_parts_of_a_purpose_do_not_run_together() -> None:
    assert derive(1, "order", 11) != derive(11, "order", 1)
    assert derive(1, "a", 12) != derive(1, "a", 1, 2)


def test_a_generator_repeats_itself() -> None:
    assert torch.equal(torch.randperm(9, generator=generator(3, "x")), torch.randperm(9, generator=generator(3, "x")))


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    with drawing(5, "stage", 0):
        first = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(10)
    with drawing(5, "stage", 0):
        assert torch.equal(first, torch.rand(3))


def test_drawing_without_a_seed_uses_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with drawing(None, "stage", 0):
        assert torch.equal(expected, torch.rand(3))
