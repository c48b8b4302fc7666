"""A busy machine may stop for longer than any example of hypothesis takes."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
