import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.bodies import CHAT, CHAT_PATH

pytestmark = pytest.mark.anyio


async def samples(client) -> dict[tuple[str, ...], float]:
    text = (await client.get("/metrics")).text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_figures_come_as_prometheus_reads_them(client):
    answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE ringserve_http_requests_total counter" in answer.text


async def test_openmetrics_is_told_where_it_is_asked_for(client):
    answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_requests_are_counted_by_route_and_status(client):
    await client.post(CHAT_PATH, json=CHAT)
    await client.post(CHAT_PATH, json={**CHAT, "model": "other"})
    await client.get("/v1/models/fake%2Fmodel")
    await client.get("/no/such/path")
    found = await samples(client)

    counts = {key[1:]: value for key, value in found.items() if key[0] == "ringserve_http_requests_total"}
    assert counts[tuple(sorted(("POST", CHAT_PATH, "200")))] == 1
    assert counts[tuple(sorted(("POST", CHAT_PATH, "404")))] == 1
    assert counts[tuple(sorted(("GET", "/v1/models/{model_id:path}", "200")))] == 1
    assert counts[tuple(sorted(("GET", "other", "404")))] == 1


async def test_the_scrape_itself_is_under_way(client):
    assert (await samples(client))["ringserve_http_requests_under_way",] == 1


async def test_two_scrapes_do_not_change_each_other(client):
    first, second = await samples(client), await samples(client)

    assert set(first) <= set(second)
