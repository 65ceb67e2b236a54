"""Reading preprocessor_config.json, as Transformers writes it and as in old files."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from model.checkpoint.load import load_checkpoint
from model.encoders.clip.vision import ClipConfig
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.parts.tower import EncoderConfig, FixedConfig
from model.encoders.qwen.qwen2_vl import Qwen2Config
from model.encoders.siglip.fixed import SiglipConfig
from model.encoders.siglip.naflex import NaFlexConfig
from model.errors import CheckpointError
from model.sizing.geometry import FixedInput, Geometry
from tests.reference import SMALL, save_fixed

_SHAPE = {"width": 96, "depth": 1, "heads": 2, "mlp_width": 100, "eps": 1e-6}


def clip(image_side: int = 336, patch_size: int = 14) -> ClipConfig:
    shape: dict[str, Any] = _SHAPE | {"image_side": image_side, "patch_size": patch_size}
    return ClipConfig(**shape, hidden_act="quick_gelu", projection_width=None)


def siglip(image_side: int = 224, patch_size: int = 16) -> SiglipConfig:
    shape: dict[str, Any] = _SHAPE | {"image_side": image_side, "patch_size": patch_size}
    return SiglipConfig(**shape)


def naflex() -> NaFlexConfig:
    shape: dict[str, Any] = _SHAPE
    return NaFlexConfig(**shape)


def qwen() -> Qwen2Config:
    shape: dict[str, Any] = _SHAPE | {"patch_size": 14, "out_width": 64, "merge": 2, "frames": 2}
    return Qwen2Config(**shape, hidden_act="quick_gelu")


def read(config: EncoderConfig, **content: Any) -> Preprocessing:
    return config.preprocessing(Fields(Path("preprocessor_config.json"), content))


def fixed(config: FixedConfig, **content: Any) -> FixedInput | None:
    return read(config, **content).geometry.fixed


def test_a_processor_of_clip_is_read_as_transformers_writes_it(tmp_path: Path) -> None:
    size = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    CLIPImageProcessorPil(**size).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    preprocessing = read(clip(), **content)
    assert preprocessing.mean == tuple(OPENAI_CLIP_MEAN)
    assert preprocessing.std == tuple(OPENAI_CLIP_STD)
    assert preprocessing.default_max_tokens == 576
    assert preprocessing.geometry == Geometry.for_fixed(14, FixedInput(336, "shortest_edge", 336, "bicubic"))


def test_a_processor_of_siglip_is_read_as_transformers_writes_it(tmp_path: Path) -> None:
    SiglipImageProcessorPil(size={"height": 512, "width": 512}, resample=2).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    preprocessing = read(siglip(512), **content)
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    assert preprocessing.default_max_tokens == 1024
    assert preprocessing.geometry == Geometry.for_fixed(16, FixedInput(512, "squash", 512, "bilinear"))


@pytest.mark.parametrize("config", [clip(), siglip()])
def test_without_a_file_pictures_are_prepared_as_the_family_does(config: FixedConfig) -> None:
    side = config.image_side
    squashed = FixedInput(side, "squash", side, "bicubic")
    cropped = FixedInput(side, "shortest_edge", side, "bicubic")
    assert fixed(config) == (cropped if isinstance(config, ClipConfig) else squashed)


def test_numbers_alone_are_a_shortest_edge_and_a_square_as_in_old_files_of_clip() -> None:
    assert fixed(clip(), size=336, crop_size=336) == FixedInput(336, "shortest_edge", 336, "bicubic")


def test_a_crop_may_be_smaller_than_what_is_resized_to() -> None:
    assert fixed(clip(), size={"shortest_edge": 384}) == FixedInput(336, "shortest_edge", 384, "bicubic")
    cropped = fixed(siglip(), size={"height": 256, "width": 256}, crop_size=224, do_center_crop=True)
    assert cropped == FixedInput(224, "squash", 256, "bicubic")


def test_what_is_over_a_whole_number_of_patches_is_part_of_the_picture_and_of_no_patch() -> None:
    preprocessing = read(siglip(384, 14))
    assert preprocessing.geometry.fixed == FixedInput(384, "squash", 384, "bicubic")
    assert preprocessing.default_max_tokens == 27 * 27


def test_null_is_the_same_as_left_out() -> None:
    content = dict.fromkeys(("do_center_crop", "crop_size", "size", "resample", "image_mean", "do_pad"))
    assert read(siglip(), **content) == read(siglip())


def test_a_switch_that_is_null_is_off_as_in_transformers() -> None:
    processor = CLIPImageProcessorPil(do_center_crop=None, do_rescale=None, size={"height": 336, "width": 336})
    assert (processor.do_center_crop, processor.do_rescale) == (None, None)
    squashed = fixed(clip(), do_center_crop=None, size={"height": 336, "width": 336})
    assert squashed == FixedInput(336, "squash", 336, "bicubic")
    for config in (clip(), naflex(), qwen()):
        with pytest.raises(CheckpointError, match="do_rescale is False; only True"):
            read(config, do_rescale=None)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (clip(), ["CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPFeatureExtractor", "BitImageProcessor"]),
        (siglip(), ["SiglipImageProcessor", "SiglipImageProcessorFast", "SiglipImageProcessorPil"]),
        (naflex(), ["Siglip2ImageProcessor", "Siglip2ImageProcessorFast"]),
        (qwen(), ["Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2_5_VLImageProcessor"]),
    ],
)
def test_every_name_of_a_class_that_prepares_pictures_alike_is_read(config: EncoderConfig, names: list[str]) -> None:
    for name in names:
        for key in ("image_processor_type", "feature_extractor_type"):
            assert read(config, **{key: name}) == read(config)


def test_a_processor_of_vit_is_read_by_what_it_says_and_by_no_other_class_defaults(tmp_path: Path) -> None:
    ViTImageProcessorPil(size={"height": 336, "width": 336}).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    preprocessing = read(clip(), **content)
    assert preprocessing.mean == (0.5, 0.5, 0.5)
    assert preprocessing.geometry.fixed == FixedInput(336, "squash", 336, "bilinear")
    assert fixed(clip(), **content | {"size": 336}) == FixedInput(336, "squash", 336, "bilinear")
    del content["image_std"]
    with pytest.raises(CheckpointError, match="image_std is None"):
        read(clip(), **content)


@pytest.mark.parametrize(
    ("config", "name"),
    [(siglip(), "CLIP"), (clip(), "Siglip")],
)
def test_a_class_of_another_family_is_read_by_what_its_file_says(
    tmp_path: Path, config: FixedConfig, name: str
) -> None:
    """SigLIP's processor has other means than CLIP's, so those that a file leaves out are not the family's."""
    classes = {"CLIP": CLIPImageProcessorPil, "Siglip": SiglipImageProcessorPil}
    size = {"height": config.image_side, "width": config.image_side}
    classes[name](size=size, do_center_crop=False).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert read(config, **content).mean == tuple(classes[name].image_mean)
    del content["image_mean"]
    with pytest.raises(CheckpointError, match="image_mean is None"):
        read(config, **content)


