"""A LoRA as the PEFT library saves it, added to its base while the base is read.

    adapter_config.json          r, lora_alpha, …, base_model_name_or_path
    adapter_model.safetensors    base_model.model.{module}.lora_A.weight  [r, in]
                                 base_model.model.{module}.lora_B.weight  [out, r]

A matrix W [out, in] of the base becomes W + scale · B A (Hu et al. 2021), which
`lora_sum.py` computes. scale is lora_alpha / r, with `use_rslora` lora_alpha / √r
(Kalajdzievski 2023). Tensors that were trained as a whole (`modules_to_save`) take the
place of the base's.

Only this sum is implemented. What PEFT would compute in another way, and each tensor
that no part of the base takes, is refused by name.
"""

import functools
import math
import os
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from musilingo_jax.pretrained import peft_config, pytorch_files
from musilingo_jax.pretrained.finite_tensors import FiniteTensor
from musilingo_jax.pretrained.foreign_models import LORA_CONFIG, LORA_WEIGHTS
from musilingo_jax.pretrained.lazy_tensors import (
    LazyTensor,
    Tensors,
    shortened,
)
from musilingo_jax.pretrained.lora_sum import LoraSum
from musilingo_jax.pretrained.safetensors_file import open_file
from musilingo_jax.runtime.errors import UserError
from musilingo_jax.runtime.json_files import is_texts
from musilingo_jax.runtime.printable import one_line, print_note

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_((?:embedding_)?[AB])(?:\.default)?(?:\.weight)?")
_BIAS = re.compile(r"(.+)\.lora_B(?:\.default)?\.bias")
# Keys of `rank_pattern` are regular expressions, of which some take for ever.
_PATTERN = re.compile(r"[\w.^$\\]*([+*][\w.^$\\]*){0,3}")
_LAYER = re.compile(r".*?\.(\d+)\.")
_FLOATING = ("F64", "F32", "F16", "BF16")
_TIED = ("lm_head", "embed_tokens")


class LoraChanges(NamedTuple):
    """What a LoRA changes of a model.

    Attributes:
      sums: the name of a matrix of the model → what it becomes.
      whole: the name of a tensor → the one that takes its place.
      biases: module → the bias that its factors add, times the scale.
    """

    sums: Mapping[str, LoraSum]
    whole: Mapping[str, FiniteTensor]
    biases: Mapping[str, FiniteTensor]


