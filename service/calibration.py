"""The file of `packlight calibrate`: the int8 scale of one model, found on pictures, and what it was found on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.fingerprint import identity_of, today
from service.errors import validation_words
from service.int8_scale import Int8Scale
from service.settings.names import SettingsError, named

_MOST_BYTES = 64 * 1024


class Calibration(BaseModel):
    """fingerprint: of the vectors. clip: as in `Int8Scale`. pictures: how many it was found on."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    packlight: Literal["int8 calibration"] = "int8 calibration"
    model: str
    fingerprint: str
    dimensions: int = Field(ge=1)
    pictures: int = Field(ge=1)
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    def scale_for(self, fingerprint: str, old_forms: Mapping[str, str]) -> Int8Scale:
        """Raises `SettingsError` for vectors of another identity, whose numbers may be of other sizes. Rounding to
        another dtype leaves the sizes as they are. old_forms: as in `model.fingerprint`."""
        if identity_of(today(self.fingerprint, old_forms)) != identity_of(fingerprint):
            raise SettingsError(
                f"{named('int8_calibration')} is for vectors of {self.model} with fingerprint {self.fingerprint}, and "
                f"those served have {fingerprint}: run `packlight calibrate` with the settings of this server"
            )
        return Int8Scale(self.clip, calibrated=True)


def read_calibration(path: Path) -> Calibration:
    """Raises `SettingsError`, which names the file."""
    what = f"{named('int8_calibration')} is '{path}'"
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
    except OSError as error:
        raise SettingsError(f"{what}: {error.strerror or 'it cannot be read'}") from None
    try:
        return Calibration.model_validate_json(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, details["loc"]))
        words = f"{field}: {validation_words(details)}" if field else validation_words(details)
        raise SettingsError(f"{what}, which is no file of `packlight calibrate`: {words}") from None


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Raises `OSError`."""
    path.write_text(calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")
