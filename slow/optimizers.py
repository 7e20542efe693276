"""Optimisers of one image: a step from a gradient, and a state that can be saved and enlarged."""

from collections.abc import Callable

import torch
from torch import Tensor

from slow.settings import SlowSettings

LARGE = 2**20  # pixels; for images of this size and more L-BFGS remembers SHORT_HISTORY steps
SHORT_HISTORY = 10
SMOOTHING = 64  # px
REACH = 32  # px, beyond which smoothing mixes less than a thousandth
# Share of full scale, on average over the image. Usual steps are shorter. The few longer ones come
# from a misjudged curvature, mostly soon after a start from noise.
LONGEST_STEP = 0.015

Resize = Callable[[Tensor], Tensor]
Waves = tuple[Tensor, Tensor, Tensor]  # see make_waves


class LBFGS:
    """Limited-memory BFGS (Nocedal 1980) with one evaluation a step.

    It has no stopping test and no line search, which fail in float32 near the minimum. Every step
    is taken, whatever the loss does; one along which the curvature is not positive is not
    remembered. Nothing else, such as clamping, changes the image between two steps. The initial
    inverse Hessian is not a multiple of the identity but a smoothing, because the loss is less
    curved in coarse patterns than in fine ones. It reaches the same loss in about a quarter fewer
    steps.

    Args:
        learning_rate: share of the quasi-Newton step to take.
        history: steps to remember.
    """

    def __init__(self, learning_rate: float, history: int) -> None:
        self.learning_rate, self.history = learning_rate, history
        self.scale: float | None = None  # of the initial inverse Hessian
        self.waves: Waves | None = None
        self.gradient: Tensor | None = None
        self.step_taken: Tensor | None = None
        self.count = 0  # steps that were remembered; the last ones are still there
        # A row is a step, or the change of the gradient over it; a new one replaces the oldest.
        self.steps = self.changes = torch.empty(0)
        self.products = torch.empty(0)  # steps (rows) by changes; valid unless a change is older

    @torch.no_grad()
    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Move an image (1, 3, H, W) in place, with the gradient of the loss there."""
        if self.gradient is not None:
            self._remember(gradient - self.gradient)
        if self.scale is None:  # the curvature is unknown: 1 % of full scale on average
            self.scale = (0.01 / self._smooth(gradient).abs().mean().clamp(min=1e-30)).item()
        step = self._direction(gradient)
        too_long = (step.abs().mean() / LONGEST_STEP).clamp(min=1)
        self.step_taken = step.mul_(self.learning_rate / too_long)
        self.gradient = gradient.clone()
        image += self.step_taken

    def _remember(self, change: Tensor) -> None:
        curvature = _dot(change, self.step_taken)
        if not curvature > 0:
            return
        if not self.count:
            limit = self.history if change[0, 0].numel() < LARGE else SHORT_HISTORY
            self.steps, self.changes = self._rows(limit, change)
            self.products = torch.zeros(limit, limit, dtype=torch.float64)
        row = self.count % len(self.steps)
        self.count += 1
        self.steps[row], self.changes[row] = self.step_taken.flatten(), change.flatten()
        steps = self.steps[: self.count]
        self.products[: self.count, row] = (steps @ self.changes[row]).cpu().double()
        self.scale = curvature / _dot(change, self._smooth(change))

    def _rows(self, number: int, image: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(image.new_empty(number, image.numel()) for _ in range(2))

    def _direction(self, gradient: Tensor) -> Tensor:
        """Minus the inverse Hessian times the gradient.

        The two-loop recursion as products of matrices: the values that its loops compute one by one
        are the solutions of triangular equations (Byrd, Nocedal & Schnabel 1994).
        """
        if not self.count:
            return self._smooth(gradient).mul_(-self.scale)
        steps, changes = self.steps[: self.count], self.changes[: self.count]
        by_age = torch.arange(self.count - len(steps), self.count) % len(self.steps)
        products = self.products[by_age][:, by_age].triu()

        def solved(products: Tensor, values: Tensor, upper: bool) -> Tensor:
            values = torch.linalg.solve_triangular(products, values[by_age, None], upper=upper)
            return torch.empty_like(values[:, 0]).index_copy_(0, by_age, values[:, 0])

        direction = -gradient.flatten()
        shares = solved(products, (steps @ direction).cpu().double(), upper=True)
        direction.addmv_(changes.T, shares.to(direction), alpha=-1)
        direction = self._smooth(direction.view_as(gradient)).mul_(self.scale).flatten()
        back = self.products.diagonal()[: self.count] * shares
        back -= (changes @ direction).cpu().double()
        back = solved(products.T, back, upper=False)
        return direction.addmv_(steps.T, back.to(direction)).view_as(gradient)

    def _smooth(self, image: Tensor) -> Tensor:
        self.waves = self.waves or make_waves(*image.shape[-2:], image.device)
        return smooth(image, self.waves)

    def enlarged(self, resize: Resize, factor: float) -> "LBFGS":
        """The optimiser for an image with `factor` times as many pixels. It keeps only the scale of
        the inverse Hessian, which grows with the number of pixels: the loss is a mean over them.
        """
        larger = LBFGS(self.learning_rate, self.history)
        larger.scale = None if self.scale is None else self.scale * factor
        return larger

    def state_dict(self) -> dict:
        def filled(rows: Tensor) -> Tensor:
            # A copy without the rows that are still empty: a file would hold them, too.
            return rows[: self.count].clone() if self.count < len(rows) else rows

        return {
            "scale": self.scale,
            "gradient": self.gradient,
            "step_taken": self.step_taken,
            "count": self.count,
            "steps": filled(self.steps),
            "changes": filled(self.changes),
            "products": self.products.float(),  # as they were computed; MPS has no float64
        }

    def load_state_dict(self, state: dict) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self.products = self.products.cpu().double()  # state files are loaded to the device
        if self.count < len(self.products):
            steps, changes = self.steps, self.changes
            self.steps, self.changes = self._rows(len(self.products), self.gradient)
            self.steps[: self.count], self.changes[: self.count] = steps, changes


class Adam:
    """Adam (Kingma & Ba, arXiv 1412.6980); its moments are kept for the next scale.

    Args:
        learning_rate: of a step, in units of full scale.
    """

    BETAS = (0.9, 0.99)

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.count = 0
        self.mean: Tensor | None = None
        self.square: Tensor | None = None

    @torch.no_grad()
    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Move an image (1, 3, H, W) in place, with the gradient of the loss there."""
        if self.mean is None:
            self.mean, self.square = torch.zeros_like(image), torch.zeros_like(image)
        self.count += 1
        self.mean.lerp_(gradient, 1 - self.BETAS[0])
        self.square.lerp_(gradient.square(), 1 - self.BETAS[1])
        mean_weight, square_weight = (1 - beta**self.count for beta in self.BETAS)
        size = (self.square / square_weight).sqrt_().add_(1e-12)
        image.addcdiv_(self.mean, size, value=-self.learning_rate / mean_weight)

    def enlarged(self, resize: Resize, factor: float) -> "Adam":
        """The optimiser for an image with `factor` times as many pixels. The loss is a mean over
        them, so each pixel's gradient becomes `factor` times smaller.
        """
        larger = Adam(self.learning_rate)
        if self.mean is not None:
            larger.count = self.count
            larger.mean = resize(self.mean) / factor
            larger.square = resize(self.square).clamp_(min=0) / factor**2
        return larger

    def state_dict(self) -> dict:
        return {"count": self.count, "mean": self.mean, "square": self.square}

    def load_state_dict(self, state: dict) -> None:
        self.count, self.mean, self.square = state["count"], state["mean"], state["square"]


