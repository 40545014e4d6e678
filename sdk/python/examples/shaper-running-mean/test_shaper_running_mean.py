import math

from shaper_running_mean import RunningMean

from plumb_sdk import testing
from plumb_sdk.testing import BatchBuilder


def test_mean_of_the_batches_before_is_subtracted_and_handed_over():
    first = testing.configure(RunningMean, {"momentum": 0.5})
    assert first.shape(BatchBuilder().f64s("value", [2, 4]).build()) == [2.0, 4.0]
    second = testing.configure(RunningMean, {"momentum": 0.5})
    second.load(1, first.save())
    shaped = second.shape(BatchBuilder().f64s("value", [5, math.nan]).build())
    assert shaped[0] == 2.0 and math.isnan(shaped[1])
    assert second.mean == 4.0
