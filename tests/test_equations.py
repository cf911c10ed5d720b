"""Each equation against a slow reading of the paper, and its gradient against torch's own check."""

import numpy as np
import pytest
import torch

from conocc import equations


@pytest.fixture
def pair():
    """Two images of 3×3 pixels in float64: the reconstruction and the image."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 1, 3, 3, dtype=torch.float64, generator=generator)


def slow_residual(x_hat, x):
    """Eq. (2), pixel by pixel."""
    return sum(
        (float(x_hat[0, row, column]) - float(x[0, row, column])) ** 2
        for row in range(x.shape[1])
        for column in range(x.shape[2])
    )


def test_eq_1_is_the_squared_distance_to_the_center():
    """(1-0)² + (2-4)² = 5 and (3-0)² + (4-4)² = 9, by hand."""
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert equations.constraining_loss(z, torch.tensor([0.0, 4.0])).tolist() == [5.0, 9.0]


def test_eq_2_sums_the_squared_residual_over_all_pixels(pair):
    x_hat, x = pair
    slow = [slow_residual(x_hat[i], x[i]) for i in range(2)]
    assert np.allclose(equations.reconstruction_loss(x_hat, x), slow, rtol=1e-14)


def test_eq_3_weighs_the_constraint_by_gamma():
    """1 + 10·3 = 31, by hand."""
    assert equations.total_loss(torch.tensor([1.0]), torch.tensor([3.0]), 10.0).item() == 31.0


def test_eq_4_and_5_are_one_gradient_step_on_the_batch_loss():
    """The step on the mean of Eq. (3) moves W_d by Eq. (4) and W_e by Eq. (5), image by image."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    w_e = torch.randn(2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    w_d = torch.randn(3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    mu, gamma, lr = torch.tensor([0.5, -1.0], dtype=torch.float64), 10.0, 0.01
    z = x @ w_e.T
    loss = equations.total_loss(
        equations.reconstruction_loss(z @ w_d.T, x), equations.constraining_loss(z, mu), gamma
    )
    of_d, of_e = torch.autograd.grad(equations.batch_loss(loss), (w_d, w_e))

    sum_d, sum_e = np.zeros((3, 2)), np.zeros((2, 3))
    for x_i in x.numpy():
        e, d = w_e.detach().numpy(), w_d.detach().numpy()
        z_i = e @ x_i
        residual = d @ z_i - x_i
        sum_d += 2 * np.outer(residual, z_i)  # ∂L_AE/∂W_d
        sum_e += 2 * np.outer(d.T @ residual, x_i)  # ∂L_AE/∂W_e
        sum_e += gamma * 2 * np.outer(z_i - mu.numpy(), x_i)  # γ ∂L_con/∂z_i, into W_e
    assert np.allclose(lr * of_d, lr / 4 * sum_d, rtol=1e-12)
    assert np.allclose(lr * of_e, lr / 4 * sum_e, rtol=1e-12)


def test_eq_6_is_eq_2_of_a_new_image(pair):
    x_hat, x = pair
    assert equations.anomaly_score(x_hat, x).tolist() == [
        pytest.approx(slow_residual(x_hat[i], x[i])) for i in range(2)
    ]


def test_center_is_the_mean_over_all_blocks_however_they_are_cut():
    z = torch.arange(10.0).reshape(5, 2)
    assert equations.center([z[:3], z[3:]]).tolist() == z.mean(0).tolist() == [4.0, 5.0]
    assert equations.center([z]).dtype == torch.float32


def test_center_is_summed_in_double_precision():
    """In float32 a large feature swallows those that come after it."""
    blocks = [torch.tensor([[2.0**25]]), *torch.ones(1024, 1, 1), torch.tensor([[-(2.0**25)]])]
    assert equations.center(blocks).item() == pytest.approx(1024 / 1026)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (equations.constraining_loss, [(3, 4), (4,)]),
        (equations.reconstruction_loss, [(2, 1, 3, 3), (2, 1, 3, 3)]),
        (equations.anomaly_score, [(2, 1, 3, 3), (2, 1, 3, 3)]),
        (lambda a, b: equations.total_loss(a, b, 10.0), [(3,), (3,)]),
        (equations.batch_loss, [(3,)]),
    ],
)
def test_gradients_are_those_of_finite_differences(function, shapes):
    generator = torch.Generator().manual_seed(2)
    inputs = [
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in shapes
    ]
    assert torch.autograd.gradcheck(function, inputs)