def smooth(image: Tensor, waves: Waves) -> Tensor:
    """Weight the waves of an image by the square root of their length, up to SMOOTHING px. White
    noise keeps about its amplitude.

    The image is continued by its mirror image, so that opposite borders are not mixed.
    """
    rows, columns, gain = waves
    size = len(rows), len(columns)
    planes = []
    for plane in image.split(1, dim=1):  # one by one, in a third of the memory
        around = plane.index_select(-2, rows).index_select(-1, columns)
        around = torch.fft.irfft2(torch.fft.rfft2(around).mul_(gain), size)
        planes.append(around[..., REACH:-REACH, REACH:-REACH])
    return torch.cat(planes, dim=1)


def make_waves(height: int, width: int, device: torch.device) -> Waves:
    """The rows and columns that make up an image continued by its mirror image, for REACH px at
    each end; and the weights of its waves.
    """
    sides = []
    for length in (height, width):
        positions = torch.arange(-REACH, length + REACH, device=device) % (2 * length)
        sides.append(positions.minimum(2 * length - 1 - positions))
    down = torch.fft.fftfreq(len(sides[0]), device=device).square().unsqueeze(1)
    across = torch.fft.rfftfreq(len(sides[1]), device=device).square()
    gain = (down + across + SMOOTHING**-2) ** -0.25
    return *sides, gain / gain.mean()


def make_optimizer(settings: SlowSettings) -> LBFGS | Adam:
    """The optimiser that the settings name."""
    if settings.optimizer == "lbfgs":
        return LBFGS(settings.learning_rate, settings.history)
    return Adam(0.02 * settings.learning_rate)


def _dot(a: Tensor, b: Tensor) -> float:
    return torch.dot(a.flatten(), b.flatten()).item()
