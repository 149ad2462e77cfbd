"""What a run gave, in comparable form."""


def outcome(result):
    """Everything that two runs must agree on."""
    return result.figures, result.curve, result.used, result.events, result.sha256
