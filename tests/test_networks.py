"""Shapes for every side, and the fast decoder against the plain one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from conocc.networks import Autoencoder, Encoder, UpsampledConv, bottleneck_of


def plain(layer: UpsampledConv, x):
    """Upsample, convolve, crop: the layer as one would write it down."""
    y = F.interpolate(x, scale_factor=2, mode="nearest")
    h, w = layer.size
    return F.conv2d(y, layer.weight, layer.bias, padding=1)[..., :h, :w]


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (7, 7)])
def test_upsampled_convolution_equals_the_plain_one_in_value_and_gradient(size):
    """In float64, to 1e-10."""
    torch.manual_seed(0)
    layer = UpsampledConv(3, 2, size).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 2, *size, dtype=torch.float64)
    inputs = (x, layer.weight, layer.bias)
    fast, slow = layer(x), plain(layer, x)
    assert torch.allclose(fast, slow, atol=1e-10)
    of_fast = torch.autograd.grad((fast * weights).sum(), inputs)
    of_slow = torch.autograd.grad((slow * weights).sum(), inputs)
    for a, b in zip(of_fast, of_slow, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(h=st.integers(16, 60), w=st.integers(16, 60), c=st.sampled_from([1, 3]))
def test_reconstruction_has_the_exact_size_of_the_image(h, w, c):
    network = Autoencoder((c, h, w), bottleneck=4, channels=(2, 3, 4))
    x = torch.zeros(2, c, h, w)
    assert network.encoder(x).shape == (2, 4)
    assert network(x).shape == x.shape


@pytest.mark.parametrize("shape", [(1, 25, 25), (3, 50, 50), (20,)])
def test_every_parameter_gets_a_gradient(shape):
    torch.manual_seed(0)
    network = Autoencoder(shape, bottleneck=8)
    x = torch.randn(8, *shape)
    (network(x) - x).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_encoder_without_bias_maps_the_zero_image_to_zero():
    encoder = Encoder((1, 16, 16), 8, bias=False)
    assert encoder(torch.zeros(1, 1, 16, 16)).abs().max() == 0


def test_bottleneck_is_as_asked_for_images_and_at_most_half_for_vectors():
    """A vector that passes unchanged has no reconstruction error."""
    assert bottleneck_of((1, 16, 16), 256) == 256
    assert [bottleneck_of((d,), 256) for d in (1, 2, 30, 1000)] == [1, 1, 15, 256]
