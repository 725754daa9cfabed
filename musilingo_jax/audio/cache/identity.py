"""What features depend on besides the sound, as each cache stores it.

    {"encoder": "7de7…", "sample_rate": 24000, "window_frames": 108, …, "format": 3}

Plans and notes hold this, so that features of one kind are never taken for those of
another. It is made by `settings.identity_of`: a field that `Identity` gets later, with
`before=…`, is left out while it has that value, so that older caches stay valid.
"""

from dataclasses import dataclass

from etils import epath
from ml_collections import ConfigDict

from musilingo_jax.audio.features import FeatureConfig
from musilingo_jax.jobs import identity
from musilingo_jax.jobs.identity import StoredIdentity
from musilingo_jax.pretrained import model_config, sources, weights
from musilingo_jax.runtime import settings
from musilingo_jax.runtime.settings import setting

FORMAT = 3


@dataclass(frozen=True)
class _EncoderSection:
    """The part of the section `model` that a cache needs besides the encoder."""

    dtype: str = settings.setting(choices=model_config.DTYPES)


@dataclass(frozen=True)
class Identity:
    """Two caches with equal identities have the same features of the same sound.

    Attributes:
      encoder: digest of the encoder, its preprocessing included.
      sample_rate: samples per second of the waveforms that it was given.
      window_frames, chunk_windows, reduction: as in `FeatureConfig`.
      dtype: of the encoder's weights while it ran.
      format: of the cache folder.
      level: as in `FeatureConfig`.
    """

    encoder: str
    sample_rate: int
    window_frames: int
    chunk_windows: int
    reduction: str
    dtype: str
    format: int
    level: float = setting(before=0.0)

    @classmethod
    def of(cls, config: ConfigDict) -> "Identity":
        """What the features of an experiment depend on.

        Raises:
          UserError: the encoder is not found, or the section `features` is wrong.
        """
        source = model_config.named(config, "encoder")
        encoder = sources.find(source, "encoder")
        features = FeatureConfig.from_config(config)
        settings.check_keys(_EncoderSection, config.model, ("dtype",), "config.model")
        return cls(
            encoder=weights.digest(source, "encoder"),
            sample_rate=weights.blueprint(encoder).module.config.sample_rate,
            window_frames=features.window_frames,
            chunk_windows=features.chunk_windows,
            reduction=features.reduction,
            dtype=config.model.dtype,
            format=FORMAT,
            level=features.level,
        )

    def stored(self) -> StoredIdentity:
        """The form in which files hold it and in which it is compared."""
        return settings.identity_of(self)


def check_equal(
    folder: epath.Path, stored: StoredIdentity, expected: StoredIdentity
) -> None:
    """Checks that a file of a cache has the expected identity.

    Raises:
      UserError: as in `jobs.identity.check_equal`.
    """
    flag = "--config.features.cache"
    identity.check_equal(folder, stored, expected, made="these features", flag=flag)
