import pytest

from tests.support.triton_device import INTERPRETED, skip_elsewhere


@pytest.mark.slow
def test_candidates_are_timed_and_the_best_are_printed(capsys):
    skip_elsewhere(INTERPRETED)
    from benchmarks.block_sizes import main

    main(["--tiny", "--best", "1"])

    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line and not line.startswith("|")] == [
        "decode 1 x 1000",
        "decode 1 x 4096",
        "decode 32 x 1000",
        "decode 256 x 1000",
        "prompt 512",
        "prompt 2048",
        "prompt 8192",
    ]
    assert printed.count("| microseconds |") == 7
