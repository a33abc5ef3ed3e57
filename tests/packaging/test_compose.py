"""compose.yaml: two services over the images of the Dockerfile, one of them started only by name."""

import re

import pytest
import yaml

from server.settings import ENV_PREFIX, Settings
from tests.packaging.image import ROOT, last, lineage, read_stages

TEXT = (ROOT / "compose.yaml").read_text("utf-8")
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
STAGES = read_stages((ROOT / "Dockerfile").read_text("utf-8"))
TARGETS = {"cpu": "cpu", "gpu": "cuda"}


def test_a_service_is_there_for_each_target():
    assert {name: service["build"]["target"] for name, service in SERVICES.items()} == TARGETS
    assert set(TARGETS.values()) < set(STAGES)


def test_only_the_cpu_service_starts_unasked():
    assert {name: service.get("profiles") for name, service in SERVICES.items()} == {
        "cpu": None,
        "gpu": ["gpu"],
    }


def test_only_the_gpu_service_asks_for_a_device():
    devices = SERVICES["gpu"]["deploy"]["resources"]["reservations"]["devices"]

    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert "deploy" not in SERVICES["cpu"]


@pytest.mark.parametrize("name", TARGETS)
def test_a_service_publishes_the_port_that_the_image_exposes(name):
    exposed = last(list(lineage(STAGES, TARGETS[name])), "EXPOSE").value

    assert [port.rsplit(":", 1)[-1] for port in SERVICES[name]["ports"]] == [exposed]


@pytest.mark.parametrize("name", TARGETS)
def test_a_service_is_not_started_without_a_key(name):
    """`${NAME:?why}` makes compose refuse an unset or empty variable."""
    assert re.fullmatch(r"\$\{RINGSERVE_API_KEY:\?.+\}", SERVICES[name]["environment"]["RINGSERVE_API_KEY"])


@pytest.mark.parametrize("name", TARGETS)
def test_a_service_keeps_the_images_cache_folder(name):
    variables = [word for one in lineage(STAGES, TARGETS[name]) if one.name == "ENV" for word in one.words]
    folders = {mount.split(":")[0]: mount.split(":")[1] for mount in SERVICES[name]["volumes"]}

    assert f"RINGSERVE_CACHE_DIR={folders['cache']}" in variables
    assert set(folders) == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", TARGETS)
def test_a_service_gets_longer_to_stop_than_it_takes_to_drain(name):
    grace_s = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))

    assert grace_s > Settings.model_fields["drain_s"].default + 10


def test_every_variable_of_ours_is_a_setting():
    named = set(re.findall(rf"\b{ENV_PREFIX}([A-Z_]+)", TEXT))

    assert named
    assert {name.lower() for name in named} - set(Settings.model_fields) == set()
