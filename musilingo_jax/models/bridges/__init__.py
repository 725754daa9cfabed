"""Bridges: from cached features to what a language model hears (`models/heard.py`)."""

from musilingo_jax.models.bridges.frames import Frames
from musilingo_jax.models.bridges.gated_values import GatedValues
from musilingo_jax.models.bridges.linear import LinearBridge

Bridge = LinearBridge | GatedValues | Frames
"""(features, language model) → `Heard`."""
