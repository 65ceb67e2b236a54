import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model.sizing.geometry import FixedInput, Geometry
from service.limits import Limits, ModelFacts
from service.settings.loading import add_options, load_settings
from service.settings.names import PREFIX, SettingsError
from service.settings.settings import Settings
from service.settings.table import table

FACTS = ModelFacts(
    name="m", dim=8, token_dim=8, geometry=Geometry.for_naflex(16, 256),
    default_max_tokens=256, parameters=1, fingerprint="f", fast_fingerprint="g", device="cpu",
    dtype="float32", attention="segmentwise",
)  # fmt: skip


def load(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, **options: str | None) -> Settings:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return load_settings(options, names=environ)


def test_an_option_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"PACKLIGHT_PORT": "9000", "PACKLIGHT_MAX_BATCH_TOKENS": "2048"}
    settings = load(environ, monkeypatch, port="9001", host=None)
    assert (settings.port, settings.max_batch_tokens, settings.host) == (9001, 2048, "127.0.0.1")


def test_an_unknown_name_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"BACH_TOKENS \(did you mean PACKLIGHT_MAX_BATCH_TOKENS\?\)$"):
        load({"PACKLIGHT_MAX_BACH_TOKENS": "1"}, monkeypatch)
    # What Kubernetes sets for a Service of our name.
    with pytest.raises(SettingsError, match=r"PACKLIGHT_SERVICE_HOST$"):
        load({"PACKLIGHT_SERVICE_HOST": "10.0.0.1"}, monkeypatch)


def test_an_empty_variable_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load({"PACKLIGHT_REVISION": "", "PACKLIGHT_PORT": ""}, monkeypatch).port == 8000


def test_keys_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load({"PACKLIGHT_API_KEYS": "one, two,"}, monkeypatch).all_api_keys() == ["one", "two"]


def keys_file(folder: Path, content: bytes) -> str:
    path = folder / "keys"
    path.write_bytes(content)
    return str(path)


def test_keys_of_a_file_are_added_to_those_of_the_setting(tmp_path: Path) -> None:
    path = keys_file(tmp_path, b"# those of the office\n three \r\n\n#four\nfive,six")
    settings = load_settings({"api_keys": "one,two", "api_keys_file": path}, names=())
    assert settings.all_api_keys() == ["one", "two", "three", "five,six"]
    assert load_settings({"api_keys_file": path}, names=()).all_api_keys() == ["three", "five,six"]


@pytest.mark.parametrize("content", [b"", b"\n# only a comment\n", "sésame\n".encode(), b"sesame\nses\0ame\n"])
def test_a_file_without_usable_keys_refuses_to_start(tmp_path: Path, content: bytes) -> None:
    path = keys_file(tmp_path, content)
    with pytest.raises(SettingsError, match=r"api_keys_file \(PACKLIGHT_API_KEYS_FILE, --api-keys-file\)") as caught:
        load_settings({"api_keys_file": path}, names=())
    assert path in str(caught.value)
    assert "same" not in str(caught.value)


def test_a_file_that_cannot_be_read_refuses_to_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings({"api_keys_file": str(tmp_path / "none")}, names=())
    with pytest.raises(SettingsError, match="directory"):
        load_settings({"api_keys_file": str(tmp_path)}, names=())


def test_no_key_is_in_any_rendering_of_the_settings(tmp_path: Path) -> None:
    path = keys_file(tmp_path, b"sesame-of-the-file\n")
    settings = load_settings({"api_keys": "sesame-of-the-setting", "api_keys_file": path}, names=())
    shown = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json(), str(vars(settings))]
    assert not any("sesame" in text for text in shown)
    assert "sesame" not in table()
    with pytest.raises(ValidationError) as caught:
        Settings(api_keys="sesame", port=-1)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("text", ["https://a.example", "*", "https://a.example, http://localhost:3000", "http://[::1]"])
def test_origins_are_separated_by_commas(text: str) -> None:
    assert ", ".join(load_settings({"cors_origins": text}, names=()).cors_origins) == text


