"""`/v1/embeddings`, for songs."""

import base64
import time

import numpy as np

from musilingo_jax.serve import sounds
from musilingo_jax.serve.conversations import Placed
from musilingo_jax.serve.protocol import EmbeddingsRequest
from musilingo_jax.serve.replies import Embedding, Embeddings
from musilingo_jax.serve.state import State


async def embed(state: State, request: EmbeddingsRequest) -> Embeddings:
    """One vector for each song.

    Raises:
      Refusal: a song cannot be heard, or all take too long.
    """
    state.check_model(request.model)
    data: list[Embedding] = []
    async with state.deadlines.limit(time.monotonic()):
        for index, part in enumerate(request.songs):
            placed = Placed(part, f"input[{index}]")
            vector = await state.in_thread(lambda one=placed: _vector(state, one))
            shown = (
                base64.b64encode(vector.tobytes()).decode()
                if request.encoding_format == "base64"
                else vector.tolist()
            )
            data.append({"object": "embedding", "index": index, "embedding": shown})
    return {
        "object": "list",
        "model": request.model,
        "data": data,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


def _vector(state: State, placed: Placed) -> np.ndarray:
    sound = sounds.content(
        placed, allowed_hosts=state.allowed_hosts, limits=state.limits
    )
    with sounds.as_file(sound, placed, state.limits) as path:
        return np.asarray(state.engine.embed(path), "<f4")
