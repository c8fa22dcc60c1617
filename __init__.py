"""MusicGen Pansori: Meta's MusicGen as native ComfyUI nodes."""

# pytest and linters may execute this file as a bare module, where relative imports cannot work.
if __package__:
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    WEB_DIRECTORY = "./web"

    __all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]
