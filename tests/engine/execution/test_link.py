import pytest
import torch

from engine.execution.link import CudaLink, HostLink


def links():
    yield pytest.param("host", id="host")
    yield pytest.param("cuda", id="cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=links())
def link(request):
    return HostLink() if request.param == "host" else CudaLink(torch.device("cuda"))


@pytest.fixture
def device(link):
    return torch.device("cpu" if isinstance(link, HostLink) else "cuda")


def test_what_is_uploaded_is_there_for_what_comes_after(link, device):
    source, destination = link.staging(5), torch.zeros(5, dtype=torch.int64, device=device)
    source.copy_(torch.arange(5))
    fence = link.upload(source, destination)
    doubled = destination * 2
    fence.wait()
    source.zero_()

    assert link.download([doubled]).wait()[0].tolist() == [0, 2, 4, 6, 8]


def test_what_is_downloaded_is_what_it_was_then(link, device):
    numbers = torch.arange(6, device=device)
    download = link.download([numbers * 3, numbers.double()])

    first, second = download.wait()
    assert first.tolist() == [0, 3, 6, 9, 12, 15]
    assert second.dtype == torch.float64
    assert first.device.type == second.device.type == "cpu"


def test_a_recorded_computation_reads_and_writes_the_same_memory_again(link, device):
    inputs, total = torch.ones(4, device=device), torch.zeros(4, device=device)

    def compute():
        total.add_(inputs)
        return inputs * 10

    replay = link.record(compute)
    total.zero_()
    found = []
    for value in (2.0, 5.0):
        inputs.fill_(value)
        output = replay()
        found.append((output.data_ptr(), output.tolist()))

    assert [values for _, values in found] == [[20.0] * 4, [50.0] * 4]
    assert found[0][0] == found[1][0]
    assert total.tolist() == [7.0] * 4


def test_a_few_numbers_are_placed(link, device):
    placed = link.place([3, 1, 2])

    assert placed.tolist() == [3, 1, 2]
    assert placed.device.type == device.type
    assert placed.dtype == torch.int64


def test_on_the_host_a_download_shows_what_was_written_over_too_early():
    numbers = torch.arange(3)
    download = HostLink().download([numbers])
    numbers.zero_()

    assert download.wait()[0].tolist() == [0, 0, 0]
