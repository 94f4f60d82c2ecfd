"""Pictures to try; what the server makes of them is tested there."""

from ramify.answer.samples import _spread


def test_exits_take_turns_and_classes_are_spread() -> None:
    exits, labels = [0] * 8 + [1, 2], [*list("aaaabbcd"), "a", "b"]
    found = list(_spread(exits, labels, 6))
    assert len(set(found)) == 6
    assert {8, 9} <= set(found), "the rare exits are all there"
    assert {labels[at] for at in found} == set("abcd")
    assert sorted(_spread(exits, labels, 50)) == list(range(10))
    assert list(_spread([], [], 3)) == []
