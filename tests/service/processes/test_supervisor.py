"""What the parent of several processes refuses before it starts any."""

import pytest

from service.processes.supervisor import supervise
from service.settings.names import SettingsError
from service.settings.settings import Settings


@pytest.mark.parametrize("platform", ["darwin", "freebsd14"])
def test_a_system_without_abstract_sockets_is_refused_with_what_to_set(platform: str) -> None:
    with pytest.raises(
        SettingsError, match=r"needs the abstract sockets of Linux: set engine \(.*--engine\) to thread"
    ):
        supervise(Settings(engine="process", port=0), platform=platform)