@pytest.mark.parametrize(
    "text", [",", "a.example", "https://a.example/", "https://a.example/path", "null", "https://*"]
)
def test_a_wrong_origin_refuses_to_start(text: str) -> None:
    with pytest.raises(SettingsError, match="cors_origins"):
        load_settings({"cors_origins": text}, names=())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": "70000"}, r"port \(PACKLIGHT_PORT, --port\) is '70000'"),
        ({"max_batch_tokens": "many"}, "PACKLIGHT_MAX_BATCH_TOKENS, --max-batch-tokens"),
        ({"decode_threads": "0"}, "--decode-threads"),
        ({"max_image_tokens": "5000", "max_batch_tokens": "4096"}, "max_image_tokens .5000. is over max_batch_tokens"),
        ({"max_image_tokens": "500", "max_queue_tokens": "400"}, "over max_queue_tokens .400."),
        (
            {"max_image_tokens": "500", "max_queue_tokens": "900", "http_workers": "2"},
            r"over max_queue_tokens \(900\) / http_workers \(2\)",
        ),
        (
            {"default_max_tokens": "2000", "max_image_tokens": "1999"},
            "default_max_tokens .2000. is over max_image_tokens .1999.",
        ),
        ({"max_upload_bytes": "10", "max_inflight_bytes": "9"}, "over max_inflight_bytes"),
        ({"dtype": "int4"}, "dtype"),
        ({"nonsense": "1"}, "nonsense"),
        ({"api_keys": " , "}, "api_keys .*at least one"),
        ({"attention": "dense"}, "attention"),
        ({"feature_layer": "last"}, "feature_layer"),
        (
            {"layout": "padded"},
            r"layout \(PACKLIGHT_LAYOUT, --layout\) is 'padded': .*`python -m loadtest.bench layouts`",
        ),
        ({"anyres_tile": "0"}, "anyres_tile"),
        ({"anyres_pinpoints": "336x672;672x336"}, "anyres_pinpoints .*sizes look like 336x672,672x336"),
    ],
)
def test_a_wrong_setting_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(options, names=())


def test_a_key_that_is_refused_is_not_shown() -> None:
    with pytest.raises(SettingsError, match="api_keys .*ASCII") as caught:
        load_settings({"api_keys": "clé"}, names=())
    assert "clé" not in str(caught.value)


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_every_setting_has_a_description_and_an_option() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, list(Settings.model_fields))
    assert all(field.description for field in Settings.model_fields.values())
    assert parser.parse_args(["--max-batch-tokens", "5"]).max_batch_tokens == "5"
    assert all(name == name.lower() for name in Settings.model_fields)
    assert PREFIX == "PACKLIGHT_"
    text = " ".join(parser.format_help().split())
    for said in ("--port VALUE", "(default: 8000)", "--log-format text|json", "--metrics-open true|false"):
        assert said in text


def test_defaults_of_limits_depend_on_the_device() -> None:
    cpu = Limits.of(Settings(), FACTS)
    assert (cpu.max_batch_tokens, cpu.max_queue_tokens, cpu.default_max_tokens) == (4096, 32768, 256)


@pytest.mark.parametrize(("device", "most"), [("cpu", None), ("cuda", 1), ("cuda:1", 1)])
def test_deterministic_packs_hold_one_image_on_a_gpu(device: str, most: int | None) -> None:
    facts = replace(FACTS, device=device)
    assert Limits.of(Settings(deterministic=True), facts).max_batch_items == most
    assert Limits.of(Settings(), facts).max_batch_items is None


def test_a_cap_over_the_default_pack_of_the_device_refuses_to_start() -> None:
    with pytest.raises(SettingsError, match=r"max_image_tokens \(5000\) is over max_batch_tokens \(4096"):
        Limits.of(Settings(max_image_tokens=5000), FACTS)


