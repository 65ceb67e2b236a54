import re
import tomllib
from importlib.metadata import distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.deploy.files import read

PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
VARIANTS = ["cpu", "cuda"]


def locked(variant: str) -> dict[str, Version]:
    pins = re.findall(r"^([\w.-]+)==(\S+) \\$", read(f"deploy/requirements/{variant}.txt"), flags=re.MULTILINE)
    return {name: Version(version) for name, version in pins}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_lock_file_satisfies_the_project(variant: str) -> None:
    versions = locked(variant)
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"].get("loadtest", []) + ["setuptools>=77"]
    for requirement in map(Requirement, wanted):
        assert versions[requirement.name] in requirement.specifier, f"{requirement}: run deploy/lock.sh"
    # What loadtest imports and the server does not.
    assert "aiohttp" in versions


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_locked_needs_nothing_else_on_any_python_3_11(variant: str) -> None:
    """As far as what is installed here is what is locked. Debian 12 has Python 3.11.2."""
    versions = locked(variant)
    installed = {str(canonicalize_name(one.name)): one for one in distributions()}
    checked = [one for name, one in installed.items() if name in versions and one.version == str(versions[name])]
    assert checked
    for patch in ("3.11.0", "3.11.99"):
        place = {"python_full_version": patch, "python_version": "3.11", "extra": ""}
        needed = [Requirement(text) for one in checked for text in one.requires or []]
        names = {canonicalize_name(one.name) for one in needed if one.marker is None or one.marker.evaluate(place)}
        assert names <= set(versions), "run deploy/lock.sh"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_locked_file_has_a_hash_and_no_address(variant: str) -> None:
    text = read(f"deploy/requirements/{variant}.txt")
    assert "://" not in text
    assert not re.search(r"^-", text, flags=re.MULTILINE)
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked(variant))
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_variants_differ_in_what_cuda_needs_alone() -> None:
    cpu, cuda = locked("cpu"), locked("cuda")
    assert cpu["torch"].local == "cpu"
    assert cpu["torch"].public == cuda["torch"].public
    more = {name for name in set(cpu) ^ set(cuda) if not name.startswith(("nvidia-", "cuda-"))}
    assert more == {"triton"}
    assert all(cpu[name] == cuda[name] for name in cpu if name != "torch")


def test_the_context_admits_by_name_what_the_dockerfile_copies() -> None:
    dockerfile, ignored = read("Dockerfile"), read(".dockerignore").splitlines()
    assert ignored[1] == "*"
    admitted = {line[1:].removesuffix("*.txt").rstrip("/") for line in ignored if line.startswith("!")}
    copied = " ".join(re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, flags=re.MULTILINE)).replace(
        "--chmod=755 ", ""
    )
    assert {name.removesuffix("/${VARIANT}.txt") for name in copied.split()} == admitted


def test_heic_is_installed_only_if_asked_for_and_as_the_project_wants_it() -> None:
    (extra,) = map(Requirement, PROJECT["optional-dependencies"]["heif"])
    (version,) = re.findall(r"pillow-heif==(\S+)", read("Dockerfile"))
    assert Version(version) in extra.specifier
    assert all("pillow-heif" not in locked(variant) for variant in VARIANTS)
    assert re.search(r"^ARG HEIF$", read("Dockerfile"), flags=re.MULTILINE)


def test_it_runs_as_a_user_of_its_own_who_may_be_asked_how_it_is() -> None:
    dockerfile = read("Dockerfile")
    final = dockerfile[dockerfile.rindex("\nFROM ") :]
    assert re.search(r"^USER [1-9]\d+$", final, flags=re.MULTILINE)
    assert "/readyz" in final[final.index("HEALTHCHECK") :]
    assert re.search(r'^ENTRYPOINT \["', final, flags=re.MULTILINE), "a shell as PID 1 would keep signals to itself"


def test_it_is_labelled_with_what_it_is_and_what_it_was_built_from() -> None:
    dockerfile = read("Dockerfile")
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\S+)="(.*)"', dockerfile))
    assert labels["title"].lower() == PROJECT["name"]
    assert labels["description"] == PROJECT["description"]
    assert labels["licenses"] == PROJECT["license"]
    assert labels["base.name"].removeprefix("docker.io/library/") in re.findall(
        r"^FROM (\S+)", dockerfile, re.MULTILINE
    )
    for label, argument in (("version", "VERSION"), ("revision", "GIT_COMMIT"), ("created", "CREATED")):
        assert labels[label] == f"${{{argument}}}"
        # After the last FROM, or the label would be empty.
        assert f"\nARG {argument}=" in dockerfile[dockerfile.rindex("\nFROM ") :]
    for argument in ("GIT_COMMIT", "CREATED"):
        assert f"--build-arg {argument}=" in read("deploy/image.sh")
