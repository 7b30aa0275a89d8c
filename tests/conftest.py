"""For every tier: hypothesis looks for wrong answers, not for slow ones, which a busy machine makes of right ones."""

from hypothesis import settings

settings.register_profile("perfbench", deadline=None)
settings.load_profile("perfbench")
