"""All hidden states of an encoder, which no program of the package needs at once."""


def hidden_states(mert, waveform, lengths):
    """[depth + 1, batch, time, width], the last state after the final norm."""
    return mert.each(waveform, lengths, reduce=lambda x, valid: x)
