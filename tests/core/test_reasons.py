from __future__ import annotations

from aldriver.core.reasons import count_reasons


def test_reasons_that_differ_in_numbers_count_together():
    reasons = ["the force on atom 3 is 120.5 eV/Å", "no forces", "the force on atom 12 is 1e+03 eV/Å", "no forces"]
    assert count_reasons(reasons) == {"the force on atom … is … eV/Å": 2, "no forces": 2}


def test_a_single_reason_keeps_its_numbers_and_words_keep_their_digits():
    assert count_reasons(["timeout: 600 s"]) == {"timeout: 600 s": 1}
    assert count_reasons(["PBE0 of Fe2", "PBE0 of Fe2"]) == {"PBE0 of Fe2": 2}
