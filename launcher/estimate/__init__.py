"""Does it fit, how long will it take, what will it cost: each figure with its source."""

from launcher.estimate.cost import expected_usd
from launcher.estimate.estimator import Estimator, Weighed
from launcher.estimate.judgement import Estimate

__all__ = ["Estimate", "Estimator", "Weighed", "expected_usd"]
