"""The worker processes that joblib keeps between studies, which know what their first one did."""

from joblib.externals.loky import get_reusable_executor


def stop_workers() -> None:
    """End them, so that the next study's are as the test has set the environment."""
    get_reusable_executor(max_workers=1).shutdown(wait=True, kill_workers=True)
