"""A batch of clips becomes features: `features.encode_batch`, at full size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from musilingo_jax.audio import chunks, features
from musilingo_jax.models import mert as merts
from musilingo_jax.models.mert import Mert
from musilingo_jax.models.mert_config import MertConfig
from musilingo_jax.plan.job import Lowered, held
from musilingo_jax.plan.program_costs import ProgramCosts
from musilingo_jax.plan.tpu_slices import Topology
from musilingo_jax.pretrained.tensor_map import abstract
from musilingo_jax.runtime.sharding import batch_sharding, row_shares


@dataclass(frozen=True)
class EncodeJob:
    """A batch to encode; a `Job`.

    Attributes:
      encoder: its configuration.
      source: where that comes from, for people.
      batch: clips.
      samples: of each clip.
      window_frames: frames of the encoder that are averaged into one vector.
      reduction: what is kept, as in `features.REDUCTIONS`.
      dtype: of the weights.
      mesh: sizes of the axes, none of them −1.
      topology: the slice.
    """

    encoder: MertConfig
    source: str
    batch: int
    samples: int
    window_frames: int
    reduction: str
    dtype: str
    mesh: Mapping[str, int]
    topology: Topology

    program = "encode"
    run = "batch"
    is_loop = False

    @property
    def weights(self) -> str:
        """The type of the weights."""
        return self.dtype

    @property
    def rows(self) -> int:
        """Clips of a batch, with those that make it divisible over the devices."""
        devices = row_shares(self.mesh)
        return chunks.count_rows(self.batch, batch_size=self.batch, devices=devices)

    @property
    def seconds(self) -> float:
        """Of a clip."""
        return self.samples / self.encoder.sample_rate

    @property
    def size(self) -> str:
        """E.g. "64 clips of 10 s"."""
        return f"{self.rows} clips of {self.seconds:.4g} s"

    @property
    def model_flops(self) -> float:
        """Products of convolutions, projections and attention; not constant-Q bins."""
        encoder, length, channels, total = self.encoder, self.samples, 1, 0.0
        width, inner = encoder.hidden_size, encoder.intermediate_size
        for out, kernel, stride in zip(
            encoder.conv_dim, encoder.conv_kernel, encoder.conv_stride, strict=True
        ):
            length = (length - kernel) // stride + 1
            total += 2 * length * kernel * channels * out
            channels = out
        if encoder.feature_extractor_cqt:
            channels += encoder.feature_extractor_cqt_bins
        groups = encoder.num_conv_pos_embedding_groups
        each = channels * width
        each += encoder.num_conv_pos_embeddings * width * (width // groups)
        each += encoder.num_hidden_layers * (4 * width**2 + 2 * width * inner)
        pairs = encoder.num_hidden_layers * 4 * width * length**2
        return self.rows * (total + 2 * each * length + pairs)

    def lower(self, mesh: Mesh) -> Lowered:
        """The batch; see `Job.lower`."""
        module = jax.eval_shape(lambda: Mert(self.encoder, rngs=nnx.Rngs(0)))
        mert = abstract(module, merts.NAMES, dtype=self.dtype, mesh=mesh)
        place = batch_sharding(mesh)
        waveform = jax.ShapeDtypeStruct(
            (self.rows, self.samples), jnp.float32, sharding=place
        )
        lengths = jax.ShapeDtypeStruct((self.rows,), jnp.int32, sharding=place)
        program = features.encode_batch.lower(
            mert,
            waveform,
            lengths,
            window_frames=self.window_frames,
            reduction=self.reduction,
        )
        return Lowered(
            program, {"weights": held(mert), "batch": held((waveform, lengths))}
        )

    def heading(self) -> list[str]:
        """The model, and the clips of a batch."""
        encoder = self.encoder
        return [
            f"  encoder           {encoder.num_hidden_layers} layers × "
            f"{encoder.hidden_size}, {self.dtype} ({self.source})",
            f"  batch             {self.size}: {encoder.frames(self.samples):,} frames "
            f"each, {self.reduction}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """The clips."""
        return {
            "batch": self.rows,
            "seconds": self.seconds,
            "reduction": self.reduction,
            "dtype": self.dtype,
            "quantization": "",
        }

    def figures(
        self, costs: ProgramCosts, memory: Mapping[str, float], seconds: float
    ) -> dict[str, float]:
        """Seconds of music that are encoded in one second."""
        return {"times_real_time": self.rows * self.seconds / seconds}

    def summary(self, figures: Mapping[str, float]) -> str:
        """How much faster than the music plays."""
        return f"{figures['times_real_time']:,.0f} × real time"
