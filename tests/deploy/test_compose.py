import re
import tomllib

from service.settings.loading import shown
from service.settings.names import PREFIX
from service.settings.settings import Settings
from tests.deploy.files import load_yaml, read

COMPOSE = load_yaml("docker-compose.yml")
SERVICES = COMPOSE["services"]
# What the image sets and a published port stands for.
FIXED = {"host", "port"}
SETTINGS = {f"{PREFIX}{name.upper()}" for name in set(Settings.model_fields) - FIXED}


HARDWARE = {
    variant: load_yaml(f"deploy/{variant}.yml")["services"]["packlight"] for variant in ("cpu", "cuda")
}  # fmt: skip


def settings_in(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", text))


def test_every_setting_and_nothing_else_can_be_passed_to_the_server() -> None:
    for variant in HARDWARE.values():
        passed = SERVICES["packlight"]["environment"].keys() | variant["environment"].keys()
        assert settings_in(" ".join(passed)) == SETTINGS
        # A service's own value would replace that of the file it extends, a missing one too.
        assert not SERVICES["packlight"]["environment"].keys() & variant["environment"].keys()
    assert settings_in(read("docker-compose.yml")) - {f"{PREFIX}DRAIN_S"} <= SETTINGS


def test_the_example_lists_every_variable_that_compose_reads() -> None:
    files = "".join(read(name) for name in ("docker-compose.yml", "deploy/cpu.yml", "deploy/cuda.yml"))
    interpolated = set(re.findall(r"\$\{(\w+)", files))
    passed = {
        name for service in SERVICES.values() for name, value in service.get("environment", {}).items() if not value
    }
    offered = re.findall(r"^#(\w+)=", read(".env.example"), flags=re.MULTILINE)
    assert len(offered) == len(set(offered))
    assert set(offered) == interpolated | passed


def test_the_defaults_in_the_example_are_those_of_the_settings() -> None:
    for name, value in re.findall(rf"^#{PREFIX}(\w+)=(.+)$", read(".env.example"), flags=re.MULTILINE):
        default = Settings.model_fields[name.lower()].default
        assert value == (f"{default:g}" if isinstance(default, float) else shown(default)), name


def test_the_defaults_in_the_example_are_those_of_compose() -> None:
    files = "".join(read(name) for name in ("docker-compose.yml", "deploy/cpu.yml", "deploy/cuda.yml"))
    for name, value in re.findall(r"^#(\w+)=(.+)$", read(".env.example"), flags=re.MULTILINE):
        if not name.startswith(PREFIX):
            assert f"${{{name}:-{value}}}" in files, name


def test_names_of_services_images_and_the_dockerfile_agree_on_the_version() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert f"\nARG VERSION={version}\n" in read("Dockerfile")
    for name in ("packlight", "loadtest"):
        assert SERVICES[name]["image"] == f"packlight:{version}-${{VARIANT:-cuda}}"


def test_every_image_has_a_tag_that_begins_with_a_digit_or_v() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^FROM (\S+:\S+)", read("Dockerfile"), flags=re.MULTILINE)
    assert len(images) == len(SERVICES) + 2
    for image in images:
        assert re.fullmatch(r"[\w./-]+:[v0-9][\w.${}:-]*(@sha256:[0-9a-f]{64})?", image), image
        # Those of others, by what their tag stood for.
        assert "@sha256:" in image or image.startswith(("packlight:", "python:")), image


def test_every_container_is_hardened_and_bounded() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"], name
        limits = [service] if name != "packlight" else list(HARDWARE.values())
        assert all(limit["mem_limit"] for limit in limits), name


def test_ports_are_on_loopback_unless_asked() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in ports)


def test_each_waits_for_the_health_of_what_it_reads() -> None:
    order = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    healthy = {"condition": "service_healthy"}
    assert order == {
        "packlight": {},
        "prometheus": {"packlight": healthy},
        "grafana": {"prometheus": healthy},
        "loadtest": {"packlight": healthy},
    }


def test_only_the_default_asks_for_a_gpu() -> None:
    assert "nvidia" not in read("deploy/cpu.yml").lower()
    devices = load_yaml("deploy/cuda.yml")["services"]["packlight"]["deploy"]["resources"]["reservations"]["devices"]
    assert [device["driver"] for device in devices] == ["nvidia"]


def test_each_variant_asks_for_its_device_by_name() -> None:
    """`auto` would serve from the CPU where the driver is too old."""
    for name, variant in HARDWARE.items():
        assert variant["environment"]["PACKLIGHT_DEVICES"] == f"${{PACKLIGHT_DEVICES:-{name}}}"


def test_stopping_leaves_time_to_drain() -> None:
    grace = re.search(r"STOP_GRACE_PERIOD:-(\d+)s", SERVICES["packlight"]["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) > Settings.model_fields["drain_s"].default
