"""Arguments of transformers that ask for what is so here anyway."""

from __future__ import annotations

from typing import Any

Accepted = dict[str, tuple[Any, ...]]  # name -> the values that change nothing here; (): none does

WHEN_LOADING: Accepted = {
    "trust_remote_code": (False, None), "use_safetensors": (True, None), "weights_only": (True, None),
    "low_cpu_mem_usage": (), "resume_download": (), "force_download": (False, None), "proxies": (None,),
    "device_map": (None,), "max_memory": (None,), "offload_folder": (None,), "quantization_config": (None,),
    "load_in_8bit": (False, None), "load_in_4bit": (False, None), "from_tf": (False, None), "from_flax": (False, None),
    "output_loading_info": (False, None), "state_dict": (None,), "subfolder": ("", None), "variant": (None,),
    "use_cache": (), "tp_plan": (None,), "use_kernels": (False, None),
}  # fmt: skip
WHEN_SAVING: Accepted = {
    "safe_serialization": (True, None), "is_main_process": (True, None), "save_function": (),
    "push_to_hub": (False, None), "token": (None,), "variant": (None,),
}  # fmt: skip
HINTS = {"device_map": "Use device='cuda' (or 'cpu')."}


def drop_meaningless(where: str, settings: dict[str, Any], accepted: Accepted = WHEN_LOADING) -> None:
    """Take such arguments out of `settings`. Raises TypeError for a value that would mean something."""
    for name in [name for name in settings if name in accepted]:
        allowed = accepted[name]
        if allowed and settings[name] not in allowed:
            hint = HINTS.get(name, f"Only {allowed[0]!r} is accepted.")
            raise TypeError(f"{where}: {name} = {settings[name]!r} is not supported here. {hint}")
        del settings[name]
