"""Settings of an adapter: what PEFT's `adapter_config.json` says that changes the numbers. Source: PEFT `LoraConfig`."""

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import CheckpointError
from ..settings import Settings

logger = logging.getLogger(__name__)

MAX_RANK = 2**16
_MAX_ALPHA = 1e6
_MAX_PATTERNS = 50_000  # one a module is 500
_MAX_PATTERN_LENGTH = 200
_MAX_REPEATS = 2  # of anything, in one pattern: more could take for ever
_TESTED = 2_000_000  # patterns times modules

# `init_lora_weights` that leave the base's weights as they are. All others move part of them into A and B.
_BASE_KEPT = (True, False, None, "gaussian", "orthogonal", "eva")
_IRRELEVANT = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "init_lora_weights"),
    *("bias", "lora_bias", "modules_to_save", "fan_in_fan_out", "target_modules", "exclude_modules", "lora_dropout"),
    *("inference_mode", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "layers_to_transform"),
    *(
        "layers_pattern",
        "peft_version",
        "megatron_core",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
    ),
    *("qalora_group_size", "runtime_config", "ensure_weight_tying"),
}
_REFUSED = (
    *("layer_replication", "target_parameters", "trainable_token_indices", "use_qalora", "use_bdlora"),
    *(
        "alora_invocation_tokens",
        "arrow_config",
        "megatron_config",
        "kasa_config",
        "monteclora_config",
        "velora_config",
    ),
)


@dataclass(frozen=True)
class AdapterSettings:
    """How strong the change of each module is, and what the file says about its base."""

    alpha: float | None = None  # None: as strong as the file's own `.alpha`, or as the rank
    root: bool = False  # rank-stabilised: alpha / sqrt(r)
    dora: bool = False
    alphas: tuple[tuple[re.Pattern, float], ...] = ()  # for modules whose path matches, the first that does
    base: str = ""  # name of the base, as far as the file tells

    def scale(self, path: str, rank: int, own_alpha: float | None = None) -> float:
        """The factor of B A. path: of the module, as the trainer saw it. own_alpha: stored beside this very module."""
        alpha = next((alpha for pattern, alpha in self.alphas if pattern.fullmatch(path)), self.alpha)
        alpha = own_alpha if own_alpha is not None else rank if alpha is None else alpha
        return alpha / (math.sqrt(rank) if self.root else rank)

    def check_effort(self, n_modules: int, source: str) -> None:
        """CheckpointError where matching all patterns would take too long."""
        if len(self.alphas) * n_modules > _TESTED:
            raise CheckpointError(
                f"{source}: 'alpha_pattern' has {len(self.alphas)} entries for {n_modules} modules, too many"
            )


def read_settings(settings: Settings) -> AdapterSettings:
    """CheckpointError for a kind of adapter that cannot be added to a base, with the reason."""
    kind = settings.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(
            f"{settings.source}: adapters of the kind {str(kind)[:40]!r} are not read, only LORA is. Merge it into its base with "
            "PEFT (merge_and_unload, save_pretrained), and give that folder."
        )
    initial = settings.get("init_lora_weights", True)
    if not any(initial is kept or (isinstance(initial, str) and initial == kept) for kept in _BASE_KEPT):
        raise CheckpointError(
            f"{settings.source}: the adapter was begun with 'init_lora_weights' {str(initial)[:40]!r}, which takes parts of the "
            "base's weights away. Added to the base as it is, the adapter would be wrong. Save it with PEFT's "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it."
        )
    settings.expect("fan_in_fan_out", False, default=False)
    for key in _REFUSED:
        if settings.get(key, None) not in (None, False, [], {}):
            raise CheckpointError(
                f"{settings.source}: the setting '{key}' makes a kind of adapter that is not supported. Merge it into its base "
                "with PEFT (merge_and_unload, save_pretrained), and give that folder."
            )
    for key, value in settings.table.items():
        if key not in _IRRELEVANT and key not in _REFUSED and value not in (None, False, [], {}, ""):
            logger.warning("%s: the setting '%s' is not known; it is ignored", settings.source, str(key)[:100])
    settings.integer("r", 8, most=MAX_RANK)
    base = settings.get("base_model_name_or_path", None)
    return AdapterSettings(
        alpha=settings.number("lora_alpha", 8.0, most=_MAX_ALPHA),
        root=bool(settings.expect("use_rslora", True, False, default=False)),
        dora=bool(settings.expect("use_dora", True, False, default=False)),
        alphas=_patterns(settings),
        base=base[:200] if isinstance(base, str) else "",
    )


def _patterns(settings: Settings) -> tuple[tuple[re.Pattern, float], ...]:
    """`alpha_pattern`: a regex of the end of a module's path, from a dot on. Source: PEFT `get_pattern_key`."""
    value = settings.get("alpha_pattern", {})
    table: Mapping = {} if value is None else value if isinstance(value, dict) else {"": value}
    if not isinstance(value, (dict, type(None))) or len(table) > _MAX_PATTERNS:
        raise settings.wrong("alpha_pattern", value, f"a table of at most {_MAX_PATTERNS} numbers")
    patterns = []
    for key, alpha in table.items():
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= _MAX_ALPHA:
            raise settings.wrong("alpha_pattern", alpha, f"numbers from 0 to {_MAX_ALPHA:g} in it")
        patterns.append((_compiled(key, settings), float(alpha)))
    return tuple(patterns)


def _compiled(key: str, settings: Settings) -> re.Pattern:
    plain = re.sub(r"\\.|\[[^\]]*\]", "", key)  # without what stands for itself
    nested = re.search(r"\)[*+?{]", plain)
    if len(key) > _MAX_PATTERN_LENGTH or nested or len(re.findall(r"[*+{]", plain)) > _MAX_REPEATS or r"\1" in key:
        raise settings.wrong("alpha_pattern", key, "the name of a module or a simple pattern")
    try:
        return re.compile(rf"(.*\.)?({key})")
    except (re.error, OverflowError, RecursionError) as error:
        raise settings.wrong("alpha_pattern", key, "a pattern that can be read") from error
