from server.metrics.http import HttpTally
from tests.server.test_observation import answered


def test_requests_are_counted_by_method_route_and_status():
    tally = HttpTally()
    for status in (200, 200, 503):
        tally.observe(answered(status=status))
    tally.observe(answered(route=None, method="BREW", status=404))

    assert tally.counts == {
        ("POST", "/v1/completions", "200"): 2,
        ("POST", "/v1/completions", "503"): 1,
        ("other", "other", "404"): 1,
    }


def test_requests_are_timed_by_route():
    tally = HttpTally()
    tally.observe(answered(started_s=1.0, ended_s=3.0))
    tally.observe(answered(started_s=1.0, ended_s=1.5))

    assert {route: found.total for route, found in tally.durations_s.items()} == {"/v1/completions": 2.5}
