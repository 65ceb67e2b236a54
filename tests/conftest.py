"""What holds for every test."""

from hypothesis import settings

# A machine that does other things as well is no failure: how long an example takes is nothing that these tests say.
settings.register_profile("packlight", deadline=None)
settings.load_profile("packlight")
