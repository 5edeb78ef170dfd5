"""Forms of models that are not read here, so that a refusal can name them and say what to do."""

from pathlib import Path

_PACKED = ("packed", "Unpack it first")
_PICKLED = ("pickled by torch", "Save its tensors as .safetensors")
_FOREIGN = ("weights of another framework", "Save the model with save_pretrained, as safetensors")
_FORMS = {
    ".gguf": ("GGUF", "Give the folder of save_pretrained that it was made from"),
    ".model": ("a SentencePiece vocabulary", "Give the model's folder, with the tokenizer.json of save_pretrained"),
    ".pt": _PICKLED,
    ".pth": _PICKLED,
    ".ckpt": _PICKLED,
    ".pkl": _PICKLED,
    ".h5": _FOREIGN,
    ".msgpack": _FOREIGN,
    ".onnx": _FOREIGN,
    ".tflite": _FOREIGN,
    ".npz": _PACKED,
    ".gz": _PACKED,
    ".zip": _PACKED,
}


def other_form(path: Path) -> tuple[str, str] | None:
    """What a file is and what to do, told by its ending; None for any other.

    Example:
        >>> other_form(Path("llama-q4.gguf"))[0]
        'GGUF'
    """
    return _FORMS.get(path.suffix.lower())


def other_forms_in(folder: Path) -> tuple[str, str] | None:
    """The same of the first such file in a folder, with its name."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        form = other_form(path)
        if form is not None and path.suffix != ".model":
            return f"{path.name}, {form[0]}", form[1]
    if (folder / "adapter_config.json").is_file():
        return "an adapter alone", "Merge it into its model: merge_and_unload().save_pretrained(…)"
    return None
