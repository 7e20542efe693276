"""What the optimisation minimises, as a function of the image alone."""

from collections.abc import Callable

from torch import Tensor

from models.losses import LossTerms, PerceptualLoss

# Takes an image (1, 3, H, W) that requires a gradient, sets its .grad, and returns the loss.
Objective = Callable[[Tensor], LossTerms]


def whole_image(loss: PerceptualLoss, content: Tensor) -> Objective:
    """The objective computed for the whole image at once: fastest, about 1.5 kB for each pixel.

    Args:
        loss: with the targets of the style.
        content: (1, 3, H, W) float32 RGB in [0, 1], of the image's size.
    """
    targets = loss.content_targets(content)

    def evaluate(image: Tensor) -> LossTerms:
        image.grad = None
        terms = loss(image, targets)
        terms.total.backward()
        return terms

    return evaluate
