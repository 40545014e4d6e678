"""Reward functions as TRL and verl take them, for the tests of `plumb plugin wrap`."""


def exact(prompts, completions, answer, **kwargs):
    """TRL: None without a reference, an exception for a completion that is no number."""
    return [float(int(text) == int(reference)) if reference else None for text, reference in zip(completions, answer)]


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    """verl: a dict with a further number."""
    return {"score": float(solution_str == ground_truth), "length": len(solution_str)}