@pytest.mark.parametrize(
    ("config", "content"),
    [
        (siglip(), {"size": {"height": 256, "width": 256}}),
        (siglip(), {"size": {"height": 224, "width": 256}}),
        (siglip(), {"size": {"shortest_edge": 224, "longest_edge": 300}}),
        (siglip(), {"size": "224"}),
        (clip(), {"do_center_crop": False}),
        (clip(), {"crop_size": {"height": 300, "width": 300}}),
        (clip(), {"crop_size": {"height": 336, "width": 300}}),
        (clip(), {"crop_size": 0}),
        (clip(), {"resample": 6}),
        (clip(), {"do_resize": False}),
        (clip(), {"do_pad": True}),
        (clip(), {"use_square_size": True}),
        (clip(), {"image_processor_type": "ConvNextImageProcessor"}),
        (clip(), {"image_processor_type": "Siglip2ImageProcessorFast"}),
        (clip(), {"image_processor_type": ["CLIPImageProcessor"]}),
        (siglip(), {"feature_extractor_type": "DeiTFeatureExtractor"}),
        (qwen(), {"image_processor_type": "CLIPImageProcessor"}),
        (naflex(), {"image_processor_type": "SiglipImageProcessor"}),
        (clip(), {"rescale_factor": 1}),
        (clip(), {"image_mean": [0.5]}),
        (clip(), {"image_std": [0.5, 0.0, 0.5]}),
    ],
)
def test_what_cannot_be_done_is_refused_by_key(config: EncoderConfig, content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {next(iter(content))} is"):
        read(config, **content)


def test_a_resize_to_less_than_the_crop_is_refused() -> None:
    with pytest.raises(CheckpointError, match="crop_size is .*larger than what pictures are resized to, 300 pixels"):
        read(clip(), size={"shortest_edge": 300})


def test_the_processor_inside_a_processor_config_goes_first_as_in_transformers(tmp_path: Path) -> None:
    save_fixed(tmp_path, "siglip_vision_model", SMALL | {"image_size": 64})
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"resample": 2}))
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "SiglipProcessor"}))
    assert load_checkpoint(str(tmp_path)).preprocessing.geometry.resample == "bilinear"
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"resample": 1}}))
    assert load_checkpoint(str(tmp_path)).preprocessing.geometry.resample == "lanczos"
