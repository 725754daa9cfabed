"""A few of the damaged files that `mutated_audio.py` makes by the thousand."""

from helpers import mutated_audio


def test_damaged_files_are_decoded_or_refused_in_a_sentence():
    found = mutated_audio.run(count=66, seed=0, songs=[])
    assert len(found) == 66
    outcomes = [outcome for outcome, *_ in found.values()]
    assert set(outcomes) == {"decoded", "refused"}, found
    assert all(found[name][0] == "decoded" for name in found if "_nothing_" in name), (
        found
    )