@dataclass(frozen=True)
class Lora:
    """A folder with a LoRA in it.

    Attributes:
      folder: where it is.
      config: the content of its `adapter_config.json`, checked.
    """

    folder: Path
    config: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Lora":
        """Reads the configuration.

        Raises:
          UserError: there is none, or it describes something else than a plain LoRA.
        """
        return cls(folder, peft_config.read(folder))

    @property
    def base(self) -> str:
        """The name of the model that it was trained on; "" if it does not say."""
        name, revision = (
            self.config.get(key) or ""
            for key in ("base_model_name_or_path", "revision")
        )
        if not isinstance(name, str) or not isinstance(revision, str):
            raise UserError(
                f"{self.folder / LORA_CONFIG}: base_model_name_or_path and revision "
                "must be text"
            )
        # Unlike pathlib's, this test accepts names of any length.
        named = revision and not os.path.isdir(name)
        return f"{name}@{revision}" if named else name

    def check_base(self, *, cyclic: bool) -> None:
        """Checks that a base is named, and that it does not lead back to the LoRA.

        Raises:
          UserError: there is none, or it does.
        """
        if cyclic or not self.base:
            raise self._error(
                "the base_model_name_or_path of its "
                f"{LORA_CONFIG} {'leads back to it' if cyclic else 'is missing'}; "
                f"{self.advice}"
            )

    @property
    def advice(self) -> str:
        """What to do if its base cannot be used."""
        return (
            "write the base's folder there, or name the base: `python -m "
            f"musilingo_jax.convert merge --base=… --lora={self.folder} --out=…`"
        )

    def add_to(self, base: Tensors, name: str, *, tied: bool) -> Tensors:
        """The tensors of a model with the LoRA added to them; a note says so, once.

        Args:
          base: the model's tensors.
          name: of the model, for messages.
          tied: whether its head is the transposed embedding.

        Raises:
          UserError: the LoRA lacks a file or a tensor, has one that is not used, or
            does not fit the base.
        """
        sums, whole, biases = self.changes(base, name)
        if biases:
            raise self._error(
                f"has biases of its factors ({shortened(sorted(biases))}), which are "
                "not added to a base; `python -m musilingo_jax.convert adapter "
                f"--lora={self.folder} …` reads them beside it"
            )
        changed = {key.split(".")[-2] for key in (*sums, *whole)}
        if tied and (shared := sorted(changed.intersection(_TIED))):
            raise self._error(
                f"changes {' and '.join(shared)}, but embedding and head of {name} are "
                "one matrix; merge it with the peft library"
            )
        sizes = sorted({(_rank(total), total.scale) for total in sums.values()})
        _tell(self.folder, name, tuple(sizes), len(sums), len(whole))
        return {**base, **whole, **sums}

    def changes(self, base: Tensors, name: str) -> "LoraChanges":
        """What the LoRA changes of a model, checked to be complete.

        Args:
          base: the model's tensors.
          name: of the model, for messages.

        Raises:
          UserError: as in `add_to`.
        """
        factors, whole, biases = self._sorted(base, name)
        if self.config.get("lora_bias") and biases.keys() != factors.keys():
            raise self._error(
                f"{LORA_CONFIG}: lora_bias is {self.config['lora_bias']!r}, but only "
                f"{len(biases)} of {len(factors)} modules have one; get it from its "
                "source again"
            )
        self._check_complete("target_modules", factors, base)
        saved = [key.removesuffix(".weight") for key in whole]
        self._check_complete("modules_to_save", saved, base)
        below = {**base, **whole}
        sums = {
            f"{module}.weight": self._sum(module, below[f"{module}.weight"], pair)
            for module, pair in factors.items()
        }
        if misfits := sorted(key for key, total in sums.items() if total is None):
            raise self._error(f"its factors do not fit {shortened(misfits)} of {name}")
        found = {key: total for key, total in sums.items() if total is not None}
        return LoraChanges(found, whole, biases)

    def _sorted(
        self, base: Tensors, name: str
    ) -> tuple[
        dict[str, dict[str, FiniteTensor]],
        dict[str, FiniteTensor],
        dict[str, FiniteTensor],
    ]:
        """Its tensors: module → "A" and "B" (or "embedding_A" …), the rest, biases."""
        factors, whole, biases = defaultdict(dict), {}, {}
        unused, foreign, has_biases = [], [], bool(self.config.get("lora_bias"))
        for theirs, tensor in self._open().items():
            inner = theirs.removeprefix(_PREFIX)
            key = inner.replace(".base_layer.", ".")
            found = _FACTOR.fullmatch(inner)
            bias = _BIAS.fullmatch(inner) if has_biases else None
            into, place = (factors[found[1]], found[2]) if found else (whole, key)
            if bias:
                into, place = biases, bias[1]
            module = found or bias
            known = (f"{module[1]}.weight" if module else key) in base
            if not known or place in into:
                unused.append(theirs)
            elif tensor.dtype not in _FLOATING:
                foreign.append(f"{theirs} ({tensor.dtype})")
            into[place] = FiniteTensor(tensor, theirs, str(self.folder))
        if unused:
            raise self._error(
                f"has tensors that nothing in {name} takes: {shortened(unused)}; name "
                "the base that it was trained on, or merge it with the peft library"
            )
        if foreign:
            raise self._error(
                f"has tensors of a type that is not added: {shortened(foreign)}; merge "
                "it with the peft library"
            )
        pairs = ({"A", "B"}, {"embedding_A", "embedding_B"})
        if single := [m for m, pair in factors.items() if set(pair) not in pairs]:
            raise self._error(f"has not the two factors of {shortened(single)}")
        misfits = [
            f"{key} {list(tensor.shape)} for {list(base[key].shape)}"
            for key, tensor in whole.items()
            if tuple(tensor.shape) != tuple(base[key].shape)
        ]
        if misfits:
            raise self._error(f"does not fit {name}: {shortened(misfits)}")
        if not factors:
            raise self._error("has no factors lora_A and lora_B")
        return dict(factors), whole, biases

    def _open(self) -> Tensors:
        safe, pickled = (self.folder / name for name in LORA_WEIGHTS)
        if safe.exists():
            return open_file(safe)
        if pickled.exists():
            return pytorch_files.open_tensors(pickled)
        raise self._error(f"has neither {safe.name} nor {pickled.name}")

    def _sum(
        self, module: str, base: LazyTensor, pair: Mapping[str, LazyTensor]
    ) -> LoraSum | None:
        """The sum for one module; None if the shapes do not allow it."""
        embeds = "A" not in pair
        a, b = (pair[name] for name in sorted(pair))
        rank = self._pattern("rank_pattern", module, self.config.get("r"))
        alpha = self._pattern("alpha_pattern", module, self.config.get("lora_alpha"))
        if type(rank) is not int or rank < 1:
            raise self._error(
                f"{LORA_CONFIG}: r is {rank!r}: it must be a positive whole number"
            )
        if len(base.shape) != 2:
            return None
        rows, columns = base.shape[::-1] if embeds else base.shape
        if [tuple(a.shape), tuple(b.shape)] != [(rank, columns), (rows, rank)]:
            return None
        where = f"{self.folder}: {one_line(module)}"
        return LoraSum(base, a, b, self._scale(rank, alpha), embeds, where)

    def _scale(self, rank: int, alpha: Any) -> float:
        slow = self.config.get("use_rslora") or False
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        finite = number and abs(alpha) <= sys.float_info.max  # A whole one may be huge.
        if not isinstance(slow, bool) or not finite:
            raise self._error(
                f"{LORA_CONFIG}: lora_alpha must be a finite number and use_rslora "
                f"true or false, not {alpha!r} and {slow!r}"
            )
        return alpha / (math.sqrt(rank) if slow else rank)

    def _pattern(self, name: str, module: str, usual: Any) -> Any:
        """The value of the first key that matches the end of a module's name."""
        patterns = self.config.get(name) or {}
        if not isinstance(patterns, dict):
            raise self._error(f"{LORA_CONFIG}: {name} is not an object")
        for pattern, value in patterns.items():
            try:
                if not _PATTERN.fullmatch(pattern):
                    raise re.error("it is too complicated")
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return value
            except re.error as error:
                raise self._error(
                    f"{LORA_CONFIG}: {name} has the key {pattern[:80]!r}, which is not "
                    f"supported ({error})"
                ) from error
        return usual

    def _check_complete(
        self, setting: str, found: Collection[str], base: Tensors
    ) -> None:
        """Checks that all modules of the base that were to be trained are here."""
        names = self.config.get(setting)
        # Else it is a pattern of names, or what is usual for the base's architecture.
        if not is_texts(names) or self.config.get("exclude_modules"):
            return
        layers = self.config.get("layers_to_transform")
        layers = [layers] if type(layers) is int else layers
        if not isinstance(layers, list | None):
            raise self._error(
                f"{LORA_CONFIG}: layers_to_transform is {layers!r}: it must be a whole "
                "number, or a list of these"
            )
        ends = tuple(f".{name}.weight" for name in names)
        modules = [key.removesuffix(".weight") for key in base]
        trained = [
            name
            for name in modules
            if f".{name}.weight".endswith(ends)
            and (not layers or setting == "modules_to_save" or _layer(name) in layers)
        ]
        if lacking := [name for name in trained if name not in found]:
            raise self._error(
                f"its {setting} name {shortened(lacking)}, of which it has no tensors; "
                "get it from its source again"
            )

    def _error(self, problem: str) -> UserError:
        return UserError(f"{self.folder}: {one_line(problem)}")


def _layer(module: str) -> int | None:
    """The number of the layer that a module is in; None if it is in none."""
    found = _LAYER.match(module)
    return int(found[1]) if found else None


def _rank(total: LoraSum) -> int:
    return total.a.shape[0]


@functools.lru_cache(maxsize=64)  # The tensors of a part are listed several times.
def _tell(
    folder: Path,
    base: str,
    sizes: tuple[tuple[int, float], ...],
    added: int,
    whole: int,
) -> None:
    """Says on stderr what was added to what."""
    if jax.process_index() != 0:
        return
    described = "; ".join(f"rank {rank}, scale {scale:g}" for rank, scale in sizes)
    replaced = f", and replaces {whole} tensors" if whole else ""
    beside = (
        "; if it had been merged into these weights before, which no file says, it is "
        "now added twice: move it away"
    )
    print_note(
        f"note: {base} is read with the LoRA in {folder} ({described}) added to "
        f"{added} matrices{replaced}{beside if base == str(folder) else ''}"
    )
