"""A folder of pictures, and the captions that explain them."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from media import write_atomically, write_image


@dataclass
class CaptionedFolder:
    """Pictures in a folder, and their captions in its captions.md.

    Args:
        folder: an existing one.
        captions: by file name, in the order in which they were added.
    """

    folder: Path
    captions: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, picture: Tensor, caption: str) -> Path:
        """Write a picture (1, 3, H, W)."""
        write_image(self.folder / name, picture)
        return self.add_file(name, caption)

    def add_file(self, name: str, caption: str) -> Path:
        """Add a picture that is already in the folder."""
        self.captions[name] = caption
        blocks = [
            f"![{name}]({name})\n\n`{name}`: {text}\n" for name, text in self.captions.items()
        ]
        text = "\n".join(["# Inside the optimisation\n", *blocks])
        write_atomically(self.folder / "captions.md", text.encode())
        return self.folder / name
