"""What the SDK scripts share: the answer that the scripted upstream gives, and how a failure is awaited."""

import sys

TEXT = 'Grüße 🌍 a\u2028b "quoted" \\ back data: [DONE]'
BASE_URL, KEY = sys.argv[1], sys.argv[2]


def equal(actual, expected):
    assert actual == expected, f"{actual!r} is not {expected!r}"


def raises(kind, call, status=None):
    """Runs a call that must fail with exactly this class, and gives the exception back."""
    try:
        outcome = call()
    except Exception as error:
        assert type(error) is kind, f"{type(error).__name__} is not {kind.__name__}: {error}"
        if status is not None:
            equal(getattr(error, "status_code", None) or getattr(error, "code", None), status)
        return error
    raise AssertionError(f"no {kind.__name__}, but {outcome!r}")