def fixed(side: int, patch_size: int, *, device: str = "cpu", **changes: Any) -> ModelFacts:
    """The facts of a model of one grid, as CLIP ViT-L/14 at 336 is one."""
    geometry = Geometry.for_fixed(patch_size, FixedInput(side, "squash", side, "bicubic"))
    tokens = (side // patch_size) ** 2
    return replace(FACTS, geometry=replace(geometry, **changes), default_max_tokens=tokens, device=device)


QWEN = replace(FACTS, geometry=Geometry(14, ("native",), native_factor=2, native_max_pixels=14 * 14 * 2000 + 99))


@pytest.mark.parametrize(
    ("facts", "options", "tokens"),
    [
        (FACTS, {}, 1024),
        (FACTS, {"max_batch_tokens": 600}, 600),
        (fixed(336, 14), {}, 5 * 576),
        (fixed(512, 16), {}, 4096),
        (fixed(512, 16, device="cuda:0"), {}, 5 * 1024),
        (fixed(224, 16, pinpoints=((224, 448), (448, 672))), {}, 7 * 196),
        (QWEN, {}, 2000),
        (QWEN, {"max_batch_tokens": 1500}, 1500),
        (QWEN, {"max_image_tokens": 30}, 30),
    ],
)
def test_the_largest_image_is_the_models_own_and_no_more_than_a_pack(
    facts: ModelFacts, options: dict[str, Any], tokens: int
) -> None:
    limits = Limits.of(Settings(**options), facts)
    assert limits.max_image_tokens == tokens
    assert limits.default_max_tokens == min(tokens, facts.default_max_tokens)


@pytest.mark.parametrize(
    ("facts", "options", "message"),
    [
        (FACTS, {"default_max_tokens": 1025}, r"default_max_tokens \(1025\) is over max_image_tokens \(1024"),
        (FACTS, {"max_queue_tokens": 1023}, r"max_image_tokens \(1024\) is over max_queue_tokens \(1023\)"),
        (fixed(336, 14), {"max_image_tokens": 575}, r"max_image_tokens \(575\) is under the 576 tokens that m takes"),
        (fixed(336, 14), {"default_max_tokens": 256}, r"default_max_tokens \(256\) is under the 576 tokens"),
        (fixed(336, 14), {"max_batch_tokens": 575}, r"max_batch_tokens \(575\) is under the 576 tokens"),
        (fixed(1024, 14), {}, r"max_batch_tokens \(4096\) is under the 5329 tokens"),
        (
            replace(FACTS, geometry=replace(FACTS.geometry, pinpoints=((1024, 1024), (1280, 1280)))),
            {"anyres_pinpoints": "1024x1024,1280x1280"},
            r"anyres_pinpoints the smallest layout takes 4352 tokens .* over max_image_tokens \(1024\)",
        ),
        (
            replace(FACTS, geometry=replace(FACTS.geometry, tile_side=512)),
            {"anyres_tile": 512},
            r"anyres_tile .* takes 3072 tokens",
        ),
    ],
)
def test_what_the_model_cannot_do_within_the_limits_refuses_to_start(
    facts: ModelFacts, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Limits.of(Settings(**options), facts)


def test_pinpoints_are_read_from_a_string() -> None:
    assert load_settings({"anyres_pinpoints": "336x672, 672x336"}, names=()).anyres_pinpoints == (
        (336, 672),
        (672, 336),
    )


# For other processes


def test_hosts_of_urls_are_separated_by_commas() -> None:
    entries = "images.test, *.images.test,private http://minio:9000/photos"
    settings = load_settings({"url_allowlist": entries}, names=[])
    assert settings.url_allowlist == ("images.test", "*.images.test", "private http://minio:9000/photos")
    assert Settings(**settings.for_child(with_keys=False)).url_allowlist == settings.url_allowlist


@pytest.mark.parametrize("entry", ["*", "a b", "10.0.0.1", "private 169.254.169.254", "private *.internal"])
def test_a_host_of_urls_that_could_not_be_meant_refuses_to_start(entry: str) -> None:
    with pytest.raises(SettingsError, match="url_allowlist"):
        load_settings({"url_allowlist": f"images.test, {entry}"}, names=[])


def test_another_process_makes_the_same_settings_whatever_its_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("third\n")
    given = {"port": "0", "api_keys": "first,second", "api_keys_file": str(keys), "max_wait_ms": "2.5"}
    given |= {"anyres_pinpoints": "512x256", "feature_layer": "-2"}
    settings = load_settings(given, names=[])
    monkeypatch.setenv("PACKLIGHT_MAX_WAIT_MS", "9")
    monkeypatch.setenv("PACKLIGHT_API_KEYS_FILE", str(tmp_path / "elsewhere"))
    child = Settings(**json.loads(json.dumps(settings.for_child(with_keys=True))))
    assert child.all_api_keys() == ["first", "second", "third"]
    assert child.model_dump(exclude={"api_keys", "api_keys_file"}) == settings.model_dump(
        exclude={"api_keys", "api_keys_file"}
    )
    assert Settings(**settings.for_child(with_keys=False)).all_api_keys() == []


def test_the_password_of_a_cache_is_shown_to_nobody_but_the_process_that_needs_it() -> None:
    settings = load_settings({"cache_url": "valkey://:sesame@store:6379/0"}, names=())
    assert "sesame" not in f"{settings!r} {settings.model_dump(mode='json')} {settings.for_child(with_keys=False)}"
    child = Settings(**json.loads(json.dumps(settings.for_child(with_keys=True))))
    assert child.cache_url == settings.cache_url
    with pytest.raises(SettingsError, match="cache_url .*redis://") as caught:
        load_settings({"cache_url": "http://:sesame@store"}, names=())
    assert "sesame" not in str(caught.value)


def test_several_processes_divide_the_limits() -> None:
    given = {"http_workers": "4", "decode_threads": "6", "max_connections": "100", "cache_bytes": "4004"}
    settings = load_settings(given, names=[])
    part = settings.for_one_worker()
    assert part.cache_bytes == 1001
    assert part.max_inflight_bytes == settings.max_inflight_bytes // 4
    assert (part.decode_threads, part.max_connections) == (1, 25)
    assert part.max_url_fetches == settings.max_url_fetches // 4


@pytest.mark.parametrize(
    ("options", "in_processes"),
    [
        ({"devices": "cpu"}, False),
        ({"devices": "cpu", "engine": "process"}, True),
        ({"devices": "cpu", "http_workers": "2"}, True),
        ({"devices": "cpu, cpu"}, True),
        ({"devices": "cuda:1"}, True),
        ({"devices": "cuda:1", "engine": "thread"}, False),
    ],
)
def test_cuda_or_several_processes_give_the_engine_its_own_process(options: dict[str, str], in_processes: bool) -> None:
    assert load_settings(options, names=[]).in_processes is in_processes
