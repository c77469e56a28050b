"""What a batch cannot be."""


class TooLongError(Exception):
    """A batch has more positions than its model."""


def check_positions(prompt_tokens: int, output_tokens: int, positions: int | None) -> None:
    """Raise TooLongError where a batch's longest prompt with its longest output needs more `positions` than there are.

    None: there is no end to them.
    """
    needed = prompt_tokens + output_tokens - 1
    if positions is not None and needed > positions:
        raise TooLongError(
            f"a batch with a prompt of {prompt_tokens} tokens and an output of {output_tokens} needs {needed} "
            f"positions, and the model has {positions}: all requests run as long as the longest; smaller "
            "batches or shorter requests fit"
        )
